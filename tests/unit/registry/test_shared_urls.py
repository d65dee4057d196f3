# SPDX-License-Identifier: Apache-2.0
"""Which locations' data another one wants, on a registry in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from glance.common import crypt
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.pool import StaticPool

from evscrub.domain import location_crypt
from evscrub.domain.clock import Clock
from evscrub.domain.decisions import LocationRow
from evscrub.domain.location_urls import index_key, key_and_place
from evscrub.domain.object_identity import Identity, Relation, StoreConfig, identify, relate
from evscrub.domain.verdict import (
    CLAIM_LOST,
    HIDDEN,
    SHARED,
    UNDECIPHERABLE,
    StoreNotUsableError,
    maybe_shared,
)
from evscrub.registry import object_index
from evscrub.registry.object_index import ObjectIndex
from evscrub.registry.recent_ids import OVERLAP_SECONDS, RecentIds
from evscrub.registry.shared_urls import SharedUrls
from evscrub.registry.tables import image_locations, images, metadata
from evscrub.registry.url_index import UrlIndex

#: Status of the image, status of the location, whether it is deleted; by what became of it.
STATES = {
    "live": ("active", "active", False),
    "unfinished": ("importing", "uploading", False),  # by Glance's parallel import
    "pending": ("pending_delete", "pending_delete", True),
    "claimed": ("deleted", "pending_delete", True),
    "settled": ("deleted", "deleted", True),
    "removed": ("active", "pending_delete", True),  # from an image that has others
    "incomplete": ("active", "pending_delete", True),  # after glance-scrubber --restore
    "deactivated": ("deactivated", "pending_delete", True),  # the same
}
WANTED = ("live", "unfinished", "pending", "incomplete", "deactivated")
OLD_SECONDS = 7200.0
RENEWAL_SECONDS = 2700.0
EACH_AGE = pytest.mark.parametrize("age", [0, OLD_SECONDS], ids=["new", "old"])


class Registry:
    """Images of one location each, whose URLs are "encrypted" by a number behind them."""

    def __init__(self) -> None:
        self.engine = sa.create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self.engine)
        self.now = 0.0
        self.configs: dict[str, StoreConfig] = {}
        self.key = ""
        self.randrange: Callable[[int], int] = random.Random(0).randrange
        self.statements: list[str] = []
        sa.event.listen(self.engine, "before_cursor_execute", self._count)

    def _count(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.statements.append(statement)

    def add(
        self, value: str, state: str = "live", *, number: int | None = None, age: float = 0
    ) -> int:
        """Add a location; `age` is how long ago its host's clock says that was."""
        created_at = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=age)
        insert = sa.insert(image_locations).values(id=number, value=value, created_at=created_at)
        with self.engine.begin() as connection:
            key = connection.execute(insert).inserted_primary_key
            assert key is not None
            connection.execute(sa.insert(images).values(id=f"image-{key[0]}"))
        self.set(int(key[0]), state, image_id=f"image-{key[0]}")
        return int(key[0])

    def set(self, number: int, state: str = "live", **values: object) -> None:
        image_status, status, deleted = STATES[state]
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(image_locations)
                .where(image_locations.c.id == number)
                .values(status=status, deleted=deleted, **values)
            )
            connection.execute(sa.delete(image_locations).where(image_locations.c.id == -number))
            if state == "removed":
                connection.execute(
                    sa.insert(image_locations).values(
                        id=-number,
                        image_id=f"image-{number}",
                        value=f"file:///kept-{number}",
                        status="active",
                        deleted=False,
                    )
                )
            connection.execute(
                sa.update(images)
                .where(images.c.id == f"image-{number}")
                .values(status=image_status, deleted=image_status in {"pending_delete", "deleted"})
            )

    def set_deletion_time(self, number: int, deleted_at: datetime | None) -> None:
        """Set when the image of a location was deleted."""
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(images)
                .where(images.c.id == f"image-{number}")
                .values(deleted_at=deleted_at)
            )

    def clear(self, value: str) -> str:
        if ":" in value:
            return value.partition("#")[0]
        try:
            return location_crypt.decrypt_url(self.key, value)
        except ValueError:
            raise StoreNotUsableError(UNDECIPHERABLE, "hint") from None

    def index_key(self, value: str) -> str:
        return index_key(self.clear(value))

    def key_and_place(self, value: str) -> tuple[str, str]:
        return key_and_place(self.clear(value))

    def identify(self, row: LocationRow) -> Identity:
        return identify(self.configs.get(row.store or ""), self.clear(row.value))

    def relate(self, one: Identity, other: Identity) -> Relation:
        return relate(one, other, frozenset(), lambda one, other: one == other)

    def verdicts(self) -> SharedUrls:
        database: Any = SimpleNamespace(reading=self.engine.begin, engine=self.engine)
        clock = Clock(lambda: self.now, lambda: self.now)
        return SharedUrls(database, self, clock, self.randrange)

    def shared(self) -> Sharing:
        return Sharing(self.verdicts())


