# SPDX-License-Identifier: Apache-2.0
"""Agents of a group keep one rate together; `python -m tests.coordination` looks longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.coordination.run import Outcome, Run
from tests.coordination.site import Limits, Site
from tests.servers import Memcached, RabbitMQ
from tests.sharing import shared

#: Low, with a burst that makes up for turns that they are late for, so that the agents keep it on a
#: busy machine too.
RATE, BURST = 9.0, 9.0
MEMBERSHIP_SECONDS = 3
#: How much longer one delete may take from its turn to the server than another, on a busy machine.
SLACK_SECONDS = 1.5
DEADLINE_SECONDS = 120.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ) -> Iterator[Site]:
    """Return a site whose agents share a bus and, by its options, a group."""
    limits = Limits(RATE, BURST, {})
    with Site(tmp_path_factory.mktemp("site"), limits, rabbitmq.url) as site:
        yield site


def new_run(site: Site, case: str, **group: object) -> Run:
    """Begin a case on a site without images; options of the group [coordination] by name."""
    site.limits = Limits(RATE, BURST, group)
    site.remove_images()
    return Run(
        case,
        site,
        None,
        seconds=0,
        membership_timeout=MEMBERSHIP_SECONDS,
        slack_seconds=SLACK_SECONDS,
        full=0.8,
    )


def told(outcome: Outcome) -> str:
    """Return what a case found, for a failure."""
    return "\n".join([*outcome.violations, *outcome.events, f"{outcome}"])


def test_group_keeps_one_rate_while_agents_come_and_go(site: Site) -> None:
    run = new_run(
        site,
        "come and go",
        backend_url=shared(Memcached).url,
        name="come-and-go",
        membership_timeout=MEMBERSHIP_SECONDS,
        heartbeat_interval=0.5,
    )
    first, _ = run.begin(2, 3 * DEADLINE_SECONDS)
    run.wait(2)
    third = run.add()
    run.wait_for("the third scrubs", lambda: run.counts()[third.name] > 0, DEADLINE_SECONDS)
    run.wait_full("three at the full rate", DEADLINE_SECONDS)
    run.kill(first)
    # How soon, `tests/run.sh coordination` tells, on a quiet machine.
    run.wait_full("two at the full rate", DEADLINE_SECONDS)
    outcome = run.end()
    assert not outcome.violations, told(outcome)


def test_agents_without_a_group_exceed_the_rate(site: Site) -> None:
    """What the other test counts can be exceeded."""
    run = new_run(site, "alone")
    run.begin(2, 2 * DEADLINE_SECONDS)
    run.wait_exceeded(DEADLINE_SECONDS)
    outcome = run.end()
    assert any("above burst" in text for text in outcome.violations), told(outcome)
