# SPDX-License-Identifier: Apache-2.0
"""Commands that ask an agent on its status port, and what they make of an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from oslo_upgradecheck.upgradecheck import Code

from evscrub.checks import agent as checks
from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.commands import agent_reports
from evscrub.domain.address import Address
from evscrub.status import client, report
from evscrub.status.snapshot import Sources, take
from evscrub.status.view import lines, view
from tests.unit import agent_parts
from tests.unit.agent_parts import FakeClock, make_busy, make_sources

Answering = Callable[[int, str], Address]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Return a function that starts a server which answers everything with a status and a text."""
    servers = []

    def start(status: int, text: str) -> Address:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return Address("127.0.0.1", server.server_port)

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def busy() -> Sources:
    sources = make_sources(FakeClock())
    make_busy(sources)
    return sources


def status_of(sources: Sources) -> dict[str, Any]:
    return view(sources.statistics(), take(sources), (), None)


def checked(*addresses: Address, listen: str = "") -> Findings:
    conf: Any = SimpleNamespace(
        status=SimpleNamespace(listen=listen, port_offset=0),
        scrub_time=agent_parts.SETTINGS.policy.scrub_time.total_seconds(),
        scrubber=SimpleNamespace(
            claim_timeout=agent_parts.SETTINGS.policy.claim_timeout.total_seconds()
        ),
    )
    return checks.agents(Subject(conf, addresses))


def test_a_paused_store_fails_the_check(answering: Answering, busy: Sources) -> None:
    busy.scrubber._lanes.of("slow").breaker.failed(0, "o", "timeout", at_once=True)
    address = answering(200, json.dumps(status_of(busy)))
    found = checked(address)
    assert found.code is Code.FAILURE
    said = found.details or ""
    assert "store fast is paused: its directory is missing; 8 images wait" in said
    assert "store slow does not work: timeout; 0 images wait" in said
    assert "2 images are parked" in said
    assert said.count(f"The agent on {address}: ") >= 3


def test_an_owner_who_is_stopped_warns(answering: Answering, busy: Sources) -> None:
    found = checked(answering(200, json.dumps(status_of(busy))))
    assert "1 project is stopped in store slow" in (found.details or "")


def test_an_agent_that_is_well_passes_the_check(answering: Answering) -> None:
    found = checked(answering(200, json.dumps(status_of(make_sources(FakeClock())))))
    assert (found.code, found.details) == (
        Code.SUCCESS,
        "1 agent asked: nothing needs an operator.",
    )


def test_an_agent_without_bus_or_registry_warns(answering: Answering, busy: Sources) -> None:
    status = status_of(make_sources(FakeClock()))
    status["bus"]["joined"] = status["registry"]["answers"] = False
    found = checked(answering(200, json.dumps(status)))
    assert found.code is Code.WARNING
    assert "has not joined the bus" in (found.details or "")
    assert "the database does not answer it" in (found.details or "")


def test_whatever_status_calls_a_problem_warns(answering: Answering, busy: Sources) -> None:
    status = status_of(make_sources(FakeClock()))
    status["sweep"]["failing"] = status["registry"]["refuses_changes"] = True
    status["registry"]["clock_disputed"] = 10.0
    broken = {"breaker": "closed", "fault": "it needs \x1b[2J"}
    status["stores"] = [status_of(busy)["stores"][0] | broken]
    found = checked(answering(200, json.dumps(status)))
    assert found.code is Code.WARNING
    said = found.details or ""
    assert said.isprintable()
    for problem in ("sweeps", "takes no changes", "claims nothing", "cannot be used: it needs"):
        assert problem in said


def test_a_problem_ends_as_a_sentence_or_a_question(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "problems", lambda _: ["is it another?", "it waits"])
    address = answering(200, json.dumps(status_of(make_sources(FakeClock()))))
    said = checked(address).details or ""
    assert f"The agent on {address}: is it another?" in said
    assert "?." not in said
    assert said.endswith("it waits.")


