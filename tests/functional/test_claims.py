# SPDX-License-Identifier: Apache-2.0
"""The claim protocol under concurrency and failures, on each kind of database."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier

import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exception

from evscrub.domain.clock import Clock, DatabaseClock
from evscrub.domain.decisions import UNKNOWN, Kind, Leave, Policy, Scrub, Wait
from evscrub.domain.hold_rules import RefusedError
from evscrub.registry.claims import Claim, Claims, Seen, Settlement
from evscrub.registry.database import UNAVAILABLE, is_away
from evscrub.registry.faults import is_of_rows
from evscrub.registry.holds import Holds
from evscrub.registry.pages import Pages, Window
from tests.chaos.rows import Rows, connect, new_id, utc_now
from tests.functional.agents import wait_for
from tests.functional.glance_tables import make_tables
from tests.servers import DatabaseServer, MariaDB, PostgreSQL

POLICY = Policy(scrub_time=timedelta(minutes=10), claim_timeout=timedelta(seconds=60))
#: SQLite has no server, no connections to lose and no locks on rows.
ON_A_SERVER = pytest.mark.parametrize(
    "backend", ["mariadb", "postgresql"], indirect=True, scope="module"
)
LONG = 7200.0
TABLES = pytest.mark.parametrize("table", ["images", "image_locations"])
STORES = ("fast", "archive", "tape")


@pytest.fixture
def rows(registry_url: str) -> Iterator[Rows]:
    rows = Rows(registry_url)
    yield rows
    rows.engine.dispose()


@pytest.fixture
def new_claims(registry_url: str) -> Iterator[Callable[[], Claims]]:
    """Return a function that connects the claims of another agent."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(claims_on(registry_url))


@contextmanager
def claims_on(url: str) -> Iterator[Claims]:
    """Connect an agent's claims to a registry."""
    database = connect(url)
    yield Claims(database)
    database.dispose()


@pytest.fixture
def claims(new_claims: Callable[[], Claims]) -> Claims:
    return new_claims()


def pending(rows: Rows, *stores: str, ago: float = LONG) -> str:
    """Add an image and delete it."""
    image_id = new_id()
    locations = [(store, f"file:///{store}/{image_id}") for store in stores or STORES[:1]]
    rows.add(*locations, image_id=image_id)
    rows.delete(image_id, ago=ago)
    return image_id


def orphaned(rows: Rows, *, ago: float = LONG) -> str:
    """Add an image and remove one of its two locations."""
    image_id = new_id()
    rows.add(
        ("fast", f"file:///fast/{image_id}"),
        ("archive", f"file:///archive/{image_id}"),
        image_id=image_id,
    )
    rows.take_off(image_id, "archive", ago=ago)
    return image_id


def claim_one(claims: Claims, image_id: str) -> Claim:
    (claim,) = claims.claim([image_id], POLICY).claims
    return claim


def decision(seen: Seen, image_id: str) -> object:
    return seen.sights[image_id].decision


def age(rows: Rows, claim: Claim, seconds: float) -> Claim:
    """Make a claim older."""
    lease = claim.lease - timedelta(seconds=seconds)
    for location in claim.locations:
        rows.execute(
            "UPDATE image_locations SET updated_at = :lease WHERE id = :id",
            lease=lease,
            id=location.id,
        )
    rows.execute(
        "UPDATE images SET updated_at = :lease WHERE id = :id AND status = 'deleted'",
        lease=lease,
        id=claim.image.id,
    )
    return replace(claim, lease=lease)


def settle(
    claims: Claims, *settled: Claim, left: Sequence[int] = (), whole: bool = True
) -> Collection[str]:
    """Settle claims; all locations not in `left` are gone."""
    return claims.settle(
        [
            Settlement(
                claim.image.id,
                claim.lease,
                [number for number in ids_of(claim) if number not in left],
                [number for number in ids_of(claim) if number in left],
                whole,
            )
            for claim in settled
        ],
        POLICY.claim_timeout,
    )


def renew(claims: Claims, claim: Claim) -> datetime | None:
    """Renew a claim; returns the new lease, or None if the claim is lost or locked."""
    renewal = claims.renew([(claim, claim.lease)])
    return renewal.lease if claim.image.id in renewal.kept else None


def ids_of(claim: Claim) -> list[int]:
    return [location.id for location in claim.locations]


def stamps(rows: Rows, image_id: str) -> list[datetime]:
    """Return the leases (times of change) of an image's locations."""
    values = [row["updated_at"] for row in rows.rows("image_locations", image_id)]
    return [v if isinstance(v, datetime) else datetime.fromisoformat(str(v)) for v in values]


# -- who gets an image


