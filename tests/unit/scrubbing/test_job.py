# SPDX-License-Identifier: Apache-2.0
"""A claimed image: its states, and its settlement."""

from collections.abc import Collection
from datetime import datetime

import anyio
import pytest

from evscrub.domain.clock import Moment
from evscrub.domain.decisions import ImageRow, Kind, LocationRow
from evscrub.domain.proof import Presence
from evscrub.domain.verdict import (
    FOREIGN_OBJECT,
    GONE,
    NOT_FOUND,
    SHARED,
    STORE_NOT_ENABLED,
    UNPROVEN,
    Outcome,
    StoreNotUsableError,
    Verdict,
    maybe_shared,
)
from evscrub.queueing.delay_queue import Source
from evscrub.registry.claims import Claim
from evscrub.scrubbing.job import Job, JobState, Lease, Location, LocationState, WrongStateError
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.stores.backends import Target
from evscrub.telemetry.statistics import Trouble
from tests.unit.world import Behavior, World, fast, missing

NOW = datetime(2026, 1, 1)
NOT_OURS = Verdict(Outcome.NOT_OURS, "read_only_store")
DOWN = Verdict(Outcome.TRANSIENT, "connection")
ROW = LocationRow(1, "file:///x", "s", "pending_delete", True, NOW, NOW)


def claimed(kind: Kind, count: int = 1) -> Job:
    """Return a job with this number of locations."""
    rows = tuple(ROW._replace(id=number) for number in range(1, count + 1))
    claim = Claim(ImageRow("i", "o", 1, "deleted", True, NOW), kind, rows, NOW)
    locations = [Location(row, Target("s", row.value, "file")) for row in rows]
    return Job(claim, Lease(NOW, Moment(0, 0)), 0.0, Source.EVENT, locations)


@pytest.mark.parametrize(
    ("verdicts", "went"),
    [
        ([GONE], True),
        ([NOT_FOUND], True),
        ([SHARED], False),
        ([NOT_OURS], False),
        ([DOWN], False),
        ([], False),
        ([GONE, SHARED], True),
        ([NOT_OURS, GONE], True),
    ],
)
def test_data_went(verdicts: list[Verdict], went: bool) -> None:
    job = claimed(Kind.PENDING, len(verdicts))
    for location, verdict in zip(job.locations, verdicts, strict=True):
        job.judge(location, "s", verdict, 0.0)
    assert job.data_went is went


@pytest.mark.parametrize(
    ("verdicts", "why"),
    [
        ([], "no_location"),
        ([SHARED], "shared_url"),
        ([NOT_OURS], "read_only_store"),
        ([SHARED, NOT_OURS], "shared_url"),
    ],
)
def test_why_nothing_went(verdicts: list[Verdict], why: str) -> None:
    job = claimed(Kind.PENDING, len(verdicts))
    for location, verdict in zip(job.locations, verdicts, strict=True):
        job.judge(location, "s", verdict, 0.0)
    assert not job.data_went
    assert job.why_nothing_went == why


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("verdict", "there"),
    [
        (None, True),
        (Verdict(Outcome.IN_USE, "in_use"), True),
        (Verdict(Outcome.CONFIGURATION, "bad_url"), True),
        (Verdict(Outcome.STORE_TROUBLE, "no_write_access"), True),
        (Verdict(Outcome.STORE_TROUBLE, "wrong_store"), True),
        (UNPROVEN, True),
        (DOWN, False),
        (Verdict(Outcome.TRANSIENT, "throttled"), False),
        (Verdict(Outcome.UNKNOWN, "unexpected"), False),
    ],
)
def test_settlement_is_whole_only_if_data_is_intact(
    kind: Kind, verdict: Verdict | None, there: bool
) -> None:
    """A claim that was taken over is never whole: the first agent may have deleted data."""
    job = claimed(kind)
    if verdict is not None:
        job.judge(job.locations[0], "s", verdict, 0.0)
    assert job.settlement().whole is (there and kind is Kind.PENDING)


