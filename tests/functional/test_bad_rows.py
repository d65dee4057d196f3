# SPDX-License-Identifier: Apache-2.0
"""Invalid rows, on the databases that can store them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from evscrub.checks import registry as checks
from evscrub.domain.clock import Clock
from evscrub.domain.decisions import Policy
from evscrub.registry.claims import Claims
from evscrub.registry.database import Database
from evscrub.registry.faults import is_of_rows
from evscrub.registry.inventory import Inventory
from evscrub.registry.pages import Pages, Window
from evscrub.registry.shared_urls import SharedUrls
from tests.chaos.rows import Rows, connect
from tests.plain_objects import PlainObjects

pytestmark = pytest.mark.parametrize(
    "backend", ["mariadb", "postgresql"], indirect=True, scope="module"
)
POLICY = Policy(scrub_time=timedelta(minutes=10), claim_timeout=timedelta(seconds=60))
OF_IMAGE = "UPDATE images SET {} WHERE id = :id"
OF_LOCATION = "UPDATE image_locations SET {} WHERE image_id = :id"
#: What MariaDB takes only when it is told not to look.
LAX = "SET sql_mode = '', foreign_key_checks = 0, check_constraint_checks = 0"

#: Rows that are read and decided about as any other.
SOUND = {
    "far": OF_IMAGE.format("deleted_at = '9999-12-31 23:59:59'"),
    "far changed": OF_IMAGE.format("updated_at = '9999-12-31 23:59:59'"),
    "far lease": OF_LOCATION.format("updated_at = '9999-12-31 23:59:59'"),
    "negative size": OF_IMAGE.format("size = -5"),
    "huge size": OF_IMAGE.format("size = 9223372036854775807"),
    "no owner": OF_IMAGE.format("owner = NULL"),
    "status": OF_IMAGE.format("status = 'weird'"),
    "location's status": OF_LOCATION.format("status = 'weird'"),
    "empty URL": OF_LOCATION.format("value = ''"),
    "long URL": OF_LOCATION.format("value = concat('file:///', repeat('x', 60000))"),
    "long metadata": OF_LOCATION.format("meta_data = repeat('x', 60000)"),
    "no metadata": OF_LOCATION.format("meta_data = NULL"),
    "metadata is no object": OF_LOCATION.format("meta_data = '[1]'"),
    "metadata is no JSON": OF_LOCATION.format("meta_data = '{{store'"),
    "metadata too deep": OF_LOCATION.format("meta_data = '" + "[" * 30000 + "'"),
}
ON_MARIADB = {
    "letters": OF_LOCATION.format("image_id = upper(image_id)"),
    "zero change": OF_LOCATION.format("created_at = '0000-00-00'"),
}
ON_POSTGRESQL = {
    f"{column} {value}": OF_IMAGE.format(f"{column} = '{value}'")
    for column in ("deleted_at", "updated_at")
    for value in ("infinity", "-infinity", "0001-01-01")
}
#: Rows that cannot be read.
BAD = {
    "mariadb": {
        "zero": OF_IMAGE.format("deleted_at = '0000-00-00'"),
        "no month": OF_IMAGE.format("deleted_at = '2020-00-00'"),
        "zero lease": OF_LOCATION.format("updated_at = '0000-00-00'"),
        "constraint": OF_LOCATION.format("deleted = 2"),  # which is read, and takes no change
    },
    "postgresql": {
        f"{table} {value}": statement.format(f"deleted_at = '{value}', updated_at = '{value}'")
        for table, statement in (("image", OF_IMAGE), ("location", OF_LOCATION))
        for value in ("0044-03-15 BC", "12000-01-01")
    },
}


@pytest.fixture
def rows(registry_url: str) -> Iterator[Rows]:
    rows = Rows(registry_url)
    yield rows
    with rows.engine.begin() as connection:  # of what foreign keys would not let go
        if rows.engine.dialect.name == "mysql":
            connection.execute(sa.text("SET foreign_key_checks = 0"))
        connection.execute(sa.text("DELETE FROM image_locations"))
    rows.engine.dispose()


@pytest.fixture
def database(registry_url: str) -> Iterator[Database]:
    database = connect(registry_url)
    yield database
    database.dispose()


def pending(rows: Rows, statement: str | None = None) -> str:
    """Add an image, delete it, and corrupt its rows."""
    image_id = rows.add(("fast", "file:///fast/x"))
    rows.delete(image_id, ago=7200)
    if statement is not None:
        with rows.engine.begin() as connection:
            if rows.engine.dialect.name == "mysql":
                connection.execute(sa.text(LAX))
            connection.execute(sa.text(statement), {"id": image_id})
            if rows.engine.dialect.name == "mysql":
                connection.execute(
                    sa.text(
                        "SET sql_mode = DEFAULT, foreign_key_checks = 1,"
                        " check_constraint_checks = 1"
                    )
                )
    return image_id


def swept(database: Database, *, lately: bool) -> set[str]:
    """Return the images that a sweep finds."""
    now = database.now()
    since = now - timedelta(hours=3) if lately else None
    window = Window(now, now, since)
    return {found.image_id for page in Pages(database, 2).read(window) for found in page}


@pytest.mark.parametrize("kind", [*SOUND, "of this database"])
def test_odd_rows_are_classified(rows: Rows, database: Database, kind: str, backend: str) -> None:
    more = ON_MARIADB if backend == "mariadb" else ON_POSTGRESQL
    for statement in [SOUND[kind]] if kind in SOUND else more.values():
        odd, good = pending(rows, statement), pending(rows)
        claims = Claims(database)
        claims.look([odd, good], POLICY)
        seen = claims.claim([odd, good], POLICY)
        assert good in {claim.image.id for claim in seen.claims}
        assert set(seen.sights) == {odd, good}
        now = database.now()
        assert all(abs(claim.lease - now) < timedelta(minutes=2) for claim in seen.claims)
        claims.renew([(claim, claim.lease) for claim in seen.claims])
        list(Inventory(database).read())
        swept(database, lately=True)
        swept(database, lately=False)


def test_overlong_location_is_not_read(rows: Rows, database: Database, backend: str) -> None:
    """Members of a project may write very long values into thousands of locations."""
    odd = pending(rows, SOUND["long URL"])
    pending(rows, SOUND["long metadata"])
    pending(rows)
    [claim] = Claims(database).claim([odd], POLICY).claims
    assert [row.value for row in claim.locations] == [""]
    seen: set[str] = set()

    class Objects(PlainObjects):
        def index_key(self, value: str) -> str:
            seen.add(value)
            return value

    shared = SharedUrls(database, Objects(), Clock())
    shared.among([claim.locations[0]._replace(value="file:///fast/x")])
    assert seen == {"", "file:///fast/x"}


def test_location_matches_its_image_despite_case(
    rows: Rows, database: Database, backend: str
) -> None:
    if backend == "postgresql":  # its foreign key tells letters apart
        with pytest.raises(sa.exc.IntegrityError):
            pending(rows, ON_MARIADB["letters"])
        return
    odd = pending(rows, ON_MARIADB["letters"])
    [claim] = Claims(database).claim([odd], POLICY).claims
    assert len(claim.locations) == 1
    [listed] = Inventory(database).read()
    assert len(listed.locations) == 1


def test_unreadable_rows_do_not_affect_other_images(
    rows: Rows, database: Database, backend: str
) -> None:
    claims = Claims(database)
    bad = [pending(rows, statement) for statement in BAD[backend].values()]
    good = [pending(rows) for _ in range(3)]
    for image_id in bad:
        with pytest.raises(
            Exception, match=r"date is invalid|year .* is out of range|CONSTRAINT"
        ) as raised:
            claims.claim([image_id, *good], POLICY)
        assert is_of_rows(raised.value)  # so the batch is taken apart
    [claim] = claims.claim(good[:1], POLICY).claims
    unreadable: list[str] = []
    listed = [seen.image.id for seen in Inventory(database, 4, unreadable.append).read()]
    assert set(good) <= set(listed)
    assert sorted(listed + unreadable) == sorted(good + bad)
    assert len(listed) - len(good) == (backend == "mariadb")
    assert set(good[1:]) <= swept(database, lately=False)
    swept(database, lately=True)
    shared = SharedUrls(database, PlainObjects(), Clock())
    assert not shared.among(())
    if backend == "mariadb":  # PostgreSQL's drivers raise as they read such a date
        assert set(shared.among(claim.locations)) == {row.id for row in claim.locations}
    conf = SimpleNamespace(scrub_time=600, sweep=SimpleNamespace(full_interval=3600))
    subject: Any = SimpleNamespace(registry=database, conf=conf)
    checks.backlog(subject)
    checks.damage(subject)
