# SPDX-License-Identifier: Apache-2.0
"""Tells billing and audit on Glance's bus when an image's data is gone, or cannot be removed.

Sent at priority ``info`` as ``image.scrub`` and at ``error`` as ``image.scrub.error``, on the
topics that Glance's own notifications go to, with the names that those use for the same things.
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

#: Notifications kept while the bus is away; what comes on top is counted and lost.
_KEPT = 10_000
_RETRIES = 2
_FINISH_SECONDS = 5.0


class Audit:
    """Sends notifications in the background.

    :param conf: Glance's configuration, for the bus and the topics.
    :param wall: seconds since the epoch.
    """

    def __init__(self, conf: cfg.ConfigOpts, wall: Callable[[], float] = time.time) -> None:
        self.lost = 0
        self._wall = wall
        transport = oslo_messaging.get_notification_transport(conf)
        # Not the topics' driver option: whoever turns this on wants it sent.
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
        """Tell that an image's data is gone."""
        payload = {
            "id": image.image_id,
            "owner": image.owner,
            "size": image.size_bytes,
            "status": "deleted",
            "scrubbed_at": datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._put("info", "image.scrub", payload)

    def failed(self, image_id: str, trouble: Trouble) -> None:
        """Tell that an image's data cannot be removed without an operator."""
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
                except Exception as error:  # noqa: BLE001 - the driver's own and its client's
                    self._lose(type(error).__name__)
        self._sent.set()

    async def finish(self) -> None:
        """Send what is left, as far as it goes in a few seconds."""
        self._send.close()
        with anyio.move_on_after(_FINISH_SECONDS):
            await self._sent.wait()
        self._sending.cancel()
        self.lost += self._receive.statistics().current_buffer_used
        self._receive.close()
        if self.lost:
            LOG.warning("%d audit notifications were lost", self.lost)

    def _put(self, priority: str, event_type: str, payload: Mapping[str, object]) -> None:
        try:
            self._send.send_nowait((priority, event_type, payload))
        except anyio.WouldBlock:
            self._lose("too many wait")

    def _lose(self, reason: str) -> None:
        if not self.lost:
            LOG.warning("An audit notification is lost: %s; how many is told at the end", reason)
        self.lost += 1
