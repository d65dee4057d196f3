# SPDX-License-Identifier: Apache-2.0
"""A big registry: many images that are not due yet, and some that are among them."""

from __future__ import annotations

import time

import sqlalchemy as sa

from tests.bench.kit import seed
from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Bars, Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.peers.saying import GO

_DEADLINE_SECONDS = 900.0
_SCRUB_SECONDS = 86_400
#: The youngest of the images that wait; the oldest fall due after evscrub's horizon of two hours.
_YOUNGEST_SECONDS = 60.0
_OLDEST_SECONDS = _SCRUB_SECONDS - 3 * 3600.0
_SCRUBBER_PAGES = 3
_PAGE = 1000
_FIRST = 100
FIRST = "evscrub, to the first scrub"


def run(lab: Lab, scale: Scale) -> Report:
    pending, due = scale.count(1_000_000, 5_000), scale.count(100_000, 500)
    live = scale.count(1_000_000, 500)
    report = Report(
        "big_registry",
        f"A big registry: {pending:,} images not due, {due:,} due, {live:,} live",
        metrics=(
            Metric("seconds", "seconds", 2),
            Metric("images", "images found"),
            Metric("rows", "rows read by the server"),
            Metric("grown", "MB grown", 1),
        ),
        charts=[Bars("seconds", "Seconds")],
        notes=[
            "a sweep here only reads; its memory is that of the whole process, over all pages",
            (
                f"glance-scrubber reads {_SCRUBBER_PAGES} pages of {_PAGE}; all that is pending is"
                " reckoned from them, for it reads, and keeps, every pending image each time it"
                " wakes"
            ),
            (
                "to the first scrub is from the agent's begin to the first image settled, the sweep"
                " still reading"
            ),
        ],
    )
    for database in lab.databases:
        site = lab.site(database)
        tell(f"{database}: filling the registry")
        _fill(site, pending, due, live)
        config = site.agent_config({"DEFAULT": {"scrub_time": _SCRUB_SECONDS}})
        tell(f"{database}: query plans")
        with Peer("plans", ("--config-file", config), site.directory / "plans.log") as peer:
            plans = peer.hears("end", _DEADLINE_SECONDS)["plans"]
        report.texts[f"Query plans, {database}"] = "\n".join(
            f"[{by}] {statement}\n" + "\n".join(f"    {line}" for line in plan.splitlines())
            for by, statement, plan in plans
        )
        for turn in scale.turns:
            tell(f"{database}, round {turn + 1}: sweeps")
            report.add(database, "evscrub, full sweep", **_sweep(site))
            report.add(database, "evscrub, recent sweep", **_sweep(site, "--recent"))
            tell(f"{database}, round {turn + 1}: glance-scrubber's scan")
            report.add(database, "glance-scrubber's scan", **_scan(site, pending + due))
            tell(f"{database}, round {turn + 1}: to the first scrub")
            report.add(database, FIRST, **_first(site))
        first = report.median(database, FIRST, "seconds") or 0.0
        report.goals.append(f"{database}: to the first scrub in 1.5 s: {first:.2f} s")
    return report


def _fill(site: Site, pending: int, due: int, live: int) -> None:
    site.expect_many()
    # The oldest first, since ids of locations grow with time.
    site.lay(
        seed.Batch(due, 1, _SCRUB_SECONDS + _SCRUB_SECONDS, _SCRUB_SECONDS / 2),
        seed.Batch(live, 1 + due + pending, _SCRUB_SECONDS, _OLDEST_SECONDS, live=True),
        seed.Batch(pending, 1 + due, _YOUNGEST_SECONDS, _OLDEST_SECONDS),
        files=False,
    )


def _sweep(site: Site, *options: str) -> dict[str, float]:
    config = site.directory / "evscrub.conf"
    with Peer("sweep", ("--config-file", config, *options), site.directory / "sweep.log") as peer:
        peer.hears("ready", _DEADLINE_SECONDS)
        rows = _rows_read(site)
        peer.signal(GO)
        begin = peer.hears("begin", _DEADLINE_SECONDS)
        end = peer.hears("end", _DEADLINE_SECONDS)
    return {
        "seconds": end["wall"] - begin["wall"],
        "images": end["found"],
        "rows": _rows_read(site) - rows,
        "grown": end["grown"] / 1e6,
    }


def _scan(site: Site, pending: int) -> dict[str, float]:
    own = site.scrubber_config(scrub_time=_SCRUB_SECONDS)
    files = ("--config-file", site.glance.directory / "glance-api.conf", "--config-file", own)
    pages = min(_SCRUBBER_PAGES, max(1, pending // _PAGE))
    arguments = ("--pages", pages, *files)
    with Peer("scrubber", arguments, site.directory / "scrubber.log") as peer:
        peer.hears("ready", _DEADLINE_SECONDS)
        rows = _rows_read(site)
        peer.signal(GO)
        begin = peer.hears("begin", _DEADLINE_SECONDS)
        end = peer.hears("end", _DEADLINE_SECONDS)
    times = pending / end["images"]
    return {
        "seconds": (end["wall"] - begin["wall"]) * times,
        "images": end["images"] * times,
        "rows": (_rows_read(site) - rows) * times,
        "grown": (end["rss"] - begin["rss"]) / 1e6 * times,
    }


def _first(site: Site) -> dict[str, float]:
    """Run an agent until it has scrubbed some; the store is a stand-in."""
    config = site.directory / "evscrub.conf"
    arguments = ("--config-file", config, "--images", _FIRST, "--delete-seconds", 0)
    with Peer("agent", arguments, site.directory / "agent.log") as peer:
        begin = peer.hears("begin", _DEADLINE_SECONDS)
        first = peer.hears("first", _DEADLINE_SECONDS)
        peer.hears("end", _DEADLINE_SECONDS)
        left = peer.hears("left", _DEADLINE_SECONDS)
    return {
        "seconds": first["wall"] - begin["wall"],
        "images": left["images"],
        "grown": (left["peak"] - begin["peak"]) / 1e6,
    }


def _rows_read(site: Site) -> float:
    """How many rows the server has read so far, from tables and indexes."""
    if site.engine.dialect.name == "postgresql":
        time.sleep(1.1)  # a session tells once a second at most
        query = (
            "SELECT tup_returned + tup_fetched FROM pg_stat_database"
            " WHERE datname = current_database()"
        )
        with site.engine.connect() as connection:
            return float(connection.execute(sa.text(query)).scalar_one())
    with site.engine.connect() as connection:
        rows = connection.execute(sa.text("SHOW GLOBAL STATUS LIKE 'Handler_read%'")).all()
    return float(sum(int(value) for _, value in rows))
