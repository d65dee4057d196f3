# SPDX-License-Identifier: Apache-2.0
"""Play the demo: upload images, delete them through the API, and wait until they are scrubbed."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
from oslo_config import cfg

from evscrub.agent import Agent
from evscrub.config.loader import OwnOptions
from evscrub.demo.check import Check, check_all, check_uploaded
from evscrub.demo.client import GlanceClient
from evscrub.demo.frame import Frame
from evscrub.demo.images import STORM_OWNER, Fate, Plan, schedule
from evscrub.demo.show import Display
from evscrub.demo.stage import Stage
from evscrub.domain.clock import Clock
from evscrub.telemetry.statistics import Scrubbed

T = TypeVar("T")

_FRAME_SECONDS = 0.125
_JOIN_SECONDS = 20.0
_UPLOADS = 4
#: How much longer than the delay and the rate limit all scrubs may take before the demo fails.
_PATIENCE_SECONDS = 30.0
_RATE_OVER_SECONDS = 3.0
#: How long a description of a special event is displayed.
_READ_SECONDS = 2.0


class DemoError(Exception):
    """Raised when the demo fails; the message is one line."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the demo; plans and scrubbed images by image id."""

    plans: Mapping[str, Plan]
    scrubbed: Mapping[str, Scrubbed]
    checks: list[Check]
    seconds: float


