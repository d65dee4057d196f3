# SPDX-License-Identifier: Apache-2.0
"""Consume Glance's notifications from the bus and pass them to the event loop.

oslo.messaging runs in its own threads, and while the broker is away, starting and stopping it
block. Both therefore happen in a daemon thread, which a stop of the agent does not wait for.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import LogRecord
from typing import Any

import anyio
import oslo_messaging
from anyio.lowlevel import EventLoopToken
from oslo_config import cfg
from oslo_log import log as logging

from evscrub.domain.clock import Clock
from evscrub.intake import kafka
from evscrub.intake import transport as bounded
from evscrub.intake.amqp import PRIORITY
from evscrub.intake.batch_server import BatchServer
from evscrub.intake.broker_probe import BrokerWatch, brokers, transport_url
from evscrub.intake.notification import READ, DeleteEvent, MalformedError, NotForUsError, parse
from evscrub.telemetry.log_limit import LogLimit
from evscrub.telemetry.outage import Outage
from evscrub.telemetry.silence import Silence

LOG = logging.getLogger(__name__)

_TELL_SECONDS = 60.0
_STOP_SECONDS = 2.0
_REJOIN_SECONDS = 5.0
_SILENCE_LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ListenerStatistics:
    """What the listener received since the agent started.

    :param joined: whether the bus is joined.
    :param received: number of notifications.
    :param ignored: number of notifications that need no action.
    :param malformed: number of notifications that Glance would not send, by reason.
    :param last_at: when the last one arrived, seconds since the epoch; None before the first.
    """

    joined: bool
    received: int
    ignored: int
    malformed: Mapping[str, int]
    last_at: float | None


class Dispatcher:
    """Dispatch batches of messages for oslo.messaging.

    oslo.messaging's dispatcher rejects a whole batch if one message in it is malformed; this one
    handles each message by itself. No message is requeued, because one that cannot be read now
    never can. Called by one thread at a time.

    :param deliver: receives the events of a batch, which are acknowledged when it returns.
    :param clock: returns monotonic seconds.
    :param wall: returns seconds since the epoch.
    """

    supported_priorities = (PRIORITY,)

    def __init__(
        self,
        deliver: Callable[[list[DeleteEvent]], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.malformed: Counter[str] = Counter()
        self.received = 0
        self.ignored = 0
        self.last_at: float | None = None  #: when the last message arrived, seconds since the epoch
        self._deliver = deliver
        self._clock = clock
        self._wall = wall
        self._untold: Counter[str] = Counter()  #: messages dropped since that was last logged
        self._limit = LogLimit(_TELL_SECONDS)

    def dispatch(self, incoming: Sequence[Any]) -> set[Any]:
        """Read a batch; return the messages to requeue, which are none."""
        self.last_at = self._wall()
        now = datetime.fromtimestamp(self.last_at, UTC)
        events = []
        for message in incoming:
            self.received += 1
            try:
                events.append(_event(message.message, now))
            except NotForUsError:
                self.ignored += 1
            except MalformedError as error:
                self._drop(str(error))
            except Exception as error:  # noqa: BLE001 - a sender can provoke any error
                self._drop(type(error).__name__)
        self._tell_of_dropped()
        if events:
            try:
                self._deliver(events)
            except Exception as error:  # noqa: BLE001 - the loop may be ending
                LOG.info(
                    "Dropped %d events, because the agent is stopping (%s)",
                    len(events),
                    type(error).__name__,
                )
        return set()

    def _drop(self, reason: str) -> None:
        self.malformed[reason] += 1
        self._untold[reason] += 1

    def _tell_of_dropped(self) -> None:
        if self._untold and self._limit.allows(self._clock()):
            LOG.warning(
                "Dropped notifications that Glance would not send (%s): check who else may publish"
                " on the bus; logged once a minute at most",
                ", ".join(f"{reason}: {count}" for reason, count in self._untold.most_common()),
            )
            self._untold.clear()


def _event(body: Any, now: datetime) -> DeleteEvent:  # noqa: ANN401 - untrusted input of any type
    """Return the event in a message, read by :mod:`evscrub.intake.transport` or else here.

    JSON cannot decode to these types, so a sender cannot forge a message that looks read.
    """
    match body.get(READ):
        case DeleteEvent() as event:
            return event
        case (NotForUsError() | MalformedError()) as error:
            raise error
    return parse(body.get("event_type"), body.get("payload"), now)


class Listener:
    """Listen to Glance's notifications on the bus.

    :param clock: this host's clocks.
    :param on_events: called in the event loop with the events of each batch.
    :param on_joined: called in the event loop with whether the bus is joined, each time that
        changes.
    :param missed: returns how many images sweeps have found so far that the bus should have
        announced.
    :raises ValueError: the bus's configuration is invalid.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        clock: Clock,
        on_events: Callable[[list[DeleteEvent]], None],
        on_joined: Callable[[bool], None],
        missed: Callable[[], int] = lambda: 0,
    ) -> None:
        self.dispatcher = Dispatcher(self._deliver, clock.boot, clock.wall)
        self._joined = False
        self._joining = anyio.Event()
        self._conf = conf
        self._clock = clock
        self._on_events = on_events
        self._on_joined = on_joined
        self._missed = missed
        self._stop = threading.Event()
        self._leave = threading.Event()  #: leave the bus, to stop or to join again
        self._token: EventLoopToken
        bounded.install()
        try:
            self._transport = oslo_messaging.get_notification_transport(conf)
        except (oslo_messaging.MessagingException, ValueError) as error:
            # Some of these errors quote the URL, which holds the broker's password.
            raise ValueError(
                kafka.why_not_loaded(error)
                or "the message bus cannot be used: check transport_url and"
                f" [oslo_messaging_notifications] transport_url: {type(error).__name__}"
            ) from None
        if reason := kafka.why_unusable(transport_url(conf)):
            raise ValueError(reason)
        self._limit_prefetch(conf)
        self._watch = BrokerWatch(
            Outage("The bus", "Until it is back, sweeps find what is deleted", clock.boot),
            clock.boot,
            brokers(conf),
        )

    def statistics(self) -> ListenerStatistics:
        """Return what was received so far. Thread-safe."""
        dispatcher = self.dispatcher
        return ListenerStatistics(
            joined=self._joined,
            received=dispatcher.received,
            ignored=dispatcher.ignored,
            malformed=dict(dispatcher.malformed),
            last_at=dispatcher.last_at,
        )

    def is_told(self, record: LogRecord) -> bool:
        """Evaluate a record of the bus's client; return whether the listener reports the same.

        Thread-safe.
        """
        return self._watch.is_told(record)

    async def run(self) -> None:
        """Listen until cancelled."""
        self._token = anyio.lowlevel.current_token()
        thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        thread.start()
        try:
            await self._joining.wait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch.run, self._bus_changed)
                tasks.start_soon(self._watch_silence)
        finally:
            self._stop.set()
            self._leave.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, _STOP_SECONDS)

    def _listen(self) -> None:
        options = self._conf.listener
        targets = [
            oslo_messaging.Target(topic=topic, exchange=options.exchange)
            for topic in options.topics
        ]
        while not self._stop.is_set():
            server = BatchServer(
                self._transport,
                targets,
                self.dispatcher,
                "threading",
                allow_requeue=False,
                pool=options.pool,
                batch_size=options.batch_size,
                batch_timeout=options.batch_timeout,
            )
            try:
                server.start(override_pool_size=1)
            except Exception as error:  # noqa: BLE001 - the driver's or its client's
                self._watch.complain(f"it cannot be joined, {type(error).__name__}")
                self._stop.wait(_REJOIN_SECONDS)
                continue
            self._tell(self._has_joined)
            self._leave.wait()
            self._leave.clear()
            server.stop()
            server.wait()

    async def _watch_silence(self) -> None:
        """Rejoin the bus if it is unexpectedly silent."""
        silence = Silence(self._clock.boot())
        while True:
            await anyio.sleep(_SILENCE_LOOK_SECONDS)
            received, missed = self.dispatcher.received, self._missed()
            if self._joined and silence.is_suspect(self._clock.boot(), received, missed):
                LOG.warning(
                    "No notifications arrive, but sweeps found images that the bus should have"
                    " announced: rejoining the bus; if that does not help, check that [listener]"
                    " topics has one of Glance's [oslo_messaging_notifications] topics"
                )
                self._joined = False
                self._on_joined(False)
                self._leave.set()

    def _has_joined(self) -> None:
        self._watch.outage.back()
        LOG.info("Listening on the bus")
        self._joined = True
        self._on_joined(True)
        self._joining.set()

    def _bus_changed(self, there: bool) -> None:  # noqa: FBT001 - a callback
        self._joined = there
        self._on_joined(there)

    def _deliver(self, events: list[DeleteEvent]) -> None:
        self._tell(self._on_events, events)

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in the event loop and wait for it, which limits the rate of intake."""
        if not self._stop.is_set():
            anyio.from_thread.run_sync(function, *arguments, token=self._token)

    def _limit_prefetch(self, conf: cfg.ConfigOpts) -> None:
        """Prefetch a few batches unless configured; the driver's default has no limit."""
        with contextlib.suppress(cfg.Error):  # another driver has no such option
            conf.set_default(
                "rabbit_qos_prefetch_count", 5 * conf.listener.batch_size, "oslo_messaging_rabbit"
            )
