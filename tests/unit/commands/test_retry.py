# SPDX-License-Identifier: Apache-2.0
"""``evscrub retry``: what it asks agents for, prints and returns."""

from __future__ import annotations

from typing import Any

import pytest

from evscrub import cli
from tests.servers import free_port
from tests.unit.commands.fake_agents import agent, http_server

A, B = "0a000000-0000-4000-8000-000000000001", "0b000000-0000-4000-8000-000000000002"


def answer(**fields: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "due": 0,
        "waiting": 0,
        "in_work": 0,
        "not_retried": {},
        "unknown": [],
        "stores": [],
        "unknown_stores": [],
        "known_stores": ["fast", "slow"],
    }
    return whole | fields


def store(breaker: str, *, fault: str = "") -> dict[str, str]:
    return {"name": "fast", "breaker": breaker, "reason": "it_is_down", "fault": fault}


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    """Run the command; return the exit code, and the lines of output and errors."""
    code = cli.main(["retry", *arguments])
    shown = capsys.readouterr()
    return code, shown.out.splitlines(), shown.err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to retry: images, --store STORE or --all"),
        ([""], "an id is empty"),
        ([A, " "], "an id is empty"),
        (["x" * 37], "longer than an id"),
        (["--store", ""], "--store: the name is empty"),
        (["--store", "fast", "--store", " "], "--store: the name is empty"),
        (["--store"], "--store"),
        (["--store", "fast", A], "either images, --store or --all"),
        (["--all", A], "either images, --store or --all"),
        (["--all", "--store", "fast"], "either images, --store or --all"),
        (["--all", "--agent", ""], "--agent"),
    ],
)
def test_wrong_usage_is_told_with_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with agent(answer()) as (address, sent):
        with pytest.raises(SystemExit) as caught:
            run("--agent", address, *arguments, capsys=capsys)
        assert sent == []
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert "usage: evscrub retry" in errors
    assert said in errors


def test_each_agent_is_asked_and_its_number_shown(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = answer(due=3, in_work=1), answer(due=1, waiting=1)
    with agent(one) as (first, sent), agent(two) as (second, sent_too):
        code, output, errors = run("--all", "--agent", first, "--agent", second, capsys=capsys)
    assert sent == sent_too == [{"all": True}]
    assert output == [
        f"{first}: 3 failed images looked at now, 1 in work already",
        f"{second}: 0 failed images looked at now, 1 due and held up by their store",
    ]
    assert (code, errors) == (0, [])


def test_images_that_one_agent_knows_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    one = answer(due=1, not_retried={B: "has not failed"})
    two = answer(due=1, unknown=[A])
    with agent(one) as (first, sent), agent(two) as (second, _):
        code, _, errors = run(A, B, A.upper(), "--agent", first, "--agent", second, capsys=capsys)
    assert sent == [{"images": [A.upper(), B]}]
    assert (code, errors) == (0, [])


def test_images_that_no_agent_retries_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    one = answer(not_retried={B: "has not failed"}, unknown=[A])
    two = answer(unknown=[A, B])
    with agent(one) as (first, _), agent(two) as (second, _):
        code, _, errors = run(A, B, "--agent", first, "--agent", second, capsys=capsys)
        silent = f"127.0.0.1:{free_port()}"
        _, _, more = run(A, "--agent", second, "--agent", silent, capsys=capsys)
    assert code == 1
    assert errors == [
        f"{A}: not retried: no agent that was asked knows of a failure of it",
        f"{B}: not retried: has not failed",
    ]
    assert more[-1].endswith("knows of a failure of it, but not all agents answered")


def test_many_images_are_asked_for_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"{number:036}" for number in range(2500)]
    pieces = [answer(due=1000), answer(due=1000), answer(due=499, unknown=[ids[2400]])]
    with agent(*pieces) as (address, sent):
        code, output, errors = run(*ids, "--agent", address, capsys=capsys)
    assert [len(request["images"]) for request in sent] == [1000, 1000, 500]
    assert output == [f"{address}: 2499 failed images looked at now"]
    assert code == 1
    assert [line.split(":")[0] for line in errors] == [ids[2400]]


def test_a_store_that_no_agent_has_is_named_with_the_closest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = answer(unknown_stores=["fats"], known_stores=["third"])
    with agent(answer(unknown_stores=["fats"])) as (first, sent), agent(other) as (second, _):
        code, _, errors = run("--store", "fats", "--agent", first, "--agent", second, capsys=capsys)
    assert sent == [{"stores": ["fats"]}]
    assert code == 2
    assert errors == [
        "evscrub: no agent that was asked has a store 'fats': did you mean fast?",
    ]
    with agent(answer(unknown_stores=["zzz"])) as (address, _):
        code, _, errors = run("--store", "zzz", "--agent", address, capsys=capsys)
    assert (code, errors[0].endswith("there are fast, slow")) == (2, True)


def test_a_store_that_one_agent_has_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with agent(answer(unknown_stores=["fast"])) as (first, _), agent(answer()) as (second, _):
        code, _, errors = run("--store", "fast", "--agent", first, "--agent", second, capsys=capsys)
    assert (code, errors) == (0, [])


@pytest.mark.parametrize(
    ("shown", "code", "said"),
    [
        (
            store("blown"),
            1,
            "is paused: it is down; its images wait until you have repaired it and",
        ),
        (store("blown"), 1, "a retry does not resume it"),
        (store("probing"), 0, "does not work: it is down; one image probes it"),
        (store("open"), 0, "'evscrub retry --store fast' probes it at once"),
        (store("closed", fault="no driver"), 0, "store fast cannot be used: no driver"),
    ],
)
def test_what_holds_up_a_store_is_said(
    shown: dict[str, str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with agent(answer(due=1, stores=[shown])) as (address, _):
        found, _, errors = run("--all", "--agent", address, capsys=capsys)
    assert found == code
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize("others", [0, 1])
def test_an_agent_that_refuses_is_told(others: int, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        agent(answer()) as (well, _),
        http_server(lambda *_: (403, b"Only \x1b[2Jthis\nhost.\n")) as address,
    ):
        named = ["--agent", address, *(["--agent", well] if others else [])]
        code, _, errors = run("--all", *named, capsys=capsys)
    assert code == (1 if others else 2)
    assert errors == [
        f"evscrub: {address} refuses, with status 403: Only \N{REPLACEMENT CHARACTER}[2Jthis host."
    ]


def test_an_agent_of_an_earlier_release_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(lambda *_: (405, b"Read-only: GET and HEAD.\n")) as address:
        code, _, errors = run("--all", "--agent", address, capsys=capsys)
    assert code == 2
    assert errors == [f"evscrub: the agent on {address} is of another release, which cannot retry"]


@pytest.mark.parametrize(
    "content",
    [{}, [], {"due": "1"}, answer(due=True), answer(unknown=None), answer(stores=[1])],
)
def test_what_is_no_agent_gives_one_line(
    content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with agent(content) as (address, _):
        code, output, errors = run("--all", "--agent", address, capsys=capsys)
    assert (code, output) == (2, [])
    assert len(errors) == 1
    assert "is not an evscrub agent" in errors[0]


def test_control_characters_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\x9b\r"
    content = answer(
        stores=[store("blown") | {"name": evil, "reason": evil}],
        not_retried={A: evil},
        unknown=[{}, None, 1],
        known_stores=[evil, []],
    )
    with agent(content) as (address, _):
        _, output, errors = run(A, "--agent", address, capsys=capsys)
        _, more, errors_too = run("--store", evil, "--agent", address, capsys=capsys)
    assert all(line.isprintable() for line in (*output, *errors, *more, *errors_too))