def test_given_up_job_is_not_whole() -> None:
    job = claimed(Kind.PENDING)
    job.give_up(("s", DOWN))
    assert not job.settlement().whole


class TestTwins:
    """Several locations of one object share its result."""

    @pytest.fixture
    def job(self) -> Job:
        job = claimed(Kind.PENDING)
        job.locations[0].twins = [2, 3]
        return job

    def judge(self, job: Job, verdict: Verdict) -> None:
        job.judge(job.locations[0], "s", verdict, 0.0)

    def test_deleted(self, job: Job) -> None:
        self.judge(job, GONE)
        assert (job.settlement().gone, job.settlement().left) == ([1, 2, 3], [])

    def test_missing(self, job: Job) -> None:
        self.judge(job, NOT_FOUND)
        assert job.missing_in == {"s"}
        assert (job.settlement().gone, job.settlement().left) == ([1, 2, 3], [])

    def test_unproven(self, job: Job) -> None:
        self.judge(job, UNPROVEN)
        assert job.missing_in == set()
        assert (job.settlement().gone, job.settlement().left) == ([], [1, 2, 3])

    def test_failed(self, job: Job) -> None:
        self.judge(job, DOWN)
        assert (job.settlement().gone, job.settlement().left) == ([], [1, 2, 3])

    def test_pending(self, job: Job) -> None:
        assert job.settlement().left == [1, 2, 3]

    def test_given_up(self, job: Job) -> None:
        job.give_up(("s", DOWN))
        assert job.settlement().left == [1, 2, 3]

    @pytest.mark.parametrize("behavior", [fast, missing])
    def test_one_object_is_deleted_once(self, behavior: Behavior) -> None:
        world = World(a=behavior, b=behavior)
        world.live = dict.fromkeys("ab", lambda _: Presence.THERE)
        images = [world.add("o", "a", "a", "b", "a") for _ in range(15)]
        world.run(60)
        assert world.statuses() == {"deleted": 15}
        assert not any(world.left(image) for image in images)
        asked = [(one.image_id, one.store) for one in world.asked]
        assert len(asked) == len(set(asked)) == 30


class TestDataThatIsNotDeleted:
    """Locations whose store is not asked."""

    class World(World):
        """A world in which all rows share their data, or no store can delete."""

        verdict: Verdict | None = None
        refusal = ""

        def among(self, rows: Collection[LocationRow]) -> dict[int, Verdict]:
            return {row.id: self.verdict for row in rows} if self.verdict is not None else {}

        def resolve(self, row: LocationRow) -> Target:
            if self.refusal:
                raise StoreNotUsableError(self.refusal, "hint")
            return super().resolve(row)

    @pytest.mark.parametrize(
        ("verdict", "refusal", "end", "reason"),
        [
            (SHARED, "", "deleted", None),
            (SHARED, FOREIGN_OBJECT, "deleted", None),
            (maybe_shared("b"), "", "pending_delete", "maybe_shared"),
            (maybe_shared("b"), FOREIGN_OBJECT, "pending_delete", FOREIGN_OBJECT),
            (None, FOREIGN_OBJECT, "pending_delete", FOREIGN_OBJECT),
        ],
    )
    def test_is_finished_or_parked(
        self, verdict: Verdict | None, refusal: str, end: str, reason: str | None
    ) -> None:
        world = self.World(a=fast)
        world.verdict, world.refusal = verdict, refusal
        image = world.add("o", "a", "a")
        troubles: dict[str, Trouble] = {}

        async def watch(scrubber: Scrubber) -> None:
            await anyio.sleep(10)
            troubles.update(scrubber._record.troubles)

        world.run(11, watch)
        assert world.asked == []
        assert world.status(image) == end
        if reason is not None:
            assert troubles[image].parked
            assert troubles[image].verdict.reason == reason

    @pytest.mark.parametrize("verdict", [SHARED, None])
    def test_is_counted_under_a_configured_store_or_none(self, verdict: Verdict | None) -> None:
        """A row may name any store, and a metric keeps every label."""
        world = self.World(a=fast)
        world.verdict, world.refusal = verdict, STORE_NOT_ENABLED
        for name in ("a", "b", "A", "x" * 255):
            world.add("o", name)
        counted: set[str] = set()

        async def watch(scrubber: Scrubber) -> None:
            await anyio.sleep(10)
            counted.update(store for store, *_ in scrubber._record.outcomes)
            counted.update(trouble.store for trouble in scrubber._record.troubles.values())

        world.run(11, watch)
        assert counted == {"a", ""}

    def test_is_parked_if_its_location_raises(self) -> None:
        """It is claimed by then, and must not be finished while its data is left."""
        world = self.World(a=fast)
        image = world.add("o", "a")
        resolve, calls = world.resolve, [0]

        def break_later(row: LocationRow) -> Target:
            calls[0] += 1
            if calls[0] > 1:  # the first call is the look's
                raise LookupError("a defect")
            return resolve(row)

        world.resolve = break_later  # type: ignore[method-assign] # a defect
        troubles: dict[str, Trouble] = {}

        async def watch(scrubber: Scrubber) -> None:
            await anyio.sleep(10)
            troubles.update(scrubber._record.troubles)

        world.run(11, watch)
        assert calls[0] == 2
        assert world.status(image) == "pending_delete"
        assert world.left(image) == {"a"}
        assert troubles[image].parked