class Sharing:
    """Answers with the ids of rows whose data stays, whatever the verdict on them."""

    def __init__(self, verdicts: SharedUrls) -> None:
        self.verdicts = verdicts

    def among(self, rows: Collection[LocationRow]) -> set[int]:
        return set(self.verdicts.among(rows))


def row(number: int, value: str) -> LocationRow:
    return LocationRow(number, value, "s", "pending_delete", True, None, None)


@pytest.fixture
def registry() -> Registry:
    """Return a registry of a few locations, all older than those that are read again."""
    registry = Registry()
    for value in ("file:///a", "file:///b#1", "?"):
        registry.add(value, age=OLD_SECONDS)
    return registry


def test_finds_those_that_share(registry: Registry) -> None:
    rows = [row(11, "file:///a"), row(12, "file:///b#2"), row(13, "file:///A"), row(14, "c")]
    shared = registry.shared()
    assert shared.among(rows) == {11, 12}
    assert shared.among([*rows, row(15, "?"), row(16, "file:///a")]) == {11, 12, 16}
    assert shared.among([row(17, "?")]) == set()


@EACH_AGE
@pytest.mark.parametrize("state", list(STATES))
def test_only_live_and_pending_locations_need_their_data(
    registry: Registry, state: str, age: float
) -> None:
    registry.add("file:///c", state, age=age)
    wanted = {11} if state in WANTED else set()
    assert registry.shared().among([row(11, "file:///c")]) == wanted


@pytest.mark.parametrize(("state", "wanted"), [("pending", set()), ("live", {11})])
def test_without_its_image_only_a_live_location_needs_its_data(
    registry: Registry, state: str, wanted: set[int]
) -> None:
    registry.add("file:///c", state)
    with registry.engine.begin() as connection:
        connection.execute(sa.delete(images))
    assert registry.shared().among([row(11, "file:///c")]) == wanted


def test_last_claimed_image_deletes_shared_data(registry: Registry) -> None:
    ids = [registry.add("file:///c", "pending") for _ in range(3)]
    shared = [registry.shared(), registry.shared()]
    taking = []
    for agent, number in enumerate(ids):
        registry.set(number, "claimed")
        if shared[agent % 2].among([row(number, "file:///c")]) == set():
            taking.append(number)
    assert taking == ids[-1:]


def test_locations_of_one_claim_do_not_block_each_other(registry: Registry) -> None:
    ids = [registry.add("file:///c", "claimed") for _ in range(2)]
    assert registry.shared().among([row(number, "file:///c") for number in ids]) == set()


@pytest.mark.parametrize("state", WANTED)
def test_claim_that_the_registry_does_not_have_is_lost(registry: Registry, state: str) -> None:
    """It is no shared data: that would finish the image."""
    lost, ours = (registry.add("file:///c", "claimed") for _ in range(2))
    other = registry.add("file:///other", "claimed")
    verdicts = registry.verdicts()
    rows = [row(lost, "file:///c"), row(ours, "file:///c"), row(other, "file:///other")]
    assert verdicts.among(rows) == {}
    registry.set(lost, state)
    assert verdicts.among(rows) == {lost: CLAIM_LOST, ours: SHARED}
    registry.set(ours, state)
    assert verdicts.among(rows) == {lost: CLAIM_LOST, ours: CLAIM_LOST}


