# SPDX-License-Identifier: Apache-2.0
"""How the database means to run each statement that evscrub sends.

The statements are caught on their way while evscrub's own code sends them about a few images, and
each is then explained with the values that it had. Says "end" with a list of statement and plan.
"""

from __future__ import annotations

import argparse
import itertools
import re
from datetime import timedelta
from typing import Any

import evscrub.cli  # noqa: F401 - chooses oslo.service's backend before anything imports it

# isort: split
import anyio
import sqlalchemy as sa

from evscrub.config import loader
from evscrub.config.settings import scrubber_settings, sweep_settings
from evscrub.domain.clock import Clock
from evscrub.registry.claims import Claims, Settlement
from evscrub.registry.database import Database
from evscrub.registry.holds import Holds
from evscrub.registry.inventory import Inventory
from evscrub.registry.pages import Pages, Window
from evscrub.registry.shared_urls import SharedUrls
from evscrub.status.registry_count import RegistryCounter
from evscrub.stores.backends import Stores
from tests.bench.kit import seed
from tests.bench.peers.saying import limit, say

#: Enough that a plan by index is the better one wherever there is an index.
_IMAGES = 100
_PAGES = 2
_LONG = 300


class Catcher:
    """Catches each different statement with the values of its first time."""

    def __init__(self, engine: sa.Engine) -> None:
        self.caught: dict[str, tuple[str, str, Any]] = {}
        self._by = ""
        sa.event.listen(engine, "before_cursor_execute", self._catch)

    def by(self, name: str) -> None:
        """Say whose statements come next."""
        self._by = name

    def _catch(self, *event: Any) -> None:
        _connection, _cursor, statement, parameters, *_ = event
        key = shorten(statement)
        if " FROM " in key or key.startswith("UPDATE"):
            self.caught.setdefault(key, (self._by, statement, parameters))


def shorten(statement: str) -> str:
    """Return a statement on a line, its columns and lists cut."""
    text = " ".join(statement.split())
    text = re.sub(r"(%\(\w+\)s|%s)(, (%\(\w+\)s|%s))+", "...", text)
    text = re.sub(r"%\(\w+\)s|%s", "?", text)
    return re.sub(r"^SELECT .*? FROM", "SELECT ... FROM", text)


def exercise(database: Database, conf: Any, catcher: Catcher) -> None:
    """Let evscrub's code send all that it can send."""
    settings = sweep_settings(conf)
    policy = settings.policy
    claims, pages = Claims(database), Pages(database, conf.sweep.batch_size)
    ids = [seed.image_id(number) for number in range(1, _IMAGES + 1)]
    catcher.by("look")
    now = claims.look(ids, policy).now
    catcher.by("claim")
    seen = claims.claim(ids, policy)
    catcher.by("renew")
    kept = seen.claims
    lease = claims.renew([(claim, claim.lease) for claim in kept]).lease
    catcher.by("shared data")
    rows = [row for claim in kept for row in claim.locations]
    shared_urls = SharedUrls(database, Stores(conf), Clock())
    for _ in range(2):  # all, then what is new
        shared_urls.among(rows)
    catcher.by("settle")
    half = len(kept) // 2
    claims.settle(
        [
            Settlement(
                claim.image.id,
                lease,
                [row.id for row in claim.locations] if number < half else [],
                [] if number < half else [row.id for row in claim.locations],
                whole=number != half,
            )
            for number, claim in enumerate(kept)
        ],
        policy.claim_timeout,
    )
    horizon = timedelta(seconds=settings.horizon_seconds)
    for name, start, since in (
        ("full sweep", "80000000-0000-4000-8000-000000000000", None),
        ("recent sweep", "", now - timedelta(minutes=9)),
    ):
        catcher.by(name)
        window = Window(now - policy.scrub_time + horizon, now - policy.claim_timeout, since, start)
        for _ in itertools.islice(pages.read(window), None if start else _PAGES):
            pass
    catcher.by("list")
    next(iter(Inventory(database).read()), None)
    catcher.by("space by owner and store")
    of_scrubber = scrubber_settings(conf)
    counter = RegistryCounter(database, Clock(), {"fast": ["file"]}, lambda: of_scrubber)
    anyio.run(counter.refresh)
    one = kept[-1].image.id
    holds = Holds(database)
    for name, action in (
        ("hold", holds.hold),
        ("release", holds.release),
        ("restore", holds.restore),
    ):
        catcher.by(name)
        action(one)


def explain(database: Database, statement: str, parameters: object) -> str:
    """Return the plan, a line a step."""
    with database.engine.connect() as connection:
        result = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)  # type: ignore[arg-type] # as recorded
        if database.engine.dialect.name == "postgresql":
            return "\n".join(shorten_condition(row[0]) for row in result)
        return "\n".join(
            f"{row.table}: {row.type} by {row.key}, {row.rows} rows"
            + (f" ({row.Extra})" if row.Extra else "")
            for row in result
        )


def shorten_condition(line: str) -> str:
    """Return a line of PostgreSQL's plan without long lists of values."""
    line = re.sub(r"'\{.*?\}'", "'{...}'", line)
    return line if len(line) < _LONG else f"{line[:_LONG]}..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--limit", type=int, default=600, help="seconds until it ends itself")
    arguments = parser.parse_args()
    limit(arguments.limit)
    conf, _ = loader.load([arguments.config_file])
    database = Database(conf)
    catcher = Catcher(database.engine)
    exercise(database, conf, catcher)
    plans = [
        (by, short, explain(database, statement, parameters))
        for short, (by, statement, parameters) in list(catcher.caught.items())
    ]
    say("end", plans=plans)


if __name__ == "__main__":
    main()