def test_each_image_is_claimed_exactly_once(rows: Rows, new_claims: Callable[[], Claims]) -> None:
    images = [pending(rows) for _ in range(60)]
    orphans = [orphaned(rows) for _ in range(10)]
    agents = 6
    barrier = Barrier(agents)

    def work(seed: int) -> list[tuple[str, int]]:
        claims, chance, won = new_claims(), random.Random(seed), []
        wanted = images + orphans
        chance.shuffle(wanted)
        barrier.wait(60)
        while wanted:
            batch = wanted[: chance.randint(1, 15)]
            seen = claims.claim(batch, POLICY)
            won += [(claim.image.id, n) for claim in seen.claims for n in ids_of(claim)]
            # What was locked is asked for again.
            wanted = [image for image in wanted if image not in seen.sights]
        return won

    with ThreadPoolExecutor(agents) as pool:
        won = [item for part in pool.map(work, range(agents)) for item in part]
    assert Counter(won).most_common(1)[0][1] == 1
    assert {image_id for image_id, _ in won} == {*images, *orphans}
    for image_id in images:
        assert rows.status(image_id) == ("deleted", ["pending_delete"])
    for image_id in orphans:
        assert rows.status(image_id) == ("active", ["active", "pending_delete"])


def test_image_is_restored_or_claimed_but_never_both(
    rows: Rows, new_claims: Callable[[], Claims]
) -> None:
    images = [pending(rows) for _ in range(30)]
    claims, holds = new_claims(), Holds(new_claims().database)
    barrier = Barrier(2)

    def restore() -> set[str]:
        done = set()
        barrier.wait(60)
        for image_id in images:
            try:
                holds.restore(image_id)
            except RefusedError as error:
                assert str(error) == "it is being scrubbed"  # noqa: PT017 - either may happen
            else:
                done.add(image_id)
        return done

    def claim() -> set[str]:
        won = set()
        barrier.wait(60)
        for image_id in reversed(images):
            seen = claims.claim([image_id], POLICY)
            while image_id not in seen.sights:
                seen = claims.claim([image_id], POLICY)
            won |= {claim.image.id for claim in seen.claims}
        return won

    with ThreadPoolExecutor(2) as pool:
        restoring, claiming = pool.submit(restore), pool.submit(claim)
    restored, claimed = restoring.result(), claiming.result()
    assert restored | claimed == set(images)
    assert not restored & claimed
    for image_id in restored:
        assert rows.status(image_id) == ("active", ["active"])
    for image_id in claimed:
        assert rows.status(image_id) == ("deleted", ["pending_delete"])


@ON_A_SERVER
@pytest.mark.parametrize("off", [15, -15])
def test_node_with_a_wrong_clock_gets_no_claims(rows: Rows, registry_url: str, off: int) -> None:
    image_id = pending(rows, ago=POLICY.scrub_time.total_seconds() - 5 if off > 0 else LONG)
    clock = DatabaseClock(Clock(), several_nodes=True)
    database = connect(registry_url)
    claims = Claims(database, clock)
    asked = clock.moment()
    clock.observe(database.now(), asked)
    set_clock_off(database.engine, off)
    began = time.monotonic()
    seen = claims.claim([image_id], POLICY)
    assert seen.refused
    assert not seen.claims
    assert rows.status(image_id)[0] == "pending_delete"
    assert clock.dispute_seconds is None
    clock.observe(seen.now, clock.moment())
    # Whole seconds on MariaDB, and as old as it has got meanwhile.
    inexact = 1 + time.monotonic() - began
    assert abs(clock.dispute_seconds or 0) == pytest.approx(15, abs=inexact)
    database.dispose()


@ON_A_SERVER
def test_lease_renewed_on_a_lagging_node_is_fresh_on_other_nodes(
    rows: Rows, registry_url: str, new_claims: Callable[[], Claims]
) -> None:
    image_id = pending(rows)
    clock = DatabaseClock(Clock(), several_nodes=True)
    database = connect(registry_url)
    claims = Claims(database, clock)
    claim = age(rows, claim_one(claims, image_id), 50)
    set_clock_off(database.engine, -55)
    lease = renew(claims, claim)
    assert stamps(rows, image_id) == [lease]
    wait = decision(new_claims().claim([image_id], POLICY), image_id)
    assert isinstance(wait, Wait)
    assert wait.seconds > 50
    database.dispose()


def set_clock_off(engine: sa.Engine, seconds: int) -> None:
    """Make the server report a wrong time to an engine's transactions."""
    if engine.dialect.name == "mysql":
        sql = [f"SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + {seconds}"]
    else:
        function = (
            "CREATE OR REPLACE FUNCTION off.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
            f" $$ SELECT pg_catalog.clock_timestamp() + interval '{seconds} s' $$"
        )
        path = "SET LOCAL search_path = off, public, pg_catalog"
        sql = ["CREATE SCHEMA IF NOT EXISTS off", function, path]

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        for statement in sql:
            connection.execute(sa.text(statement))