@pytest.mark.parametrize(
    ("state", "deleted_ago", "needs"),
    [
        ("pending", 7200, False),
        ("pending", 1800, True),
        ("pending", None, True),  # held
        ("live", None, True),
        ("claimed", 7200, False),
    ],
)
def test_images_that_are_due_need_no_data_in_a_rehearsal(
    registry: Registry, state: str, deleted_ago: float | None, needs: bool
) -> None:
    now = datetime(2026, 5, 1)
    due, other = registry.add("file:///c", "pending"), registry.add("file:///c", state)
    deleted_at = None if deleted_ago is None else now - timedelta(seconds=deleted_ago)
    registry.set_deletion_time(due, now - timedelta(hours=2))
    registry.set_deletion_time(other, deleted_at)
    found = registry.verdicts().among([row(due, "file:///c")], due_before=now - timedelta(hours=1))
    assert found == ({due: SHARED} if needs else {})


@pytest.mark.parametrize("state", ["claimed", "settled"])
def test_restored_image_is_seen_immediately(registry: Registry, state: str) -> None:
    """By whoever: a new location that was settled, whose data stayed, may be set live by hand."""
    restored = registry.add("file:///c", state)
    registry.add("file:///high", number=500)
    shared = registry.shared()
    assert shared.among([row(999, "file:///c")]) == set()
    registry.set(restored, "live")
    assert shared.among([row(999, "file:///c")]) == {999}


@pytest.mark.costly
@pytest.mark.parametrize("step", [1, 3, 7, 65535])
@pytest.mark.parametrize("begun", ["before the first look", "after it"])
def test_row_committed_within_the_overlap_is_seen(
    registry: Registry, step: int, begun: str
) -> None:
    shared = registry.shared()
    late = 500 if begun == "after it" else 4
    if begun == "after it":
        assert shared.among([row(999, "file:///late")]) == set()
    for count in range(1, 301):
        registry.add("file:///x", number=late + count * step)
        if count % 10 == 0:
            registry.now += OVERLAP_SECONDS / 31
            assert shared.among([row(999, "file:///late")]) == set()
    registry.add("file:///late", number=late)
    assert shared.among([row(999, "file:///late")]) == {999}


def test_row_committed_later_is_seen_by_the_next_full_read(registry: Registry) -> None:
    shared = registry.shared()
    registry.add("file:///x", number=500)
    for _ in range(5):
        assert shared.among([row(999, "file:///late")]) == set()
        registry.now += OVERLAP_SECONDS
    registry.add("file:///late", number=450)
    assert shared.among([row(999, "file:///late")]) == set()
    registry.now += 3600
    assert shared.among([row(999, "file:///late")]) == {999}


def test_row_of_a_host_whose_clock_is_behind_is_seen(registry: Registry) -> None:
    registry.add("file:///old", number=100, age=7200)
    registry.add("file:///x", number=500, age=OVERLAP_SECONDS + 290)
    shared = registry.shared()
    assert shared.among([row(999, "file:///late")]) == set()
    registry.add("file:///late", number=450)
    assert shared.among([row(999, "file:///late")]) == {999}


def test_reallocated_ids_are_seen(registry: Registry) -> None:
    numbers = [registry.add(f"file:///{number}") for number in range(6)]
    shared = registry.shared()
    for _ in range(4):
        assert shared.among([row(999, "file:///new")]) == set()
        registry.now += OVERLAP_SECONDS
    # The newest rows are purged, and the server starts again.
    with registry.engine.begin() as connection:
        connection.execute(sa.delete(image_locations).where(image_locations.c.id >= numbers[3]))
        connection.execute(sa.delete(images).where(images.c.id >= f"image-{numbers[3]}"))
    assert shared.among([row(999, "file:///new")]) == set()
    assert registry.add("file:///new") == numbers[3]
    assert shared.among([row(999, "file:///new")]) == {999}


