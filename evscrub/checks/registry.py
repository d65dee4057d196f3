# SPDX-License-Identifier: Apache-2.0
"""Checks of the registry, Glance's database."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa

from evscrub.checks.report import Findings, NotCheckedError
from evscrub.checks.subject import Subject
from evscrub.domain.clock import BOUND_SECONDS, Clock, epoch
from evscrub.domain.decisions import DELETED, PENDING_DELETE, UNFINISHED_STATUSES
from evscrub.domain.words import count, in_words
from evscrub.registry import nodes
from evscrub.registry.database import UNAVAILABLE, Database, is_away, read_now
from evscrub.registry.errors import advice, reason
from evscrub.registry.inventory import AWAITS_SCRUBBING, HAS_PENDING_LOCATION
from evscrub.registry.tables import image_locations, images, metadata

T = TypeVar("T")

_CONNECTION = "[database] connection in glance-api.conf"
#: Clock difference that is worth a warning, beyond the duration of the query.
_SKEW_SECONDS = 2.0
#: Clock difference of database nodes that is worth a warning.
_NODES_APART_SECONDS = 1.0
_SHOWN_IDS = 3

_live_location = (
    sa.select(image_locations.c.id)
    .where(image_locations.c.image_id == images.c.id, image_locations.c.deleted == sa.false())
    .exists()
)


def connection(subject: Subject) -> Findings:
    """Check that the database answers."""
    found = Findings()
    try:
        database = Database(subject.conf)
    except ValueError as error:
        said = str(error)
        # Other errors quote a part of the URL, which holds the password.
        known = said.startswith("[database]")
        found.fail(said + "." if known else f"{_CONNECTION} is not a URL of SQLAlchemy's form.")
        return found
    try:
        database.reach()
    except UNAVAILABLE as error:
        found.fail(unusable(subject, error))
    else:
        subject.reach(database)
        found.note(f"{database.engine.dialect.name} answers.")
    return found


def schema(subject: Subject) -> Findings:
    """Check that Glance's tables have the columns that evscrub uses."""
    found = Findings()
    inspector = sa.inspect(subject.database.engine)
    for table in metadata.sorted_tables:
        if not inspector.has_table(table.name):
            found.fail(f"The table {table.name} is missing.")
            continue
        there = {column["name"] for column in inspector.get_columns(table.name)}
        missing = [column.name for column in table.columns if column.name not in there]
        if missing:
            found.fail(f"The table {table.name} lacks {', '.join(missing)}.")
    if found.code:
        found.fail(
            f"Check that {_CONNECTION} names Glance's database, and that 'glance-manage db sync'"
            " has been run."
        )
    subject.schema_known = not found.code
    return found


def privileges(subject: Subject) -> Findings:
    """Check the privileges to read, lock and update, with statements that match no row."""
    found = Findings()
    database = subject.registry
    none = sa.false()
    tried: list[tuple[str, sa.Select[tuple[object, ...]] | sa.Update]] = [
        (f"SELECT on {table.name}", sa.select(*table.columns).where(none))
        for table in metadata.sorted_tables
    ]
    tried += [
        (
            "UPDATE of status and updated_at on images",
            sa.update(images)
            .where(none)
            .values(status=images.c.status, updated_at=images.c.updated_at),
        ),
        (
            "UPDATE of status, deleted_at and updated_at on image_locations",
            sa.update(image_locations)
            .where(none)
            .values(
                status=image_locations.c.status,
                deleted_at=image_locations.c.deleted_at,
                updated_at=image_locations.c.updated_at,
            ),
        ),
        (
            "SELECT FOR UPDATE SKIP LOCKED, which needs MySQL 8.0 or MariaDB 10.6, on images",
            sa.select(images.c.id).where(none).with_for_update(skip_locked=True),
        ),
    ]
    for name, statement in tried:
        try:
            with database.engine.connect() as session:
                session.execute(statement)
        except UNAVAILABLE as error:
            if is_away(error):
                raise
            found.fail(f"No {name} ({_reason(subject, error)}).")
    if found.code:
        found.fail(
            f"Grant the user of {_CONNECTION} SELECT on Glance's tables and UPDATE on images and"
            " image_locations, on a server that is not read-only; Glance's user has both."
        )
    return found


def clock(subject: Subject) -> Findings:
    """Check that the clocks of this host and the database agree."""
    found = Findings()
    ours = Clock()
    asked = ours.moment()
    value = epoch(subject.database.now())
    took = ours.since(asked)
    # The database read its clock at some time between question and answer.
    ahead, behind = asked.wall - value, value - (asked.wall + took)
    skew = max(ahead, behind, 0.0)
    if skew > _SKEW_SECONDS:
        which = "ahead of" if ahead > behind else "behind"
        found.warn(
            f"This host's clock is {in_words(skew)} {which} the database's. evscrub uses the"
            " database's clock, but Glance stamps deleted_at by its own host's, and images are"
            " scrubbed too early or too late by the difference. Synchronize the clocks of this"
            " host, Glance's hosts and the database with NTP."
        )
    return found


