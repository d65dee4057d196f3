# SPDX-License-Identifier: Apache-2.0
"""Say what a pass would do with each location of an image, and why. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from evscrub.domain import image_report
from evscrub.domain.decisions import PENDING_DELETE, LocationRow, Policy
from evscrub.domain.image_report import AgentReports, Listed, describe
from evscrub.domain.verdict import SHARED, StoreNotUsableError, Verdict

BEYOND_LIMIT = "beyond --limit"
#: Shown for an image without a pending location.
NO_STORE = ""


class Fate(Enum):
    """What a pass does with a location."""

    GOES = "goes"  #: its data is deleted
    FINISHED = "finished"  #: only its row is settled: its data stays for good
    STAYS = "stays"  #: it is due, but cannot be scrubbed
    LATER = "later"  #: it is not due


@dataclass(frozen=True, slots=True)
class Portion:
    """One location of an image, or an image without a pending location.

    :param store: name of its store; :data:`NO_STORE` without a location.
    :param state: state of the image, as ``evscrub list`` shows it.
    :param reason: why it does not go, or why its last delete failed; empty if there is none.
    :param size_bytes: size of the image; 0 if unknown.
    :param due_at: when it may be scrubbed, naive UTC; None if unknown or never.
    """

    image_id: str
    owner: str | None
    store: str
    fate: Fate
    state: str
    reason: str
    size_bytes: int
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known besides the registry.

    :param policy: when data may be deleted.
    :param reported: what agents, or this pass, found out about images and stores.
    :param store_of: returns the name of a location's store.
    :param check: raises StoreNotUsableError if a location cannot be deleted with this
        configuration.
    :param read_only: stores whose data cannot be deleted by nature, such as http.
    """

    policy: Policy
    reported: AgentReports
    store_of: Callable[[LocationRow], str]
    check: Callable[[LocationRow], object]
    read_only: frozenset[str] = frozenset()


def portions(
    seen: Listed, known: Knowledge, shared: Mapping[int, Verdict] | None = None
) -> Iterator[Portion]:
    """Yield the portions of an image; none if it has nothing to scrub.

    :param shared: by row id, verdicts on due locations whose data another location may need.
    """
    report = describe(seen, known.policy, known.reported, known.store_of)
    if report is None:
        return

    # Without a deletion time the report takes an image as due since it was read.
    due_at = None if report.deleted_at is None else report.due_at

    def portion(store: str, fate: Fate, reason: str) -> Portion:
        size_bytes = max(0, report.size or 0)
        return Portion(
            report.id, report.owner, store, fate, report.state, reason, size_bytes, due_at
        )

    pending = [row for row in seen.locations if row.status == PENDING_DELETE]
    if report.state != image_report.DUE:
        fate, reason = _of_state(report.state, report.reason)
        for store in report.stores or (NO_STORE,):
            yield portion(store, fate, reason)
        return
    trouble = known.reported.images.get(report.id)
    for row in pending:
        store = known.store_of(row)
        fate, reason = _of_row(row, store, known, (shared or {}).get(row.id))
        if fate is Fate.GOES and trouble is not None:
            reason = trouble.reason
        yield portion(store, fate, reason)
    if not pending:
        yield portion(NO_STORE, Fate.FINISHED, "no location left")


def is_scrubbable(of_image: Iterable[Portion]) -> bool:
    """Return whether a pass claims an image with these portions."""
    return any(portion.fate in {Fate.GOES, Fate.FINISHED} for portion in of_image)


def as_of(portion: Portion, began: datetime) -> Portion:
    """Return a portion as it was when the pass began: later ones might keep it from ending.

    :param began: naive UTC.
    """
    if portion.fate is Fate.LATER or portion.due_at is None or portion.due_at <= began:
        return portion
    return replace(portion, fate=Fate.LATER, reason="due since the pass began")


def left(portion: Portion, reason: str) -> Portion:
    """Return a portion as what is left, for a reason, unless it would stay anyway."""
    if portion.fate not in {Fate.GOES, Fate.FINISHED}:
        return portion
    if portion.fate is Fate.GOES and portion.reason:
        reason = portion.reason
    return replace(portion, fate=Fate.STAYS, reason=reason)


def unreadable(image_id: str) -> Portion:
    """Return the portion of an image whose rows cannot be read."""
    reason = "its rows in images or image_locations cannot be read: repair them"
    return Portion(
        image_id, None, NO_STORE, Fate.STAYS, image_report.PARKED, reason, 0, due_at=None
    )


def _of_state(state: str, reason: str) -> tuple[Fate, str]:
    match state:
        case image_report.WAITING:
            return Fate.LATER, "not due yet"
        case image_report.HOLD:
            return Fate.LATER, "held until it is released"
        case image_report.DAMAGED:
            return Fate.LATER, f"damaged: {reason}"
        case image_report.CLAIMED:
            return Fate.STAYS, "claimed by another agent or pass"
        case _:  # parked or in use
            return Fate.STAYS, f"{state}: {reason}"


def _of_row(
    row: LocationRow, store: str, known: Knowledge, shared: Verdict | None
) -> tuple[Fate, str]:
    if shared == SHARED:
        return Fate.FINISHED, "another image has the same data"
    try:
        known.check(row)
    except StoreNotUsableError as error:
        return Fate.STAYS, str(error)
    if shared is not None:
        return Fate.STAYS, shared.why
    if store in known.reported.stores:
        return Fate.STAYS, known.reported.stores[store]
    if store in known.read_only:
        return Fate.FINISHED, "the store is read-only"
    return Fate.GOES, ""
