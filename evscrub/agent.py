# SPDX-License-Identifier: Apache-2.0
"""The agent: assembles the parts and runs them in one tree of tasks.

No part waits for the broker, so an outage of it stops nothing but events; sweeps find the images
that were missed. During an outage of the registry, events are still received and queued.
"""

import signal
from collections.abc import Callable, Collection
from ipaddress import ip_network

import anyio
from anyio.abc import TaskStatus
from oslo_config import cfg
from oslo_log import log as logging

from evscrub import version
from evscrub.config import loader
from evscrub.config.settings import (
    scrubber_settings,
    status_address,
    sweep_settings,
    unset_delay,
)
from evscrub.coordination.member import GroupMember, group_settings
from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.flow_control.share import ShareGate
from evscrub.intake.consumer_count import ConsumerCount
from evscrub.intake.listener import Listener
from evscrub.intake.notification import DeleteEvent
from evscrub.intake.sweep import Sweep
from evscrub.queueing.delay_queue import DelayQueue
from evscrub.registry import connecting
from evscrub.registry.causal import may_have_several_nodes
from evscrub.registry.claims import Claims
from evscrub.registry.database import Database
from evscrub.registry.pages import Pages
from evscrub.scrubbing.context import Context, Observers
from evscrub.scrubbing.retries import Retried
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.status import service as status
from evscrub.status.retry_route import Retry
from evscrub.status.snapshot import AgentStatistics, Sources
from evscrub.stores import places
from evscrub.stores.backends import Stores
from evscrub.stores.loading import is_about_loading
from evscrub.stores.reloads import StoreReloads
from evscrub.telemetry import log_redaction, quiet
from evscrub.telemetry.audit import Audit
from evscrub.telemetry.redact import redact
from evscrub.telemetry.statistics import Scrubbed, Trouble

LOG = logging.getLogger(__name__)

#: Glance's events carry whole seconds, read a little later than the registry's ``deleted_at``. Look
#: this much earlier; the image then waits for the registry's exact time.
_EVENT_EARLY_SECONDS = 1.0