def test_due_time_uses_the_clock_of_the_registry(
    rows: Rows, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrub_time = POLICY.scrub_time.total_seconds()
    early, due = pending(rows, ago=scrub_time - 120), pending(rows, ago=scrub_time + 120)
    for skew in (86400, -86400):
        wall = time.time
        monkeypatch.setattr(time, "time", lambda wall=wall, skew=skew: wall() + skew)
        for seen in (claims.look([early, due], POLICY), claims.claim([early], POLICY)):
            answer = decision(seen, early)
            assert isinstance(answer, Wait)
            assert 0 < answer.seconds <= 121
            assert abs(seen.now - utc_now()) < timedelta(hours=1)
        monkeypatch.undo()
    assert claim_one(claims, due).kind is Kind.PENDING
    assert rows.status(early) == ("pending_delete", ["pending_delete"])


def test_look_changes_nothing(rows: Rows, claims: Claims) -> None:
    image_id, unknown = pending(rows), new_id()
    before = (rows.image(image_id), rows.rows("image_locations", image_id))
    seen = claims.look([image_id, unknown], POLICY)
    assert isinstance(decision(seen, image_id), Scrub)
    assert decision(seen, unknown) == Leave(UNKNOWN)
    assert seen.claims == ()
    assert (rows.image(image_id), rows.rows("image_locations", image_id)) == before


def test_id_in_different_case_claims_nothing(rows: Rows, claims: Claims) -> None:
    """MariaDB ignores case in comparisons, so the query finds the image."""
    image_id = pending(rows)
    other = image_id.upper()
    assert claims.look([other], POLICY).sights[other].image is None
    assert claims.claim([other], POLICY).claims == []
    assert rows.status(image_id) == ("pending_delete", ["pending_delete"])


@contextmanager
def locked(rows: Rows, table: str, image_id: str) -> Iterator[None]:
    """Keep an image's rows in a table locked, as a client does that is frozen or gone."""
    with rows.engine.begin() as connection:
        lock(connection, table, image_id)
        yield


@ON_A_SERVER
@TABLES
@pytest.mark.parametrize("was_updated", [True, False])
def test_claim_does_not_wait_for_locked_rows(
    rows: Rows, claims: Claims, table: str, was_updated: bool
) -> None:
    blocked, free = pending(rows), pending(rows)
    if not was_updated:
        rows.execute("UPDATE image_locations SET updated_at = NULL")
    with locked(rows, table, blocked):
        seen = claims.claim([blocked, free], POLICY)
    assert [claim.image.id for claim in seen.claims] == [free]
    assert set(seen.sights) == ({free} if table == "images" else {blocked, free})
    claim_one(claims, blocked)


@ON_A_SERVER
@TABLES
def test_renewal_does_not_wait_for_locked_rows(rows: Rows, claims: Claims, table: str) -> None:
    blocked, free = pending(rows), pending(rows)
    held = [age(rows, claim_one(claims, image_id), 20) for image_id in (blocked, free)]
    with locked(rows, table, blocked):
        renewal = claims.renew([(claim, claim.lease) for claim in held])
    if table == "images":  # its time can wait, the lease cannot
        assert (renewal.kept, renewal.locked) == ([blocked, free], [])
        assert stamps(rows, blocked) == [renewal.lease]
    else:
        assert (renewal.kept, renewal.locked) == ([free], [blocked])
        assert stamps(rows, blocked) == [held[0].lease]
    assert stamps(rows, free) == [renewal.lease]


@ON_A_SERVER
@TABLES
def test_settlement_does_not_wait_for_locked_rows(rows: Rows, claims: Claims, table: str) -> None:
    held = [claim_one(claims, pending(rows)) for _ in range(4)]
    blocked, free, *ends = held
    left = ids_of(blocked) + ids_of(free)
    with locked(rows, table, blocked.image.id):
        assert settle(claims, *held, left=left) == {blocked.image.id}
    assert rows.status(free.image.id) == ("pending_delete", ["pending_delete"])
    for claim in ends:
        assert rows.status(claim.image.id) == ("deleted", ["deleted"])
    assert rows.status(blocked.image.id) == ("deleted", ["pending_delete"])
    assert not settle(claims, blocked, left=left)
    assert rows.status(blocked.image.id) == ("pending_delete", ["pending_delete"])


@ON_A_SERVER
@TABLES
def test_deleted_location_is_recorded_unless_it_is_locked_itself(
    rows: Rows, claims: Claims, table: str
) -> None:
    claim = claim_one(claims, pending(rows))
    with locked(rows, table, claim.image.id):
        blocked = settle(claims, claim)
    assert set(blocked) == ({claim.image.id} if table == "image_locations" else set())
    assert not settle(claims, claim)
    assert rows.status(claim.image.id) == ("deleted", ["deleted"])


@ON_A_SERVER
def test_lease_that_is_renewed_during_a_takeover_is_not_taken_over(
    rows: Rows, claims: Claims, new_claims: Callable[[], Claims]
) -> None:
    """The agent that held the claim was frozen, and goes on."""
    image_id, other = pending(rows, *STORES), new_claims()
    slept = age(rows, claim_one(other, image_id), 3600)
    renewed: list[datetime | None] = []

    def renew_it(_: object, __: object, statement: str, *___: object) -> None:
        if "image_locations" in statement and "FOR UPDATE" in statement and not renewed:
            renewed.append(renew(other, slept))

    sa.event.listen(claims.database.engine, "before_cursor_execute", renew_it)
    assert claims.claim([image_id], POLICY).claims == []
    (lease,) = renewed
    assert lease
    assert stamps(rows, image_id) == [lease] * 3


def test_claim_of_an_orphan_does_not_change_its_image(rows: Rows, claims: Claims) -> None:
    image_id = orphaned(rows)
    long_ago = utc_now() - timedelta(days=30)
    rows.execute("UPDATE images SET updated_at = :at WHERE id = :id", at=long_ago, id=image_id)
    before = rows.rows("images", image_id)
    claim = claim_one(claims, image_id)
    assert claim.kind is Kind.ORPHAN
    assert renew(claims, claim)
    settle(claims, claim, left=ids_of(claim))
    assert rows.rows("images", image_id) == before


# -- leases


@pytest.mark.parametrize(
    ("name", "value", "is_removed", "days", "waits"),
    [
        ("os_glance_import_task", "d8a3b0c2-0000-4000-8000-000000000000", False, (0, 0), True),
        ("os_glance_import_task", "d8a3b0c2-0000-4000-8000-000000000000", True, (0, 0), False),
        ("os_glance_importing_to_stores", "fast,archive", False, (0, 0), True),
        ("os_glance_importing_to_stores", "", False, (0, 0), False),
        ("os_glance_failed_import", "archive", False, (0, 0), False),
        # Glance undeletes the row of an earlier import, or died in an import.
        ("os_glance_import_task", "d8a3b0c2-0000-4000-8000-000000000000", False, (9, 6.9), True),
        ("os_glance_import_task", "d8a3b0c2-0000-4000-8000-000000000000", False, (9, 7.1), False),
        ("os_glance_importing_to_stores", "fast,archive", False, (9, 7.1), False),
        ("os_glance_importing_to_stores", "fast,archive", False, (6.9, None), True),
        ("os_glance_importing_to_stores", "fast,archive", False, (7.1, None), False),
    ],
)
def test_orphan_waits_while_glance_imports_its_image(
    rows: Rows,
    claims: Claims,
    name: str,
    value: str,
    is_removed: bool,
    days: tuple[float, float | None],
    waits: bool,
) -> None:
    """With the days since Glance made and last changed the row of the property."""
    created_at, updated_at = (day if day is None else utc_now() - timedelta(day) for day in days)
    image_id, other = orphaned(rows), orphaned(rows)
    with rows.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO image_properties (image_id, name, value, created_at, updated_at,"
                " deleted) VALUES (:image_id, :name, :value, :created_at, :updated_at, :deleted)"
            ),
            {
                "image_id": image_id,
                "name": name,
                "value": value,
                "created_at": created_at,
                "updated_at": updated_at,
                "deleted": is_removed,
            },
        )
    kind = Wait if waits else Scrub
    assert isinstance(claims.look([image_id], POLICY).sights[image_id].decision, kind)
    seen = claims.claim([image_id, other], POLICY)
    assert isinstance(seen.sights[image_id].decision, kind)
    assert {claim.image.id for claim in seen.claims} == ({other} if waits else {image_id, other})