def node_clocks(subject: Subject) -> Findings:
    """Check that the clocks of all reachable database nodes agree."""
    found = Findings()
    ours = Clock()
    addresses = nodes.addresses(subject.database)
    read = {
        address: nodes.read_clock(subject.database, address, ours.boot) for address in addresses
    }
    clocks = [clock for clock in read.values() if clock is not None]
    silent = [str(address) for address, clock in read.items() if clock is None]
    if silent and len(addresses) > 1:
        found.note(f"Not reachable from here, so not compared: {', '.join(silent)}.")
    if len(clocks) < 2:  # noqa: PLR2004 - one clock has nothing to compare with
        return found
    least, most = nodes.apart(clocks)
    if least <= _NODES_APART_SECONDS:
        found.note(f"The clocks of {len(clocks)} database nodes agree within {in_words(most)}.")
        return found
    first = min(clocks, key=lambda clock: clock.lowest)
    ahead = ", ".join(
        f"{clock.address} is {in_words(clock.lowest - first.highest)} ahead"
        for clock in clocks
        if clock.lowest - first.highest > _NODES_APART_SECONDS / 2
    )
    tell = found.fail if least > BOUND_SECONDS else found.warn
    tell(
        f"The clocks of {len(clocks)} database nodes are {in_words(least)} apart: compared"
        f" with {first.address}, {ahead}. An agent claims nothing on a node that is more"
        f" than {BOUND_SECONDS:.0f} s off, because images would be deleted too early there and the"
        " claims of live agents would look expired. Synchronize all of them with NTP."
    )
    return found


def backlog(subject: Subject) -> Findings:
    """Check how many images await scrubbing, and whether some are long overdue."""
    found = Findings()
    conf = subject.conf
    # Python cannot represent zero dates and dates BC, which some databases store.
    dates = sa.case((images.c.deleted_at >= datetime(1970, 1, 1), images.c.deleted_at))  # noqa: DTZ001 - the registry's are naive
    # A held image has no deletion time, so count() skips it.
    query = sa.select(sa.func.count(), sa.func.count(images.c.deleted_at), sa.func.min(dates))
    total, number, oldest, now = read(
        subject,
        lambda session: (
            *session.execute(query.where(AWAITS_SCRUBBING)).one(),
            read_now(session),
        ),
    )
    if total > number:
        found.note(f"{count(total - number, 'image is', 'images are')} held.")
    if not number:
        found.note("No image awaits scrubbing.")
        return found
    said = f"{count(number, 'image')} await{'s' if number == 1 else ''} scrubbing"
    if not isinstance(oldest, datetime):  # all are held, or the date is invalid
        found.note(f"{said}.")
        return found
    overdue = (now - oldest).total_seconds() - conf.scrub_time
    if overdue <= 0:
        found.note(f"{said}; the first is due in {in_words(-overdue)}.")
    elif overdue <= conf.sweep.full_interval:
        found.note(f"{said}; the oldest has been due for {in_words(overdue)}.")
    else:
        found.warn(
            f"{said}; the oldest has been due for {in_words(overdue)}, longer than the time between"
            " full sweeps ([sweep] full_interval). Check that an agent runs. Its log names images"
            " that it cannot scrub, with reasons; if there are none, it may be too slow: see"
            " [scrubber] rate and concurrency in evscrub.conf."
        )
    return found


def damage(subject: Subject) -> Findings:
    """Check for damaged images, which only a person can judge."""
    found = Findings()
    alive = sa.and_(
        images.c.deleted == sa.false(),
        images.c.status.not_in((PENDING_DELETE, DELETED, *UNFINISHED_STATUSES)),
    )
    kinds = (
        (
            "pending_delete but not marked as deleted, because their DELETE was interrupted",
            sa.and_(images.c.deleted == sa.false(), images.c.status == PENDING_DELETE),
        ),
        (
            "live, but all of their data awaits deletion, as after 'glance-scrubber --restore'",
            sa.and_(alive, HAS_PENDING_LOCATION, ~_live_location),
        ),
        (
            "deleted, but with a location that is still live",
            sa.and_(images.c.deleted == sa.true(), HAS_PENDING_LOCATION, _live_location),
        ),
    )
    for what, where in kinds:
        number, ids = read(subject, _counting(where))
        if number:
            shown = ", ".join(ids) + (", ..." if number > len(ids) else "")
            found.warn(f"{count(number, 'image is', 'images are')} {what}: {shown}.")
    if found.code:
        found.warn(
            "evscrub does not touch these images or their data. Decide for each whether to keep or"
            " delete it, and correct its rows in images and image_locations."
        )
    return found


def _counting(
    where: sa.ColumnElement[bool],
) -> Callable[[sa.Connection], tuple[int, list[str]]]:
    def ask(session: sa.Connection) -> tuple[int, list[str]]:
        number = session.execute(sa.select(sa.func.count(images.c.id)).where(where)).scalar_one()
        ids = sa.select(images.c.id).where(where).order_by(images.c.id).limit(_SHOWN_IDS)
        return number, list(session.execute(ids).scalars()) if number else []

    return ask


def read(subject: Subject, query: Callable[[sa.Connection], T]) -> T:
    """Read the registry for a check.

    :raises NotCheckedError: it cannot be read.
    :raises DBError: the database stopped answering; one of `UNAVAILABLE`.
    """
    try:
        with subject.registry.reading() as session:
            return query(session)
    except UNAVAILABLE as error:
        if is_away(error):
            raise
        raise NotCheckedError(f"the registry cannot be read ({_reason(subject, error)})") from None


def unusable(subject: Subject, error: Exception) -> str:
    """Return a sentence on why the database cannot be used and what to do."""
    return f"The database cannot be used ({_reason(subject, error)}): {advice(error)}."


def _reason(subject: Subject, error: Exception) -> str:
    """Return what the database's driver reported, without statements and the password."""
    said = reason(error)
    try:
        password = sa.make_url(subject.conf.database.connection).password
    except (sa.exc.ArgumentError, ValueError):
        return type(error).__name__
    return said.replace(str(password), "***") if password else said