class Agent:
    """An agent, ready to run.

    :param conf: the whole configuration; must be ``cfg.CONF``.
    :param own: evscrub's own configuration files, for logging.
    :param on_scrubbed: called with each image that is complete.
    :raises ConfigError: an option has a value that does not work.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        own: loader.OwnOptions,
        on_scrubbed: Callable[[Scrubbed], None] = lambda _: None,
    ) -> None:
        self._conf = conf
        self._own = own
        clock = Clock()
        try:
            self.stores = Stores(
                conf,
                lambda: conf.scrubber.acknowledged_stores,
                conf.scrubber.allowed_places,
                conf.scrubber.separate_stores,
            )
            answer_seconds = connecting.answer_seconds(conf.scrubber.claim_timeout)
            database = Database(conf, answer_seconds=answer_seconds)
            database.probe()
            several_nodes = may_have_several_nodes(database)
            self.listener = Listener(
                conf,
                clock,
                self._take_in,
                self._joined,
                lambda: self.scrubber.statistics().record.missed_by_bus,
            )
            self._consumer_count = ConsumerCount(conf, clock)
            self._status_address = status_address(conf)
        except ValueError as error:
            raise loader.ConfigError(str(error)) from None
        is_told = self.listener.is_told
        self._demote = quiet.Demote(
            lambda told: quiet.is_raised(told) or is_told(told) or is_about_loading(told)
        )
        self._audit = Audit(conf, clock.wall) if conf.audit.notify else None
        self._on_scrubbed = on_scrubbed
        self.database_clock = DatabaseClock(clock, several_nodes=several_nodes)
        self.queue = DelayQueue(conf.queue.max_entries, origin=self.database_clock.now())
        context = Context.create(scrubber_settings(conf), database, self.database_clock)
        self.scrubber = Scrubber(
            self.queue,
            Claims(database, self.database_clock),
            self.stores,
            context,
            Observers(self._scrubbed, self._parked),
        )
        self._group = self._group_member(clock, context.share)
        self._store_reloads = StoreReloads(self.stores, self.scrubber.try_parked)
        self.sweep = Sweep(
            self.queue,
            Pages(database, conf.sweep.batch_size),
            context.calls,
            clock,
            self.database_clock,
            sweep_settings(conf),
            self.scrubber.wake,
            self.scrubber.sweep_begins,
        )
        self._database = database
        self._sources = Sources(
            self.queue,
            self.scrubber,
            self.listener,
            self.sweep,
            self.stores,
            database,
            clock,
            self.database_clock,
            self._group,
            self._consumers,
        )
        networks = [ip_network(network) for network in conf.status.retry_from]
        self._retry = Retry(self.scrubber.retry_images, self._retry_stores, networks)
        self._stop: anyio.Event | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until :meth:`stop`, or SIGTERM or SIGINT where signals are handled."""
        self._stop = anyio.Event()
        if not self._conf.delayed_delete:
            LOG.warning(
                "delayed_delete is off in Glance's configuration as read here: Glance deletes data"
                " itself and leaves nothing to scrub"
            )
        quiet.install(self._demote)
        self._introduce()
        async with anyio.create_task_group() as membership:
            if self._group is not None:
                membership.start_soon(self._group.run)
            await self._work(self._stop, task_status)
            membership.cancel_scope.cancel()
        self._database.dispose()
        LOG.info("Stopped")

    async def _work(self, stop: anyio.Event, task_status: TaskStatus[None]) -> None:
        """Take images in and scrub them until `stop`, then finish the running deletes."""
        async with anyio.create_task_group() as scrubbing:
            scrubbing.start_soon(self._scrub, stop)
            if self._audit is not None:
                scrubbing.start_soon(self._audit.run)
            async with anyio.create_task_group() as intake:
                intake.start_soon(self.sweep.run)
                intake.start_soon(self.listener.run)
                intake.start_soon(self._consumer_count.run)
                intake.start_soon(self._store_reloads.run)
                intake.start_soon(status.run, self._status_address, self._sources, self._retry)
                task_status.started()
                await stop.wait()
                LOG.info("Stopping: waiting for running deletes")
                intake.cancel_scope.cancel()

    def statistics(self) -> AgentStatistics:
        """Return the statistics of all parts; the cost does not grow with the number of images."""
        return self._sources.statistics()

    def stop(self) -> None:
        """Stop intake, finish running deletes, and release the other jobs. Returns at once."""
        if self._stop is not None:
            self._stop.set()

    async def handle_signals(self) -> None:
        """Stop on SIGTERM and SIGINT, reload on SIGHUP; call this in the main thread only."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            # A SIGHUP during startup was blocked until here.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            async for number in signals:
                if number == signal.SIGHUP:
                    try:
                        self.reload()
                    except Exception:
                        LOG.exception("Configuration reloaded in part: send SIGHUP again")
                else:
                    self.stop()

    def reload(self) -> None:
        """Reload the configuration, apply mutable options, and retry stores that failed to load.

        If the configuration is invalid, log the error and change nothing.
        """
        wrong = None
        try:
            changed = loader.reload(self._conf, self._own)
            settings, sweep = scrubber_settings(self._conf), sweep_settings(self._conf)
        except loader.ConfigError as error:
            wrong = str(error)
        finally:
            # oslo.log may have created new handlers, even if something failed after that.
            log_redaction.install()
            quiet.install(self._demote)
        if wrong is not None:  # outside the handler, where oslo.log would repeat the exception
            LOG.error("Configuration not reloaded, nothing is changed: %s", redact(wrong))
            return
        options = self._conf.scrubber
        self.stores.change(options.allowed_places, options.separate_stores)
        self._store_reloads.soon()
        self.scrubber.change(settings)
        self.sweep.change(sweep)
        self._warn_of_unknown_stores()
        self._warn_of_no_delay()
        LOG.info("Configuration reloaded; changed: %s", ", ".join(changed) or "nothing")

    def _introduce(self) -> None:
        settings = self.scrubber.settings
        LOG.info(
            "evscrub %s, configured by %s; stores: %s; delay %.0f s, concurrency %d, rate %s",
            version.version_string_with_package(),
            ", ".join(self._conf.config_file) or "no file",
            ", ".join(self.stores.usable) or "none",
            settings.policy.scrub_time.total_seconds(),
            settings.concurrency,
            f"{settings.rate:g}/s" if settings.rate else "not limited",
        )
        self._warn_of_unknown_stores()
        self._warn_of_no_delay()
        self._warn_of_ignored_logging()

    def _warn_of_ignored_logging(self) -> None:
        if ignored := loader.ignored_logging(self._own.sources):
            LOG.warning(
                "Logging options are ignored because nothing tells whether their file is evscrub's:"
                " %s. If it is, give the file a name with evscrub in it; if it is Glance's, name it"
                " in [DEFAULT] glance_config_files",
                ", ".join(ignored),
            )

    def _warn_of_no_delay(self) -> None:
        if warning := unset_delay(self._conf):
            LOG.warning("%s", warning)

    def _warn_of_unknown_stores(self) -> None:
        settings = self.scrubber.settings
        for option, stores in (
            ("store_concurrency", settings.store_concurrency),
            ("store_rate", settings.store_rate),
            ("acknowledged_stores", settings.acknowledged_stores),
            ("allowed_places", places.allowed(self._conf.scrubber.allowed_places)),
            ("separate_stores", self._conf.scrubber.separate_stores),
        ):
            unknown = sorted(set(stores) - set(self.stores.names))
            if unknown:
                LOG.warning(
                    "[scrubber] %s names %s, which is not a store of this agent; its stores are %s",
                    option,
                    ", ".join(unknown),
                    ", ".join(self.stores.names),
                )

    def _group_member(self, clock: Clock, gate: ShareGate) -> GroupMember | None:
        """Return the membership of the group that shares the limits, if one is configured."""
        try:
            settings = group_settings(self._conf)
            if settings is None:
                return None
            return GroupMember(settings, clock, gate, self._consumers, self.scrubber.take_share)
        except ValueError as error:
            raise loader.ConfigError(str(error)) from None

    def _consumers(self) -> int | None:
        """Return how many agents consume from the bus, this one among them; None if not known."""
        return self._consumer_count.count if self.listener.statistics().joined else None

    async def _scrub(self, stop: anyio.Event) -> None:
        await self.scrubber.run(float(self._conf.scrubber.drain_timeout), stop)
        if self._audit is not None:
            await self._audit.finish()

    def _take_in(self, events: list[DeleteEvent]) -> None:
        scrub_time = self.scrubber.settings.policy.scrub_time.total_seconds()
        for event in events:
            if self.scrubber.is_in_trouble(event.image_id):
                continue  # an event does not shorten the wait for a retry
            due = event.deleted_at + scrub_time - _EVENT_EARLY_SECONDS
            self.queue.add(event.image_id, due, owner=event.owner)
        self.scrubber.wake()

    async def _retry_stores(self, stores: Collection[str] | None) -> Retried:
        """Look at failed images now, and try to load the stores that cannot be used."""
        self._store_reloads.soon()
        return await self.scrubber.retry_stores(stores)

    def _scrubbed(self, image: Scrubbed) -> None:
        self._on_scrubbed(image)
        if self._audit is not None and image.data_went:
            self._audit.scrubbed(image)

    def _parked(self, image_id: str, trouble: Trouble) -> None:
        if self._audit is not None:
            self._audit.failed(image_id, trouble)

    def _joined(self, joined: bool) -> None:  # noqa: FBT001 - a callback
        self.scrubber.bus_changed(joined=joined)