@pytest.mark.parametrize("option", ["scrub_time", "claim_timeout"])
def test_agents_that_differ_warn(answering: Answering, option: str) -> None:
    status = status_of(make_sources(FakeClock()))
    alike = answering(200, json.dumps(status))
    usual = status["settings"][option]
    status["settings"][option] = 7
    other = answering(200, json.dumps(status))
    assert checked(alike, alike).code is Code.SUCCESS
    found = checked(alike, other)
    assert found.code is Code.WARNING
    assert (
        f"{option} is not the same everywhere: {usual:g} s in this configuration, {usual:g} s for"
        f" the agent on {alike}, 7 s for the agent on {other}. It must be" in (found.details or "")
    )


GARBAGE = [
    (200, ""),
    (200, "[]"),
    (200, "1"),
    (200, "<html>"),
    (200, "null\n"),
    (200, "{}\n"),
    (200, '{"x": 1}\n'),
    (200, '{"id": []}\n'),
    (200, '{"id": 7, "store": "s"}\n'),
    (200, '{"store": {}}\n'),
    (404, "Nothing is here.\n"),
    (503, ""),
]


@pytest.mark.parametrize(("status", "text"), GARBAGE)
def test_what_is_no_agent_is_told(answering: Answering, status: int, text: str) -> None:
    address = answering(status, text)
    found = checked(address)
    assert found.code is Code.WARNING
    assert "agent" in (found.details or "")
    if text:  # an agent without trouble says nothing
        with pytest.raises(client.NoAnswerError):
            list(client.troubles(address))


def test_what_never_ends_is_no_agent(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_MOST_TROUBLES", 3)
    told = client.troubles(answering(200, '{"id": "x"}\n' * 4))
    assert [next(told) for _ in range(3)] == [{"id": "x"}] * 3
    with pytest.raises(client.NoAnswerError, match="is not an evscrub agent"):
        next(told)


def test_control_characters_of_a_report_are_not_shown(answering: Answering) -> None:
    text = '{"store": "s\\u001b[2J", "state": "blown", "reason": "x\\u0007", "detail": "\\r"}\n'
    text += '{"id": "image", "reason": "\\u009b"}\n'
    told = agent_reports.collect(client.troubles(answering(200, text)))
    (words,) = told.stores.values()
    assert (words + told.images["image"].reason).isprintable()


@pytest.mark.parametrize("text", ['{"agent": {}}', '{"agent": {}, "stores": [1]}'])
def test_an_agent_of_another_release_is_told(answering: Answering, text: str) -> None:
    found = checked(answering(200, text))
    assert found.code is Code.WARNING
    assert "of another release" in (found.details or "")


def test_nobody_need_run_where_nobody_was_named(answering: Answering) -> None:
    address = answering(404, "")
    for listen, said in (
        ("none", "no agent was asked"),
        ("127.0.0.1:0", "no agent was asked"),
        (str(address), "Paused stores are therefore unknown."),
    ):
        found = checked(listen=listen)
        assert found.code is Code.SUCCESS
        assert said in (found.details or "")


def test_reports_take_in_stores_and_images(answering: Answering, busy: Sources) -> None:
    scrubber = busy.scrubber
    text = "".join(lines(scrubber.statistics().lanes, scrubber.images_in_trouble()))
    told = agent_reports.ask([answering(200, text)])
    assert told is not None
    assert told.stores == {"fast": "store fast is paused: its directory is missing"}
    assert set(told.images) == {"p1", "p2", "u1", "r1", "d1"}


def test_a_path_in_a_reason_stays_as_it_is() -> None:
    told = {"store": "fast", "state": "open", "reason": "permission denied: not in /a_b"}
    assert agent_reports.collect([told]).stores == {
        "fast": "store fast does not work: permission denied: not in /a_b"
    }
    told["reason"] = "bad_store_configuration"
    (said,) = agent_reports.collect([told]).stores.values()
    assert said.endswith("does not work: bad store configuration")