def test_lease_is_in_whole_seconds_of_the_registrys_clock(rows: Rows, claims: Claims) -> None:
    image_id = pending(rows, *STORES)
    seen = claims.claim([image_id], POLICY)
    (claim,) = seen.claims
    assert claim.lease == seen.now.replace(microsecond=0)
    assert stamps(rows, image_id) == [claim.lease] * 3


@pytest.mark.parametrize("whole", [True, False])
def test_repeated_release_does_not_release_the_next_claim(
    rows: Rows, claims: Claims, new_claims: Callable[[], Claims], whole: bool
) -> None:
    """The answer to a commit was lost, and another agent claimed the image in the same second."""
    other = new_claims()
    for _ in range(5):
        image_id = pending(rows)
        first = claim_one(claims, image_id)
        settle(claims, first, left=ids_of(first), whole=whole)
        second = claim_one(other, image_id)
        assert second.lease > first.lease
        settle(claims, first, left=ids_of(first), whole=whole)
        assert rows.status(image_id) == ("deleted", ["pending_delete"])
        assert not renew(claims, first)
        assert renew(other, second)


@pytest.mark.parametrize(("ahead", "follows"), [(30, True), (86400, False)])
def test_lease_is_later_than_the_previous_unless_that_is_far_ahead(
    rows: Rows, claims: Claims, ahead: float, follows: bool
) -> None:
    """A lease far ahead comes from a wrong clock, and an even later one would not expire."""
    image_id = pending(rows)
    before = (utc_now() + timedelta(seconds=ahead)).replace(microsecond=0)
    rows.execute(
        "UPDATE image_locations SET updated_at = :at WHERE image_id = :id", at=before, id=image_id
    )
    seen = claims.claim([image_id], POLICY)
    (claim,) = seen.claims
    assert stamps(rows, image_id) == [claim.lease]
    assert claim.lease == (
        before + timedelta(seconds=1) if follows else seen.now.replace(microsecond=0)
    )


def test_renewal_compares_and_swaps(rows: Rows, claims: Claims) -> None:
    ours, lost = pending(rows, *STORES), pending(rows)
    claim, other = (age(rows, claim_one(claims, image_id), 20) for image_id in (ours, lost))
    wrong = other.lease - timedelta(seconds=1)
    renewal = claims.renew([(claim, claim.lease), (other, wrong)])
    assert (renewal.kept, renewal.locked) == ([ours], [])
    assert renewal.lease > claim.lease
    assert stamps(rows, ours) == [renewal.lease] * 3
    assert stamps(rows, lost) == [other.lease]


def test_lease_can_be_renewed_within_the_same_second(rows: Rows, claims: Claims) -> None:
    image_id = pending(rows, *STORES)
    claim = claim_one(claims, image_id)
    held = claim.lease
    for _ in range(5):
        renewal = claims.renew([(claim, held)])
        assert renewal.kept == [image_id]
        held = renewal.lease