#: Each transition, from which state to which.
TRANSITIONS = {
    "start": (JobState.WAITING, JobState.DELETING),
    "stop": (JobState.DELETING, JobState.WAITING),
    "end": (JobState.WAITING, JobState.ENDED),
    "settled": (JobState.ENDED, JobState.SETTLED),
}


class TestStates:
    """Transitions of a job."""

    @pytest.mark.parametrize("state", JobState)
    @pytest.mark.parametrize("transition", TRANSITIONS)
    def test_wrong_transition_raises(self, transition: str, state: JobState) -> None:
        job = claimed(Kind.PENDING)
        job.state = state
        before, after = TRANSITIONS[transition]
        if state is before:
            getattr(job, transition)()
            assert job.state is after
        else:
            with pytest.raises(WrongStateError):
                getattr(job, transition)()
            assert job.state is state

    def test_location_cannot_be_judged_twice(self) -> None:
        job = claimed(Kind.PENDING)
        job.judge(job.locations[0], "s", GONE, 0.0)
        with pytest.raises(WrongStateError):
            job.judge(job.locations[0], "s", DOWN, 0.0)
        assert job.settlement().gone == [1]

    @pytest.mark.parametrize("state", [JobState.ENDED, JobState.SETTLED])
    def test_ended_job_cannot_be_judged(self, state: JobState) -> None:
        job = claimed(Kind.PENDING)
        job.state = state
        with pytest.raises(WrongStateError):
            job.judge(job.locations[0], "s", GONE, 0.0)
        assert job.settlement().left == [1]

    @pytest.mark.parametrize(
        ("verdict", "state"),
        [
            (GONE, LocationState.DELETED),
            (NOT_FOUND, LocationState.MISSING),
            (SHARED, LocationState.KEPT),
            (NOT_OURS, LocationState.KEPT),
            (UNPROVEN, LocationState.UNPROVEN),
            (DOWN, LocationState.FAILED),
            (Verdict(Outcome.STORE_TROUBLE, "wrong_store"), LocationState.FAILED),
            (Verdict(Outcome.CONFIGURATION, "bad_url"), LocationState.FAILED),
        ],
    )
    def test_state_follows_from_the_verdict(self, verdict: Verdict, state: LocationState) -> None:
        job = claimed(Kind.PENDING)
        job.judge(job.locations[0], "s", verdict, 0.0)
        assert job.locations[0].state is state