def test_a_registry_restored_from_a_dump_is_read_in_full(registry: Registry) -> None:
    for number in range(20):
        registry.add(f"file:///{number}")
    shared = registry.shared()
    for _ in range(4):
        assert shared.among([row(999, "file:///new")]) == set()
        registry.now += OVERLAP_SECONDS
    with registry.engine.begin() as connection:
        connection.execute(sa.delete(image_locations).where(image_locations.c.id > 10))
        connection.execute(
            sa.update(image_locations)
            .where(image_locations.c.id == 5)
            .values(value="file:///new", deleted=False)
        )
    assert shared.among([row(999, "file:///new")]) == {999}


def test_row_of_a_lagging_node_is_seen(registry: Registry) -> None:
    shared = registry.shared()
    late = registry.add("file:///late")
    registry.add("file:///x")
    assert shared.among([row(999, "file:///other")]) == set()
    held_back = []
    with registry.engine.begin() as connection:  # another node, which is not so far yet
        held_back = list(
            connection.execute(sa.select(image_locations).where(image_locations.c.id >= late))
        )
        connection.execute(sa.delete(image_locations).where(image_locations.c.id >= late))
    assert shared.among([row(999, "file:///other")]) == set()
    with registry.engine.begin() as connection:
        values = [dict(one._mapping) | {"value": "file:///new"} for one in held_back]
        connection.execute(sa.insert(image_locations), values)
    assert shared.among([row(999, "file:///new")]) == {999}


def test_row_changed_in_place_is_seen_within_the_hour(registry: Registry) -> None:
    registry.add("file:///high", number=500)
    shared = registry.shared()
    assert shared.among([row(11, "file:///c")]) == set()
    registry.set(2, value="file:///c#3")
    registry.now += 3600
    assert shared.among([row(11, "file:///c")]) == set()
    registry.now += 1
    assert shared.among([row(11, "file:///c")]) == {11}
    assert shared.among([row(11, "file:///b")]) == set()


@EACH_AGE
@pytest.mark.parametrize("renewed", [False, True])
def test_url_that_an_import_ends_with_is_seen_immediately(
    registry: Registry, age: float, renewed: bool
) -> None:
    """Glance's parallel import changes it in place, with the status."""
    shared = registry.shared()
    assert shared.among([row(999, "file:///c")]) == set()
    numbers = [registry.add("pending://x", "unfinished", age=age) for _ in range(3)]
    if age:  # an older row is seen only when all is read
        registry.now += 3601
    assert shared.among([row(999, "file:///c")]) == set()
    if renewed:
        registry.now += RENEWAL_SECONDS + 1
        while shared.verdicts.renew_page():
            pass
    registry.set(numbers[0], "unfinished", value="file:///dir/b")
    assert shared.among([row(999, "file:///c")]) == set()
    assert shared.verdicts.live_ids("file//dir") == []  # it is no witness yet
    registry.set(numbers[0], "live", value="file:///dir/c")
    registry.set(numbers[1], "settled")
    assert shared.among([row(999, "file:///dir/c")]) == {999}
    assert shared.verdicts.live_ids("file//dir") == numbers[:1]
    registry.set(numbers[2], "live", value="file:///d")
    assert shared.among([row(998, "file:///d"), row(999, "file:///dir/c")]) == {998, 999}
    registry.statements.clear()
    assert shared.among([row(997, "file:///none")]) == set()
    assert len(registry.statements) == 1  # none is unfinished any more


def test_few_rows_are_read_if_nothing_is_shared(registry: Registry) -> None:
    shared = registry.shared()
    own = registry.add("file:///c", "claimed")
    shared.among([row(own, "file:///c")])
    registry.statements.clear()
    assert shared.among([row(own, "file:///c")]) == set()
    # The highest id, with a count of those below it, says that there is nothing new. The other
    # statement reads the location itself by its id: the claim may be lost.
    assert len(registry.statements) == 2
    registry.add("file:///d")
    registry.statements.clear()
    assert shared.among([row(own, "file:///c")]) == set()
    assert len(registry.statements) == 3