def test_only_an_expired_lease_is_taken_over(
    rows: Rows, claims: Claims, new_claims: Callable[[], Claims]
) -> None:
    image_id = pending(rows, *STORES[:2])
    other = new_claims()
    timeout = POLICY.claim_timeout.total_seconds()
    first = claim_one(claims, image_id)
    for seconds in (0, timeout / 2, timeout - 10):
        aged = age(rows, first, seconds)
        seen = other.claim([image_id], POLICY)
        assert not seen.claims
        assert isinstance(decision(seen, image_id), Wait)
        assert stamps(rows, image_id) == [aged.lease] * 2
    first = age(rows, first, timeout + 2)
    second = claim_one(other, image_id)
    assert second.kind is Kind.EXPIRED
    assert ids_of(second) == ids_of(first)
    assert second.lease > first.lease
    assert not claims.claim([image_id], POLICY).claims
    # The first one wakes.
    assert not renew(claims, first)
    assert stamps(rows, image_id) == [second.lease] * 2
    settle(claims, first, left=ids_of(first))
    assert rows.status(image_id) == ("deleted", ["pending_delete"] * 2)
    assert renew(other, second)


def test_settled_claim_is_not_renewed(rows: Rows, claims: Claims) -> None:
    """A settlement within the second of the lease does not change the time."""
    image_id = pending(rows)
    claim = claim_one(claims, image_id)
    rows.execute("UPDATE image_locations SET status = 'deleted' WHERE image_id = :id", id=image_id)
    assert not renew(claims, claim)


@pytest.mark.parametrize("status", ["pending_delete", "active"])
def test_renewal_does_not_change_an_image_that_is_not_deleted(
    rows: Rows, claims: Claims, status: str
) -> None:
    image_id = pending(rows)
    claim = age(rows, claim_one(claims, image_id), 20)
    rows.execute("UPDATE images SET status = :to WHERE id = :id", to=status, id=image_id)
    before = rows.rows("images", image_id)
    claims.renew([(claim, claim.lease)])
    assert rows.rows("images", image_id) == before


def test_claim_taken_over_in_part_is_not_renewed(rows: Rows, claims: Claims) -> None:
    image_id = pending(rows, *STORES)
    claim = age(rows, claim_one(claims, image_id), 20)
    rows.execute(
        "UPDATE image_locations SET updated_at = :lease WHERE id = :id",
        lease=claim.lease + timedelta(seconds=1),
        id=ids_of(claim)[1],
    )
    assert not renew(claims, claim)


def test_expired_lease_is_taken_over_by_one_agent(
    rows: Rows, new_claims: Callable[[], Claims]
) -> None:
    first = new_claims()
    images = [pending(rows) for _ in range(20)]
    for image_id in images:
        age(rows, claim_one(first, image_id), 3600)
    barrier = Barrier(4)

    def take_over(_: int) -> list[str]:
        claims, won, wanted = new_claims(), [], list(images)
        barrier.wait(60)
        while wanted:
            seen = claims.claim(wanted[:7], POLICY)
            won += [claim.image.id for claim in seen.claims]
            wanted = [image for image in wanted if image not in seen.sights]
        return won

    with ThreadPoolExecutor(4) as pool:
        won = [image_id for part in pool.map(take_over, range(4)) for image_id in part]
    assert sorted(won) == sorted(images)


# -- the end of a claim


def test_settling_deleted_locations_finishes_the_image(rows: Rows, claims: Claims) -> None:
    image_id = pending(rows, *STORES)
    settle(claims, claim_one(claims, image_id))
    assert rows.status(image_id) == ("deleted", ["deleted"] * 3)
    assert not claims.claim([image_id], POLICY).claims


def test_release_makes_the_image_pending_again(rows: Rows, claims: Claims) -> None:
    image_id = pending(rows, *STORES)
    deleted_at = rows.image(image_id)["deleted_at"]
    claim = claim_one(claims, image_id)
    settle(claims, claim, left=ids_of(claim))
    assert rows.status(image_id) == ("pending_delete", ["pending_delete"] * 3)
    assert rows.image(image_id)["deleted_at"] == deleted_at
    assert claim_one(claims, image_id).kind is Kind.PENDING


def test_claim_in_doubt_is_handed_back_and_cannot_be_restored(
    rows: Rows, claims: Claims, new_claims: Callable[[], Claims]
) -> None:
    """Its data may be gone, which only another delete can tell."""
    image_id = pending(rows, *STORES)
    claim = claim_one(claims, image_id)
    gone, *left = ids_of(claim)
    settle(claims, claim, left=left, whole=False)
    assert rows.status(image_id) == ("deleted", ["deleted", "pending_delete", "pending_delete"])
    for refused in (Holds(claims.database).restore, Holds(claims.database).hold):
        with pytest.raises(RefusedError, match="it is being scrubbed"):
            refused(image_id)
    again = claim_one(new_claims(), image_id)
    assert again.kind is Kind.HANDED_BACK
    assert ids_of(again) == left
    # And when that one's agent dies, it is like any that ran out.
    age(rows, again, 3600)
    assert claim_one(claims, image_id).kind is Kind.EXPIRED
    assert gone not in left


