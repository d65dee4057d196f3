# SPDX-License-Identifier: Apache-2.0
"""Notify billing and audit services on Glance's bus about scrubbed and failed images.

Notifications are ``image.scrub`` at priority ``info`` and ``image.scrub.error`` at ``error``. They
use the topics and the field names of Glance's own notifications.
"""

import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import anyio
import oslo_messaging
from oslo_config import cfg
from oslo_log import log as logging

from evscrub.telemetry.statistics import Scrubbed, Trouble

LOG = logging.getLogger(__name__)

#: Notifications kept while the bus is away; further ones are dropped and counted.
_KEPT = 10_000
#: For ever, because the notifier only logs what it gives up: those that follow wait, and are
#: counted if they cannot. -1 means the same, but is given up at once without a connection.
_RETRIES = 1_000_000_000
_FINISH_SECONDS = 5.0


class Audit:
    """Send notifications in the background.

    :param conf: a configuration with Glance's bus and topics.
    :param wall: returns seconds since the epoch.
    """

    def __init__(self, conf: cfg.ConfigOpts, wall: Callable[[], float] = time.time) -> None:
        self.lost = 0
        self._wall = wall
        transport = oslo_messaging.get_notification_transport(conf)
        # Ignore Glance's driver option: [audit] notify alone decides whether to send.
        self._notifier = oslo_messaging.Notifier(
            transport,
            publisher_id=f"evscrub.{socket.gethostname()}",
            driver="messagingv2",
            topics=conf.oslo_messaging_notifications.topics,
            retry=_RETRIES,
        )
        self._send, self._receive = anyio.create_memory_object_stream[tuple[str, str, object]](
            _KEPT
        )
        self._sending: anyio.CancelScope
        self._sent = anyio.Event()

    def scrubbed(self, image: Scrubbed) -> None:
        """Notify that an image's data is gone."""
        payload = {
            "id": image.image_id,
            "owner": image.owner,
            "size": image.size_bytes,
            "status": "deleted",
            "scrubbed_at": datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._put("info", "image.scrub", payload)

    def failed(self, image_id: str, trouble: Trouble) -> None:
        """Notify that an image's data cannot be deleted without an operator."""
        payload = {
            "id": image_id,
            "owner": trouble.owner,
            "store": trouble.store,
            "reason": trouble.verdict.reason,
        }
        self._put("error", "image.scrub.error", payload)

    async def run(self) -> None:
        """Send until :meth:`finish`."""
        self._sending = anyio.CancelScope()
        with self._sending:
            async for priority, event_type, payload in self._receive:
                try:
                    await anyio.to_thread.run_sync(
                        partial(getattr(self._notifier, priority), {}, event_type, payload),
                        abandon_on_cancel=True,
                    )
                except Exception as error:  # noqa: BLE001 - the driver's or its client's
                    self._lose(type(error).__name__)
        self._sent.set()

    async def finish(self) -> None:
        """Send the remaining notifications within a few seconds, and log how many were lost."""
        self._send.close()
        with anyio.move_on_after(_FINISH_SECONDS):
            await self._sent.wait()
        self._sending.cancel()
        # The one that is being sent may arrive or not.
        self.lost += self._receive.statistics().current_buffer_used + (not self._sent.is_set())
        self._receive.close()
        if self.lost:
            LOG.warning("Lost %d audit notifications", self.lost)

    def _put(self, priority: str, event_type: str, payload: Mapping[str, object]) -> None:
        try:
            self._send.send_nowait((priority, event_type, payload))
        except anyio.WouldBlock:
            self._lose("too many are waiting")

    def _lose(self, reason: str) -> None:
        if not self.lost:
            LOG.warning(
                "Lost an audit notification: %s; the agent logs the number when it stops", reason
            )
        self.lost += 1