@EACH_AGE
def test_reads_page_by_page(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    monkeypatch.setattr(object_index, "_PAGE_ROWS", 2)
    numbers = [registry.add(f"file:///{number}", age=age) for number in range(5)]
    rows = [row(900 + number, f"file:///{number}") for number in range(5)]
    shared = registry.shared()
    assert len(shared.among(rows)) == len(numbers)
    registry.add("file:///new")
    assert shared.among([row(999, "file:///new")]) == {999}


GLANCE = "s3://s3.test/glance/x"


@pytest.mark.parametrize(
    "written",
    [
        "s3://KEY:SECRET@s3.test/glance/x",
        f"{GLANCE}/",
        f"{GLANCE}?x=1",
        "s3://s3.test//glance/x",
        "s3+http://s3.test/glance/x",
        "s3+https://S3.TEST:443/glance/x",
        "s3://elsewhere/glance/x",
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_one_object_in_two_spellings(registry: Registry, written: str, turned: bool) -> None:
    registry.configs = {"s": StoreConfig("s", "s3", "s3.test", places=("glance",))}
    one, other = (GLANCE, written) if turned else (written, GLANCE)
    number = registry.add(one)
    registry.set(number, meta_data='{"store": "s"}')
    shared = registry.verdicts()
    assert shared.among([row(11, other), row(12, f"{GLANCE}y")]) == {11: SHARED}
    # Glance writes live rows again without the credentials.
    registry.set(number, value=GLANCE)
    assert shared.among([row(11, other)]) == {11: SHARED}


@pytest.mark.parametrize(
    ("metadata", "store", "said"),
    [
        ('{"store": "gone"}', "gone", "in store 'gone', may have"),
        ("{}", None, "names no store"),
        (None, None, "names no store"),
        ("no JSON", None, "names no store"),
    ],
)
def test_location_in_an_unknown_store_may_be_the_same_object(
    registry: Registry, metadata: str | None, store: str | None, said: str
) -> None:
    registry.configs = {"s": StoreConfig("s", "s3", "s3.test", places=("glance",))}
    registry.set(registry.add(GLANCE), meta_data=metadata)
    shared = registry.verdicts()
    assert shared.among([row(11, GLANCE)]) == {11: maybe_shared(store)}
    assert said in maybe_shared(store).hint
    # What is surely the same is enough.
    registry.set(registry.add(GLANCE), meta_data='{"store": "s"}')
    assert shared.among([row(11, GLANCE)]) == {11: SHARED}
    # Whichever is found first.
    registry.set(registry.add(GLANCE), meta_data=metadata)
    assert shared.among([row(11, GLANCE)]) == {11: SHARED}


def test_nothing_is_deleted_while_no_location_can_be_decrypted(registry: Registry) -> None:
    """Else evscrub without Glance's key would take data that an encrypted location is of."""
    key = "0123456789abcdef"
    encrypted = str(crypt.urlsafe_encrypt(key, "file:///c", 64))
    registry.key = key[::-1]
    hidden = registry.add(encrypted)
    wanted = [row(11, "file:///c"), row(12, "file:///d")]
    assert registry.verdicts().among(wanted) == {11: HIDDEN, 12: HIDDEN}
    assert "metadata_encryption_key" in HIDDEN.hint
    registry.set(hidden, "pending")
    assert registry.verdicts().among(wanted) == {11: HIDDEN, 12: HIDDEN}
    registry.set(hidden, "settled")
    assert registry.verdicts().among(wanted) == {}
    registry.set(hidden, "live")
    registry.key = key
    assert registry.verdicts().among(wanted) == {11: SHARED}
    # One that is damaged harms itself alone: Glance cannot read it either.
    registry.add(str(crypt.urlsafe_encrypt(key[::-1], "file:///d", 64)))
    assert registry.verdicts().among(wanted) == {11: SHARED}


class TestRenewal:
    """An index is renewed a page at a time while the old one serves."""

    @pytest.fixture
    def registry(self, monkeypatch: pytest.MonkeyPatch) -> Registry:
        """Return a registry of nine older locations, which are read in pages of two."""
        monkeypatch.setattr(object_index, "_PAGE_ROWS", 2)
        registry = Registry()
        for number in range(1, 10):
            registry.add(f"file:///{number}", age=OLD_SECONDS)
        return registry

    @pytest.fixture
    def shared(self, registry: Registry) -> SharedUrls:
        """Return what has read all, three quarters of an hour ago."""
        shared = registry.verdicts()
        assert shared.among([row(999, "file:///none")]) == {}
        registry.now = RENEWAL_SECONDS + 1
        return shared

    def test_row_changed_in_place_is_seen(self, registry: Registry, shared: SharedUrls) -> None:
        registry.set(2, value="file:///new")
        wanted = [row(999, "file:///new")]
        pages = 1
        while shared.renew_page():
            assert shared.among(wanted) == {}
            pages += 1
        assert pages == 1 + 5  # the first only begins
        assert shared.among(wanted) == {999: SHARED}
        assert shared.among([row(999, "file:///2")]) == {}

    def test_old_index_serves_meanwhile(self, registry: Registry, shared: SharedUrls) -> None:
        while shared.renew_page():
            registry.statements.clear()
            assert shared.among([row(999, "file:///9")]) == {999: SHARED}
            assert not any("LIMIT" in statement for statement in registry.statements)
        registry.statements.clear()
        assert shared.among([row(999, "file:///9")]) == {999: SHARED}
        assert not any("LIMIT" in statement for statement in registry.statements)

    def test_no_claim_reads_all_as_long_as_it_is_renewed(
        self, registry: Registry, shared: SharedUrls
    ) -> None:
        for _ in range(3):
            while shared.renew_page():
                pass
            registry.now += RENEWAL_SECONDS + 1
            registry.statements.clear()
            assert shared.among([row(999, "file:///1")]) == {999: SHARED}
            assert not any("LIMIT" in statement for statement in registry.statements)

    @pytest.mark.parametrize("calls", range(7))
    @pytest.mark.parametrize("after_seconds", [0, OVERLAP_SECONDS + 5])
    @pytest.mark.parametrize("number", [500, 492], ids=["higher", "lower"])
    def test_row_that_appears_meanwhile_is_seen(
        self, registry: Registry, calls: int, after_seconds: float, number: int
    ) -> None:
        registry.add("file:///recent", number=490)
        shared = registry.verdicts()
        assert shared.among([row(999, "file:///none")]) == {}
        registry.now = RENEWAL_SECONDS + 1
        registry.add("file:///taken", number=495)  # after 492, which is committed later
        for _ in range(calls):
            shared.renew_page()
        registry.add("file:///late", number=number)
        wanted = [row(999, "file:///late")]
        assert shared.among(wanted) == {999: SHARED}
        registry.now += after_seconds
        while shared.renew_page():
            assert shared.among(wanted) == {999: SHARED}
        assert shared.among(wanted) == {999: SHARED}

    @pytest.mark.parametrize("calls", range(7))
    def test_a_registry_restored_from_a_dump_is_read_in_full(
        self, registry: Registry, shared: SharedUrls, calls: int
    ) -> None:
        newest = registry.add("file:///newest")
        for _ in range(3):  # so that the newest row has been there for longer than the overlap
            shared.among([row(999, "file:///none")])
            registry.now += OVERLAP_SECONDS
        for _ in range(calls):
            shared.renew_page()
        registry.set(2, value="file:///new")
        with registry.engine.begin() as connection:
            connection.execute(sa.delete(image_locations).where(image_locations.c.id == newest))
        while shared.renew_page():
            pass
        assert shared.among([row(999, "file:///new")]) == {999: SHARED}

    def test_young_index_is_not_renewed(self, registry: Registry, shared: SharedUrls) -> None:
        registry.now = RENEWAL_SECONDS
        registry.statements.clear()
        assert not shared.is_old
        assert not shared.renew_page()
        assert not registry.verdicts().renew_page()
        assert registry.statements == []

    def test_index_that_a_claim_has_read_is_kept(
        self, registry: Registry, shared: SharedUrls
    ) -> None:
        for _ in range(3):
            assert shared.renew_page()
        registry.set(2, value="file:///new")
        registry.now = 3601
        assert shared.among([row(999, "file:///new")]) == {999: SHARED}
        assert not shared.renew_page()

    def test_pages_from_before_a_dump_was_restored_are_read_again(
        self, registry: Registry, shared: SharedUrls
    ) -> None:
        newest = registry.add("file:///newest")
        for _ in range(3):
            shared.among([row(999, "file:///none")])
            registry.now += OVERLAP_SECONDS
        for _ in range(3):
            assert shared.renew_page()
        registry.set(2, value="file:///new")
        with registry.engine.begin() as connection:
            connection.execute(sa.delete(image_locations).where(image_locations.c.id == newest))
        wanted = [row(999, "file:///new")]
        assert shared.among(wanted) == {999: SHARED}
        registry.now += RENEWAL_SECONDS + 1
        while shared.renew_page():
            pass
        assert not shared.is_old
        assert shared.among(wanted) == {999: SHARED}

    def test_index_that_a_claim_reads_during_the_last_page_is_kept(
        self, registry: Registry, shared: SharedUrls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read_page = ObjectIndex.read_page

        def slowly(index: ObjectIndex, connection: sa.Connection) -> bool:
            there_may_be_more = read_page(index, connection)
            if not there_may_be_more:
                monkeypatch.undo()
                registry.now = 3601
                registry.set(2, value="file:///new")
                assert shared.among([row(999, "file:///new")]) == {999: SHARED}
            return there_may_be_more

        monkeypatch.setattr(ObjectIndex, "read_page", slowly)
        while shared.renew_page():
            pass
        assert registry.now == 3601
        assert shared.among([row(999, "file:///new")]) == {999: SHARED}

    def test_a_page_that_could_not_be_read_is_read_later(
        self, registry: Registry, shared: SharedUrls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert shared.renew_page()
        assert shared.renew_page()
        with monkeypatch.context() as patch:
            patch.setattr(shared, "database", None)
            with pytest.raises(AttributeError):
                shared.renew_page()
        registry.statements.clear()
        while shared.renew_page():
            pass
        pages = sum("LIMIT" in statement for statement in registry.statements)
        assert pages == 4 + 1  # the last one of recent rows
        for number in range(1, 10):
            assert shared.among([row(999, f"file:///{number}")]) == {999: SHARED}

    def test_places_are_those_of_the_new_index(
        self, registry: Registry, shared: SharedUrls
    ) -> None:
        _, place = registry.key_and_place("file:///1")
        assert shared.live_ids(place)[-2:] == [8, 9]
        registry.set(9, "settled")
        while shared.renew_page():
            pass
        assert shared.live_ids(place)[-2:] == [7, 8]

    def test_key_that_came_meanwhile_reveals_locations(self, registry: Registry) -> None:
        key = "0123456789abcdef"
        registry.add(str(crypt.urlsafe_encrypt(key, "file:///c", 64)), age=OLD_SECONDS)
        registry.key = key[::-1]
        shared = registry.verdicts()
        wanted = [row(999, "file:///c")]
        assert shared.among(wanted) == {999: HIDDEN}
        registry.key = key
        registry.now = RENEWAL_SECONDS + 1
        while shared.renew_page():
            assert shared.among(wanted) == {999: HIDDEN}
        assert shared.among(wanted) == {999: SHARED}


_URLS = st.sampled_from(["file:///a", "file:///b", "file:///c"])
_STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add older"]), _URLS)
    | st.tuples(st.sampled_from(sorted(STATES)), st.integers(0, 9))
    | st.tuples(st.just("ask"), _URLS)
    | st.tuples(st.just("wait"), st.sampled_from([OVERLAP_SECONDS, RENEWAL_SECONDS]))
    | st.tuples(st.just("renew"), st.integers(1, 3)),
    max_size=40,
)


@given(_STEPS)
def test_any_change_is_seen_immediately(steps: list[tuple[str, Any]]) -> None:
    registry = Registry()
    shared = registry.shared()
    urls: dict[int, str] = {}
    states: dict[int, str] = {}
    for verb, value in steps:
        if verb in {"add", "add older"}:
            age = OLD_SECONDS if verb == "add older" else 0
            number = registry.add(f"{value}#{len(urls)}", age=age)
            urls[number], states[number] = value, "live"
        elif verb == "ask":
            wanted = any(urls[key] == value for key, state in states.items() if state in WANTED)
            assert shared.among([row(999, value)]) == ({999} if wanted else set())
        elif verb == "wait":
            registry.now += value
        elif verb == "renew":
            for _ in range(value):
                shared.verdicts.renew_page()
        elif states:
            number = sorted(states)[value % len(states)]
            # What is settled stays so.
            if states[number] != "settled":
                registry.set(number, verb)
                states[number] = verb


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), _URLS), max_size=40))
def test_an_index_has_each_that_was_added_once(pairs: list[tuple[int, str]]) -> None:
    index = UrlIndex()
    for number, url in (*pairs, *pairs):
        index.add(number, url)
    for url in ("file:///a", "file:///b", "file:///c", "file:///d"):
        assert list(index.ids(url)) == sorted({key for key, other in pairs if other == url})