def test_one_of_three_locations_is_released(rows: Rows, claims: Claims) -> None:
    image_id = pending(rows, *STORES)
    claim = claim_one(claims, image_id)
    left = ids_of(claim)[1]
    settle(claims, claim, left=[left])
    assert rows.status(image_id) == ("pending_delete", ["deleted", "pending_delete", "deleted"])
    again = claim_one(claims, image_id)
    assert ids_of(again) == [left]
    settle(claims, again)
    assert rows.status(image_id) == ("deleted", ["deleted"] * 3)


def test_release_is_refused_after_a_takeover_and_a_restore(
    rows: Rows, claims: Claims, new_claims: Callable[[], Claims]
) -> None:
    """While an agent slept, its image was taken over, released and restored."""
    image_id = pending(rows, *STORES[:2])
    slept = age(rows, claim_one(claims, image_id), 3600)
    other = new_claims()
    second = claim_one(other, image_id)
    settle(other, second, left=ids_of(second))
    Holds(other.database).restore(image_id)
    whole = (rows.image(image_id), rows.rows("image_locations", image_id))
    assert rows.status(image_id) == ("active", ["active", "active"])
    assert not renew(claims, slept)
    settle(claims, slept, left=ids_of(slept))
    settle(claims, slept)
    assert (rows.image(image_id), rows.rows("image_locations", image_id)) == whole


@ON_A_SERVER
@pytest.mark.parametrize("whole", [True, False])
def test_release_is_put_off_during_a_takeover(rows: Rows, claims: Claims, whole: bool) -> None:
    """The release compares leases after the other agent has stamped its own."""
    image_id = pending(rows)
    slept = age(rows, claim_one(claims, image_id), 3600)
    lease = slept.lease + timedelta(seconds=3600)
    stamp = sa.text("UPDATE image_locations SET updated_at = :lease WHERE image_id = :id")
    with rows.engine.begin() as other:
        lock(other, "images", image_id)
        assert settle(claims, slept, left=ids_of(slept), whole=whole) == {image_id}
        other.execute(stamp, {"lease": lease, "id": image_id})
        assert settle(claims, slept, left=ids_of(slept), whole=whole) == {image_id}
    assert not settle(claims, slept, left=ids_of(slept), whole=whole)
    assert rows.status(image_id) == ("deleted", ["pending_delete"])
    assert stamps(rows, image_id) == [lease]


def test_deleted_location_is_recorded_even_after_a_lost_claim(
    rows: Rows, claims: Claims, new_claims: Callable[[], Claims]
) -> None:
    image_id = pending(rows)
    slow = age(rows, claim_one(claims, image_id), 3600)
    other = new_claims()
    second = claim_one(other, image_id)
    settle(claims, slow)
    assert rows.status(image_id) == ("deleted", ["deleted"])
    settle(other, second, left=ids_of(second))
    assert rows.status(image_id) == ("deleted", ["deleted"])


@pytest.mark.parametrize("whole", [True, False])
def test_release_does_not_change_settled_locations(rows: Rows, claims: Claims, whole: bool) -> None:
    """Another agent may record that a location is gone while this one holds the claim."""
    image_id = pending(rows, *STORES[:2])
    claim = claim_one(claims, image_id)
    rows.execute(
        "UPDATE image_locations SET status = 'deleted' WHERE id = :id", id=ids_of(claim)[0]
    )
    settle(claims, claim, left=ids_of(claim), whole=whole)
    status = "pending_delete" if whole else "deleted"
    assert rows.status(image_id) == (status, ["deleted", "pending_delete"])
    released_at = claim.lease if whole else claim.lease - POLICY.claim_timeout
    assert stamps(rows, image_id) == [claim.lease, released_at]


def test_many_claims_settle_in_one_transaction(rows: Rows, claims: Claims) -> None:
    finished, released, doubtful, slept, napped = (pending(rows) for _ in range(5))
    orphan, kept = orphaned(rows), orphaned(rows)
    fresh = [finished, released, doubtful, orphan, kept]
    won = {c.image.id: c for c in claims.claim(fresh, POLICY).claims}
    stale, nap = (age(rows, claim_one(claims, one), 3600) for one in (slept, napped))
    for one in (slept, napped):
        claim_one(claims, one)
    taken_over = stamps(rows, napped)
    ends = [
        Settlement(finished, won[finished].lease, ids_of(won[finished]), [], whole=True),
        Settlement(released, won[released].lease, [], ids_of(won[released]), whole=True),
        Settlement(doubtful, won[doubtful].lease, [], ids_of(won[doubtful]), whole=False),
        Settlement(slept, stale.lease, [], ids_of(stale), whole=True),
        Settlement(napped, nap.lease, [], ids_of(nap), whole=False),
        Settlement(orphan, won[orphan].lease, ids_of(won[orphan]), [], whole=False),
        Settlement(kept, won[kept].lease, [], ids_of(won[kept]), whole=False),
    ]
    claims.settle(ends, POLICY.claim_timeout)
    assert rows.status(finished) == ("deleted", ["deleted"])
    assert rows.status(released) == ("pending_delete", ["pending_delete"])
    assert rows.status(slept) == ("deleted", ["pending_delete"])
    assert rows.status(orphan) == ("active", ["active", "deleted"])
    for given_back in (doubtful, kept):
        assert {c.image.id for c in claims.claim([given_back], POLICY).claims} == {given_back}
    assert rows.status(kept) == ("active", ["active", "pending_delete"])
    assert stamps(rows, napped) == taken_over


