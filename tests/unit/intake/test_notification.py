# SPDX-License-Identifier: Apache-2.0
"""Whatever is in a notification, reading it gives checked fields or one of two errors."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from evscrub.intake.notification import (
    EVENT_TYPE,
    DeleteEvent,
    MalformedError,
    NotForUsError,
    parse,
)
from tests.unit.examples import examples

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IMAGE_ID = "0f9e8d7c-6b5a-4938-a716-05f4e3d2c1b0"
OWNER = "8f6b1c0d4e3a4f5b9c7d2e1f0a3b5c6d"

#: As Glance 33 sends it.
PAYLOAD: dict[str, Any] = {
    "id": IMAGE_ID,
    "name": "cirros",
    "status": "pending_delete",
    "created_at": "2026-11-23T11:00:00Z",
    "updated_at": "2026-11-23T11:59:00Z",
    "min_disk": 0,
    "min_ram": 0,
    "protected": False,
    "checksum": "64d7c1cd2b6f60c92c14662941cb7913",
    "owner": OWNER,
    "disk_format": "qcow2",
    "container_format": "bare",
    "size": 13287936,
    "virtual_size": None,
    "is_public": False,
    "visibility": "shared",
    "properties": {},
    "tags": [],
    "deleted": True,
    "deleted_at": "2026-11-23T11:59:00Z",
}


def test_a_delete_of_glance_is_read() -> None:
    minute_ago = (NOW - timedelta(minutes=1) - EPOCH).total_seconds()
    assert parse(EVENT_TYPE, PAYLOAD, NOW) == DeleteEvent(IMAGE_ID, OWNER, minute_ago)


@pytest.mark.parametrize("owner", [None, "", "a" * 255, "\N{SNOWMAN}"])
def test_owners_that_glance_may_have(owner: str | None) -> None:
    assert parse(EVENT_TYPE, PAYLOAD | {"owner": owner}, NOW).owner == owner


@pytest.mark.parametrize("image_id", ["x", "a" * 36, IMAGE_ID.upper(), "an id's as odd"])
def test_ids_that_a_creator_may_choose(image_id: str) -> None:
    assert parse(EVENT_TYPE, PAYLOAD | {"id": image_id}, NOW).image_id == image_id


@pytest.mark.parametrize(
    ("written", "seconds_ago"),
    [
        ("2026-11-23T11:59:00Z", 60),
        ("2026-11-23T11:59:00", 60),
        ("2026-11-23T11:59:00.500000", 59.5),
        ("2026-11-23T12:59:00+01:00", 60),
        ("2026-11-23 11:59:00", 60),
        ("2026-11-23T12:00:01Z", 0),  # ahead, which must not delay it
        ("2026-11-24T12:00:00Z", 0),
        ("2010-01-01T00:00:00Z", (NOW - datetime(2010, 1, 1, tzinfo=UTC)).total_seconds()),
    ],
)
def test_times_that_are_one(written: str, seconds_ago: float) -> None:
    event = parse(EVENT_TYPE, PAYLOAD | {"deleted_at": written}, NOW)
    assert event.deleted_at == (NOW - EPOCH).total_seconds() - seconds_ago


@pytest.mark.parametrize(
    ("event_type", "changes"),
    [
        ("image.create", {}),
        ("image.deleted", {}),
        ("image.delete ", {}),
        ("", {}),
        (None, {}),
        (["image.delete"], {}),
        (EVENT_TYPE, {"status": "deleted"}),
        (EVENT_TYPE, {"status": "active"}),
        (EVENT_TYPE, {"status": None}),
        (EVENT_TYPE, {"status": ["pending_delete"]}),
    ],
)
def test_what_is_not_for_us(event_type: object, changes: dict[str, Any]) -> None:
    with pytest.raises(NotForUsError):
        parse(event_type, PAYLOAD | changes, NOW)


def _short(value: object) -> str:
    return repr(value)[:40]


JUNK: list[object] = [None, True, 0, 1, -1.5, float("nan"), "", [], {}, b"bytes", "x" * 10_000_000]


@pytest.mark.parametrize(
    "payload", [junk for junk in JUNK if not isinstance(junk, dict)], ids=_short
)
def test_a_payload_that_is_no_mapping(payload: object) -> None:
    with pytest.raises(MalformedError, match="payload"):
        parse(EVENT_TYPE, payload, NOW)


@pytest.mark.parametrize(
    "image_id",
    [*JUNK, "a" * 37, "a\nb", "a\0b", "\N{SNOWMAN}", "\ud800", "0f9e8d7c-6b5a-4938-a716-\x7f"],
    ids=_short,
)
def test_an_id_that_is_none(image_id: object) -> None:
    with pytest.raises(MalformedError, match="image id"):
        parse(EVENT_TYPE, PAYLOAD | {"id": image_id}, NOW)


@pytest.mark.parametrize(
    "owner", [True, 0, [], {}, [OWNER], b"bytes", "a" * 256, "x" * 10_000_000], ids=_short
)
def test_an_owner_that_is_none(owner: object) -> None:
    with pytest.raises(MalformedError, match="owner"):
        parse(EVENT_TYPE, PAYLOAD | {"owner": owner}, NOW)


@pytest.mark.parametrize(
    "deleted_at",
    [
        *JUNK,
        1_795_435_200,
        "yesterday",
        "2026-02-30T00:00:00Z",
        "2026-11-23T11:59:60Z",
        "2026-11-23T25:00:00Z",
        "2026-11-23T11:59:00Z" + " " * 21,
        "\ud800",
        # Absurd, not merely unreadable.
        "0001-01-01T00:00:00+14:00",
        "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2009-12-31T23:59:59Z",
        "2026-11-24T12:00:01Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
    ],
    ids=_short,
)
def test_a_time_that_is_none(deleted_at: object) -> None:
    with pytest.raises(MalformedError, match="deleted_at"):
        parse(EVENT_TYPE, PAYLOAD | {"deleted_at": deleted_at}, NOW)


@pytest.mark.parametrize("field", ["id", "deleted_at"])
def test_a_field_that_is_missing(field: str) -> None:
    with pytest.raises(MalformedError):
        parse(EVENT_TYPE, {name: PAYLOAD[name] for name in PAYLOAD if name != field}, NOW)


def test_ten_megabytes_of_junk_beside_what_is_used() -> None:
    huge = PAYLOAD | {"properties": {"junk": "x" * 10_000_000}, "name": "y" * 10_000_000}
    assert parse(EVENT_TYPE, huge, NOW) == parse(EVENT_TYPE, PAYLOAD, NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
times = st.builds(
    lambda moment, offset: moment.isoformat() + offset,
    st.datetimes() | st.datetimes(datetime(2009, 6, 1), datetime(2027, 1, 1)),
    st.sampled_from(["", "Z", "+14:00", "-14:00", "+23:59:59", "-23:59:59.999999"]),
)
fields: dict[str, st.SearchStrategy[object]] = {
    "id": st.just(IMAGE_ID) | st.text("aA0- ~", max_size=40) | st.text() | json_values,
    "owner": st.just(OWNER) | st.text() | json_values,
    "status": st.just("pending_delete") | json_values,
    "deleted_at": times | st.text("0123456789-:T.Z+W") | json_values,
}
payloads = st.one_of(
    st.fixed_dictionaries({}, optional=fields),
    *(
        st.fixed_dictionaries({name: values}).map(lambda change: PAYLOAD | change)
        for name, values in fields.items()
    ),
)


@settings(max_examples=examples(500))
@given(
    st.just(EVENT_TYPE) | json_values,
    payloads | json_values,
    st.just(NOW) | st.datetimes(datetime(2011, 1, 1), timezones=st.just(UTC)),
)
def test_an_event_has_checked_fields_or_is_refused(
    event_type: object, payload: object, now: datetime
) -> None:
    try:
        found = parse(event_type, payload, now)
    except (NotForUsError, MalformedError) as error:
        assert len(str(error)) < 40  # noqa: PT017 - one of a fixed set, nothing of the payload
        return
    event("an event")
    assert event_type == EVENT_TYPE
    assert isinstance(payload, dict)
    assert payload["status"] == "pending_delete"
    assert isinstance(found.image_id, str)
    assert found.image_id == payload["id"]
    assert 0 < len(found.image_id) <= 36
    assert found.image_id.isascii()
    assert found.image_id.isprintable()
    assert found.owner == payload.get("owner")
    assert found.owner is None or (isinstance(found.owner, str) and len(found.owner) <= 255)
    assert isinstance(found.deleted_at, float)
    earliest = datetime(2010, 1, 1, tzinfo=UTC)
    assert earliest.timestamp() <= found.deleted_at <= (now + timedelta(days=1)).timestamp()


@given(st.datetimes(datetime(2010, 1, 1), NOW.replace(tzinfo=None)))
def test_a_time_is_taken_for_utc_where_it_does_not_say(moment: datetime) -> None:
    event = parse(EVENT_TYPE, PAYLOAD | {"deleted_at": moment.isoformat()}, NOW)
    assert event.deleted_at == pytest.approx(
        (moment.replace(tzinfo=UTC) - EPOCH).total_seconds(), abs=1e-6
    )