class Table:
    """Rows that take their ids at once and appear later, at most after the overlap."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hidden: dict[int, float] = {}  #: when each took its id
        self.there: set[int] = set()
        self.next = 1

    def read(self, recent: RecentIds) -> set[int]:
        """Read as the shared URLs do; returns the ids that were read."""
        highest = max(self.there, default=0)
        window = [n for n in self.there if recent.floor < n <= recent.highest]
        assert not recent.has_gone_back(highest)
        last = recent.highest
        if highest < recent.highest or (len(window), sum(window)) != recent.fingerprint:
            recent.cut(highest)
            last = recent.floor
        read = {number for number in self.there if number > last}
        recent.take_in(read, last, self.now)
        return read


@given(
    st.lists(
        st.tuples(st.just("take"), st.integers(1, 9))
        | st.tuples(st.just("commit"), st.integers(0, 9))
        | st.tuples(st.just("wait"), st.integers(0, 40))
        | st.tuples(st.just("read"), st.just(0)),
        max_size=60,
    )
)
@example(
    [("take", 1), ("take", 1), ("commit", 1), ("read", 0), ("commit", 0), ("read", 0)]
)  # a lower id appears later
def test_no_id_within_the_overlap_is_missed(steps: list[tuple[str, int]]) -> None:
    table, recent, read = Table(), RecentIds(0, 0, 0.0), set[int]()
    for verb, value in steps:
        if verb == "take":
            table.next += value
            table.hidden[table.next] = table.now
        elif verb == "commit" and table.hidden:
            number = sorted(table.hidden)[value % len(table.hidden)]
            del table.hidden[number]
            table.there.add(number)
        elif verb == "wait":
            for number, taken_at in list(table.hidden.items()):
                if taken_at + OVERLAP_SECONDS <= table.now + value:
                    del table.hidden[number]
                    table.there.add(number)
            table.now += value
        elif verb == "read":
            read |= table.read(recent)
            assert read == table.there
            assert recent.highest == max(table.there, default=0)


@pytest.mark.parametrize(
    ("drawn", "ids"), [(0, [1, 2, 3, 4, 6, 7, 8, 9]), (5, [1, 2, 3, 4, 5, 6, 7, 8, 9])]
)
def test_which_locations_in_the_middle_are_known_is_chance(drawn: int, ids: list[int]) -> None:
    registry = Registry()
    registry.randrange = lambda below: 0 if below == drawn else 99
    urls = [f"s3://key:secret@host/glance/{number}" for number in range(9)]
    for url in urls:
        registry.add(url)
    shared = registry.verdicts()
    shared.among([row(100, urls[0])])
    assert shared.live_ids(registry.key_and_place(urls[0])[1]) == ids