def test_rows_may_vanish_during_a_claim(rows: Rows, claims: Claims) -> None:
    gone, stays = pending(rows, *STORES), pending(rows)
    first, second = (claim_one(claims, image_id) for image_id in (gone, stays))
    rows.purge(gone)
    renewal = claims.renew([(first, first.lease), (second, second.lease)])
    assert (renewal.kept, renewal.locked) == ([stays], [])
    settle(claims, first, left=ids_of(first)[:1])
    settle(claims, replace(second, lease=renewal.lease))
    assert rows.status(stays) == ("deleted", ["deleted"])
    assert rows.rows("images", gone) == []
    assert claims.claim([gone], POLICY).sights == {}


def test_orphan_is_leased(rows: Rows, claims: Claims, new_claims: Callable[[], Claims]) -> None:
    image_id, other = orphaned(rows), new_claims()
    before = rows.image(image_id)
    claim = claim_one(claims, image_id)
    assert claim.kind is Kind.ORPHAN
    assert len(claim.locations) == 1
    assert isinstance(decision(other.claim([image_id], POLICY), image_id), Wait)
    settle(claims, claim, left=ids_of(claim), whole=False)
    assert stamps(rows, image_id)[1] == claim.lease - POLICY.claim_timeout
    slept = age(rows, claim_one(claims, image_id), 3600)
    second = claim_one(other, image_id)
    settle(claims, slept, left=ids_of(slept))
    assert stamps(rows, image_id)[1] == second.lease
    assert renew(other, second)
    settle(other, second)
    assert rows.status(image_id) == ("active", ["active", "deleted"])
    assert rows.image(image_id) == before


# -- trouble with the database


def lock(connection: sa.Connection, table: str, image_id: str) -> None:
    """Lock an image's rows in a table until the connection's transaction ends."""
    key = "id" if table == "images" else "image_id"
    query = f"SELECT id FROM {table} WHERE {key} = :id FOR UPDATE"
    connection.execute(sa.text(query), {"id": image_id}).all()


def waiting(rows: Rows) -> list[int]:
    """Return the connections that wait for a lock."""
    if rows.engine.dialect.name == "postgresql":
        found = rows.read(
            "SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
            " WHERE NOT l.granted AND a.datname = current_database()"
        )
    else:
        rows.read("SELECT SLEEP(0.15)")  # InnoDB shows the same again to whoever asks more often
        found = rows.read(
            "SELECT t.trx_mysql_thread_id FROM information_schema.innodb_trx t"
            " JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
            " WHERE t.trx_state = 'LOCK WAIT' AND p.db = database()"
        )
    return [int(number) for (number,) in found]


def cut(rows: Rows, connection: int) -> None:
    """Kill a connection from another one."""
    if rows.engine.dialect.name == "postgresql":
        rows.read("SELECT pg_terminate_backend(:number)", number=connection)
    else:
        rows.execute(f"KILL {connection}")


@contextmanager
def counted_rollbacks(claims: Claims) -> Iterator[list[None]]:
    """Count failed transactions."""
    seen: list[None] = []

    def count(*_: object) -> None:
        seen.append(None)

    engine = claims.database.engine
    for event in ("rollback", "handle_error"):
        sa.event.listen(engine, event, count)
    yield seen
    for event in ("rollback", "handle_error"):
        sa.event.remove(engine, event, count)


@ON_A_SERVER
def test_deadlocked_restore_is_retried(rows: Rows, claims: Claims) -> None:
    extra = [pending(rows) for _ in range(50)]
    update = sa.text("UPDATE images SET name = 'x' WHERE id = :id")

    def deadlock() -> bool:
        """Deadlock a restore with this test; return whether the restore was the victim."""
        image_id = pending(rows)
        with counted_rollbacks(claims) as failed, ThreadPoolExecutor(1) as pool:
            with suppress(sa.exc.OperationalError), rows.engine.begin() as connection:
                # Who has changed more is not the one that MariaDB gives up.
                for other in extra:
                    connection.execute(update, {"id": other})
                lock(connection, "image_locations", image_id)
                restoring = pool.submit(Holds(claims.database).restore, image_id)
                wait_for("the restore to wait", lambda: waiting(rows))
                lock(connection, "images", image_id)
            restoring.result(60)
        assert rows.status(image_id) == ("active", ["active"])
        return bool(failed)

    # PostgreSQL gives up whoever notices first, which on a busy machine may be this test.
    wait_for("a restore that is given up", deadlock)


