# SPDX-License-Identifier: Apache-2.0
"""Gather notifications in batches, and rarely wake up while none arrive."""

from typing import Any

from oslo_messaging._drivers.amqpdriver import AMQPListener
from oslo_messaging.notify.listener import BatchNotificationServer

#: How often to wake up while no message arrives. Stopping takes as long.
_IDLE_SECONDS = 1.0


class BatchServer(BatchNotificationServer):  # type: ignore[misc] # oslo.messaging is not typed
    """A server that starts the time of a batch with its first message.

    oslo.messaging's own applies `batch_timeout` to the first message too, so that it would wake up
    twenty times a second while the bus is quiet.
    """

    def _create_listener(self) -> Any:  # noqa: ANN401 - oslo.messaging is not typed
        adapter = super()._create_listener()
        listener = adapter._poll_style_listener  # noqa: SLF001 - there is no public way
        # Kafka's returns when the batch is full or its time is over, even if a message is there.
        if isinstance(listener, AMQPListener):
            adapter._poll_style_listener = _Poller(listener)  # noqa: SLF001 - as above
        return adapter


class _Poller:
    """Polls a driver's listener; everything else is the listener's."""

    def __init__(self, listener: Any) -> None:  # noqa: ANN401 - as above
        self._listener = listener

    def poll(self, batch_size: int, batch_timeout: float) -> list[Any]:
        first: list[Any] = self._listener.poll(batch_size=1, batch_timeout=_IDLE_SECONDS)
        if not first or batch_size == 1:
            return first
        more: list[Any] = self._listener.poll(
            batch_size=batch_size - 1, batch_timeout=batch_timeout
        )
        return first + more

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self._listener, name)