class Play:
    """One run of the demo; call :meth:`run` once.

    :param stage: the Glance to use.
    :param plans: the images to create.
    :param conf: the agent's configuration, Glance's included.
    :param own: evscrub's own options alone.
    :param display: shows the progress.
    :param clock: this host's clocks.
    """

    def __init__(
        self,
        stage: Stage,
        plans: list[Plan],
        conf: cfg.ConfigOpts,
        own: OwnOptions,
        display: Display,
        clock: Clock,
    ) -> None:
        self.agent = Agent(conf, own, self._on_scrubbed)
        self.client = GlanceClient(stage.url)
        self.scrubbed: dict[str, Scrubbed] = {}
        #: Called with each scrubbed image.
        self.on_scrubbed: Callable[[Scrubbed], None] = lambda _: None
        self._conf = conf
        self._stage = stage
        self._all = plans
        self._to_delete = [plan for plan in plans if plan.fate is not Fate.KEPT]
        self._all_scrubbed = anyio.Event()
        self._plans: dict[str, Plan] = {}
        self._display = display
        self._act = "Starting the agent"
        self._clock = clock
        self._began = clock.boot()
        self._deleted_at: dict[str, float] = {}
        self._times: deque[float] = deque()

    async def run(self) -> Outcome:
        """Play from the first upload to the last check; the agent must be running.

        :raises DemoError: an expected event did not happen.
        """
        with self._display:
            checks = await self._play()
        return Outcome(self._plans, self.scrubbed, checks, self._clock.boot() - self._began)

    async def _play(self) -> list[Check]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._show)
            await self._join()
            await self._upload()
            await self._delete()
            await self._wait()
            self._act = "Checking on disk, in the database and through the API"
            self._display.show(self.frame())  # checks may end before the next frame is due
            checks = await _in_thread(check_all, self._stage, self.client, self._plans)
            checks.append(self._check_lost())
            tasks.cancel_scope.cancel()
        return checks

    # -- the acts

    async def _join(self) -> None:
        listener = self.agent.listener
        with anyio.move_on_after(_JOIN_SECONDS):
            while not listener.statistics().joined:  # noqa: ASYNC110 - the agent has no event for it
                await anyio.sleep(0.02)
        if not listener.statistics().joined:
            raise DemoError(f"the agent could not join the bus within {_JOIN_SECONDS:.0f} s")

    async def _upload(self) -> None:
        self._act = "Uploading images through Glance's API"
        slots = anyio.CapacityLimiter(_UPLOADS)
        async with anyio.create_task_group() as tasks:
            for plan in self._all:
                tasks.start_soon(self._upload_one, plan, slots)
        check = await _in_thread(check_uploaded, self._stage, self._plans)
        if check.wrong:
            raise DemoError(check.wrong[0])

    async def _upload_one(self, plan: Plan, slots: anyio.CapacityLimiter) -> None:
        async with slots:
            image_id = await _in_thread(
                partial(self.client.create, owner=plan.owner, visibility=plan.visibility), plan.name
            )
            await _in_thread(partial(self.client.upload, store=plan.store), image_id, plan.data)
            self._plans[image_id] = plan

    async def _delete(self) -> None:
        ids = list(self._plans)
        fates = [self._plans[image_id].fate for image_id in ids]
        seconds = min(20.0, max(6.0, 2.0 * self._stage.scrub_time))
        acts = {
            Fate.DELETED: "The owners delete images, one after another",
            Fate.STORM: f"{STORM_OWNER} deletes {fates.count(Fate.STORM)} images at once",
            Fate.LOST: "One notification is dropped on purpose: a sweep must find that image",
        }
        begin = read_until = self._clock.boot()
        for at, number in schedule(fates, seconds):
            fate, now = fates[number], self._clock.boot()
            await anyio.sleep(max(0.0, begin + at - now))
            if fate is not Fate.DELETED:
                read_until = now + _READ_SECONDS
            if fate is not Fate.DELETED or now > read_until:
                self._act = acts[fate]
            await self._delete_one(ids[number], fate)

    async def _delete_one(self, image_id: str, fate: Fate) -> None:
        with self._no_notifications() if fate is Fate.LOST else _nothing():
            await _in_thread(self.client.delete, image_id)
        self._deleted_at[image_id] = self._clock.wall()

    @contextmanager
    def _no_notifications(self) -> Iterator[None]:
        """Disable Glance's image.delete notifications by its option."""
        self._conf.set_override("disabled_notifications", ["image.delete"])
        try:
            yield
        finally:
            self._conf.clear_override("disabled_notifications")

    async def _wait(self) -> None:
        self._act = "All are deleted; the rest falls due and is scrubbed"
        count = len(self._deleted_at)
        patience = self._stage.scrub_time + count / self._stage.rate + _PATIENCE_SECONDS
        with anyio.move_on_after(patience):
            await self._all_scrubbed.wait()
        if missing := [i for i in self._deleted_at if i not in self.scrubbed]:
            raise DemoError(
                f"{len(missing)} of {count} images were not scrubbed within {patience:.0f} s of the"
                f" last delete: {', '.join(map(self._why, missing[:3]))}"
            )

    def _why(self, image_id: str) -> str:
        """Return an image's name with the reason why the agent has not scrubbed it."""
        found = self.agent.scrubber.images_in_trouble()
        reason = found.damaged.get(image_id)
        if trouble := found.troubles.get(image_id):
            reason = f"{trouble.verdict.why} {trouble.verdict.detail}"
        return f"{self._plans[image_id].name} ({reason or 'no reason known'})"

    def _check_lost(self) -> Check:
        """Check that the lost image was indeed not announced on the bus."""
        missed = self.agent.statistics().scrubber.record.missed_by_bus
        return Check(
            "agent     the image without a notification was found by a sweep",
            [] if missed else ["the bus announced all images"],
        )

    # -- display

    def _on_scrubbed(self, scrubbed: Scrubbed) -> None:
        self.scrubbed[scrubbed.image_id] = scrubbed
        self._times.append(self._clock.boot())
        if len(self.scrubbed) == len(self._to_delete):
            self._all_scrubbed.set()
        self.on_scrubbed(scrubbed)

    async def _show(self) -> None:
        while True:
            self._display.show(self.frame())
            await anyio.sleep(_FRAME_SECONDS)

    def frame(self) -> Frame:
        """Return the current state of the demo and its agent."""
        now, wall = self._clock.boot(), self._clock.wall()
        while self._times and self._times[0] < now - _RATE_OVER_SECONDS:
            self._times.popleft()
        statistics = self.agent.statistics()
        queue = statistics.queue
        in_work = min(statistics.scrubber.running, queue.taken)
        by_owner = Counter(plan.owner for plan in self._to_delete)
        done = Counter(scrubbed.owner for scrubbed in self.scrubbed.values())
        known = queue.waiting + queue.ready + queue.taken + len(self.scrubbed)
        return Frame(
            act=self._act,
            seconds=now - self._began,
            uploaded=len(self._plans),
            images=len(self._all),
            to_delete=len(self._to_delete),
            deleted=len(self._deleted_at),
            unheard=max(0, len(self._deleted_at) - known),
            waiting=queue.waiting,
            due=queue.ready + queue.taken - in_work,
            in_work=in_work,
            scrubbed=len(self.scrubbed),
            bytes_reclaimed=sum(scrubbed.size_bytes for scrubbed in self.scrubbed.values()),
            bytes_to_reclaim=sum(plan.size for plan in self._to_delete),
            per_second=len(self._times) / _RATE_OVER_SECONDS,
            falls_due=[
                deleted_at + self._stage.scrub_time - wall
                for image_id, deleted_at in self._deleted_at.items()
                if image_id not in self.scrubbed
            ],
            late=[scrubbed.late_seconds for scrubbed in self.scrubbed.values()],
            owners={owner: (done[owner], by_owner[owner]) for owner in sorted(by_owner)},
        )


@contextmanager
def _nothing() -> Iterator[None]:
    yield


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Run a blocking function in a thread; on Ctrl-C it is abandoned, as the process ends."""
    return await anyio.to_thread.run_sync(partial(function, *arguments), abandon_on_cancel=True)