@ON_A_SERVER
@pytest.mark.parametrize("step", ["claim", "renew", "finish", "release", "restore"])
def test_claim_is_retried_after_a_lost_connection(
    step: str, rows: Rows, claims: Claims, new_claims: Callable[[], Claims]
) -> None:
    image_id = pending(rows, *STORES)
    if step not in {"claim", "restore"}:
        claim = claim_one(claims, image_id)
    victim = new_claims()
    steps: dict[str, Callable[[], object]] = {
        "claim": lambda: victim.claim([image_id], POLICY),
        "renew": lambda: victim.renew([(claim, claim.lease)]),
        "finish": lambda: settle(victim, claim),
        "release": lambda: settle(victim, claim, left=ids_of(claim)),
        "restore": lambda: Holds(victim.database).restore(image_id),
    }
    engine = victim.database.engine
    numbers = "pg_backend_pid()" if engine.dialect.name == "postgresql" else "connection_id()"
    cuts: list[str] = []

    def cut_once(connection: sa.Connection, _: object, statement: str, *__: object) -> None:
        if statement.startswith("UPDATE") and not cuts:
            cuts.append(statement)
            cut(rows, connection.scalar(sa.text(f"SELECT {numbers}")))

    sa.event.listen(engine, "before_cursor_execute", cut_once)
    with counted_rollbacks(victim) as failed:
        steps[step]()
    assert failed
    expected = {
        "claim": ("deleted", ["pending_delete"] * 3),
        "renew": ("deleted", ["pending_delete"] * 3),
        "finish": ("deleted", ["deleted"] * 3),
        "release": ("pending_delete", ["pending_delete"] * 3),
        "restore": ("active", ["active"] * 3),
    }
    assert rows.status(image_id) == expected[step]


@pytest.mark.parametrize("kind", [MariaDB, PostgreSQL])
def test_claim_is_retried_after_a_server_restart(kind: type[DatabaseServer]) -> None:
    with kind() as server:
        url = server.new_database("restarted")
        make_tables(url)
        rows = Rows(url)
        image_id = pending(rows, *STORES)
        with claims_on(url) as claims:
            claim = claim_one(claims, image_id)
            server.restart()  # the pool's connections are dead now
            lease = renew(claims, claim)
            assert lease
            server.stop()
            with pytest.raises(UNAVAILABLE):
                settle(claims, replace(claim, lease=lease))
            server.start()
            settle(claims, replace(claim, lease=lease))
        assert rows.status(image_id) == ("deleted", ["deleted"] * 3)


# -- pages


@pytest.fixture
def pages(claims: Claims) -> Pages:
    return Pages(claims.database, 10)


def window(*, since: datetime | None = None, start_at: str = "") -> Window:
    now = utc_now()
    return Window(
        deleted_before=now - POLICY.scrub_time,
        stale_before=now - POLICY.claim_timeout,
        changed_since=since,
        start_at=start_at,
    )


@pytest.mark.parametrize("way", ["full", "from the middle", "recent"])
def test_pages_are_complete_and_without_duplicates_while_rows_change(
    way: str, rows: Rows, claims: Claims, pages: Pages
) -> None:
    chance = random.Random(5)
    due = [pending(rows) for _ in range(60)]
    stale = [pending(rows, *STORES[:1]) for _ in range(15)]
    for image_id in stale:
        age(rows, claim_one(claims, image_id), 600)
    orphans = [orphaned(rows) for _ in range(8)]
    fresh = [pending(rows) for _ in range(5)]
    for image_id in fresh:
        claim_one(claims, image_id)
    early = [pending(rows, ago=5) for _ in range(5)]
    others = [rows.add(("fast", "file:///x")) for _ in range(5)]
    changing = [pending(rows) for _ in range(30)]
    left = list(changing)
    holds = Holds(claims.database)
    since = utc_now() - timedelta(hours=3) if way == "recent" else None
    found: list[str] = []
    for page in pages.read(
        window(since=since, start_at=new_id() if way == "from the middle" else "")
    ):
        assert len(page) <= 10
        found += [image.image_id for image in page]
        for change in (holds.restore, rows.purge, lambda i: settle(claims, claim_one(claims, i))):
            if left:
                change(left.pop(chance.randrange(len(left))))
        pending(rows)
    assert not set(found) & {*fresh, *early, *others}
    counts = Counter(found)
    assert {image_id: counts[image_id] for image_id in (*due, *stale, *orphans)} == dict.fromkeys(
        (*due, *stale, *orphans), 1
    )
    assert max(counts.values()) == 1


def test_pages_of_recent_changes(rows: Rows, claims: Claims, pages: Pages) -> None:
    old, new, stale = pending(rows, ago=9000), pending(rows, ago=1000), pending(rows, ago=9000)
    age(rows, claim_one(claims, stale), 600)
    since = utc_now() - timedelta(seconds=2000)
    found = [image for page in pages.read(window(since=since)) for image in page]
    assert {image.image_id for image in found} == {new, stale}
    assert {image.image_id for image in found if image.deleted_at is None} == {stale}
    assert old not in {image.image_id for image in found}


def test_paging_ends_after_a_full_last_page(rows: Rows, pages: Pages) -> None:
    images = {pending(rows) for _ in range(20)}
    found = [image.image_id for page in pages.read(window()) for image in page]
    assert sorted(found) == sorted(images)


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True, scope="module")
@pytest.mark.parametrize("number", [2002, 2003, 2006, 2013, 1047])
def test_a_number_in_an_errors_text_is_no_lost_connection(claims: Claims, number: int) -> None:
    """A trigger, or a database's name or an image's id in the text, may have it."""
    signal = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'image 8{number}a37 is locked'"
    with claims.database.reading() as connection:
        with pytest.raises(db_exception.DBError, match=f"image 8{number}a37") as caught:
            connection.exec_driver_sql(signal)
        assert not is_away(caught.value)
        assert is_of_rows(caught.value)
        assert not connection.invalidated
