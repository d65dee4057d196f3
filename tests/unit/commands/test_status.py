# SPDX-License-Identifier: Apache-2.0
"""``evscrub status``: what it prints and returns, also for what is no agent."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from evscrub import cli
from evscrub.status import client
from tests.servers import free_port
from tests.unit.commands.fake_agents import agent, http_server, raw_server
from tests.unit.status.test_report import BUSY, WELL

ROOT = Path(__file__).parents[3]


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the command; return the exit code, the output and the errors."""
    code = cli.main(["status", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("statuses", "silent", "code"),
    [
        ([WELL], 0, 0),
        ([WELL, WELL], 0, 0),
        ([BUSY], 0, 1),
        ([WELL, BUSY], 0, 1),
        ([WELL], 1, 1),
        ([], 1, 2),
        ([], 3, 2),
    ],
)
@pytest.mark.parametrize("how", ["table", "json", "yaml", "value"])
def test_exit_code_says_whether_all_is_well(
    how: str,
    statuses: list[Any],
    silent: int,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ExitStack() as stack:
        addresses = [stack.enter_context(agent(each))[0] for each in statuses]
        addresses += [f"127.0.0.1:{free_port()}" for _ in range(silent)]
        named = [word for address in addresses for word in ("--agent", address)]
        found, _, errors = run("-f", how, *named, capsys=capsys)
    assert found == code
    assert errors.count("no agent answers on") == len(errors.splitlines()) == silent


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_agents_stand_side_by_side_within_the_width(
    columns: int,
    count: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = deepcopy(BUSY)
    shown["agent"] |= {"host": "controller1.region.example.org", "pid": 4_194_304}
    shown["queue"] |= {"waiting": 123_456_789, "oldest_due_age": 1e6}
    shown["stores"][0] |= {"name": "a-store-with-a-rather-long-name", "rate": 123.4}
    with ExitStack() as stack:
        addresses = [stack.enter_context(agent(shown))[0] for _ in range(count)]
        named = [word for address in addresses for word in ("--agent", address)]
        _, output, _ = run(*named, capsys=capsys)
    lines = output.splitlines()
    assert max(map(len, lines)) <= columns
    heads = [line.split()[1:] for line in lines if line.startswith("agent ")]
    assert [name for head in heads for name in head] == addresses
    assert len(heads[0]) == min(count, 3 if columns == 80 else 5)
    assert "123,456,789" in output
    for address in addresses:
        assert f"{address}: 2 images are parked" in output


def test_agents_with_different_stores(capsys: pytest.CaptureFixture[str]) -> None:
    other = deepcopy(WELL)
    other["stores"] = [BUSY["stores"][1] | {"name": "third"}, BUSY["stores"][0]]
    with agent(BUSY) as (one, _), agent(other) as (two, _):
        _, output, _ = run("--agent", one, "--agent", two, capsys=capsys)
    rows = [line for line in output.splitlines() if line.startswith("store ")]
    assert [row.split()[:2] for row in rows] == [
        ["store", "fast"],
        ["store", "slow"],
        ["store", "third"],
    ]
    assert rows[0].count("PAUSED") == 2


def table_of_members(output: str) -> list[list[str]]:
    """Return the titles and rows of the tables of members, by words."""
    lines = output.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("group evscrub"))
    return [line.split() for line in lines[first:]]


@pytest.mark.parametrize("columns", [80, 120])
def test_members_of_a_group_have_one_table(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of agents that see the same."""
    monkeypatch.setenv("COLUMNS", str(columns))
    one = deepcopy(WELL)
    one["sharing"] = deepcopy(BUSY["sharing"])
    members = one["sharing"]["group"]["members"]
    members[0]["id"] = f"{'controller.example.org.' * 2}:4194304:0123abcd"
    two = deepcopy(one)
    two["sharing"]["group"]["members"][0] |= {"is_self": False, "age": 12.4}
    two["sharing"]["group"]["members"][1] |= {"is_self": True}
    one["sharing"]["group"]["members"][1] |= {"age": 3.0}
    with agent(one) as (first, _), agent(two) as (second, _):
        _, output, _ = run("--agent", first, "--agent", second, capsys=capsys)
    assert max(map(len, output.splitlines())) <= columns
    assert "1/2 of the group's" in output
    title, head, _, *rows = table_of_members(output)
    assert title[:6] == ["group", "evscrub.default:", "2", "members,", "seen", "by"]
    assert title[6:] == [f"{first},", second]
    assert head == ["member", "share", "last", "seen"]
    assert [row for row in rows if row[0] == "controller1:4001:00000001"] == [
        ["controller1:4001:00000001", f"({second})", "1/2", "now"]
    ]
    assert rows[-1] == ["controller2:4002:00000002", "-", "left,", "2", "min", "ago"]


def test_members_that_agents_see_differently_have_a_table_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = deepcopy(BUSY)
    other["sharing"]["group"]["members"].pop(1)
    with agent(BUSY) as (one, _), agent(other) as (two, _):
        _, output, _ = run("--agent", one, "--agent", two, capsys=capsys)
    titles = [line for line in output.splitlines() if line.startswith("group evscrub")]
    assert [title.partition("seen by ")[2] for title in titles] == [one, two]


def test_agents_without_a_group_have_no_table_of_members(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with agent(WELL) as (address, _):
        _, output, _ = run("--agent", address, capsys=capsys)
    assert "each agent by itself" in output
    assert "last seen" not in output


def test_json_is_one_line_with_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    silent = f"127.0.0.1:{free_port()}"
    with agent(BUSY) as (busy, _):
        _, output, _ = run("-f", "json", "--agent", busy, "--agent", silent, capsys=capsys)
        _, as_yaml, _ = run("-f", "yaml", "--agent", busy, "--agent", silent, capsys=capsys)
    (line,) = output.splitlines()
    shown = json.loads(line)
    assert yaml.safe_load(as_yaml) == shown
    assert [(each["agent"], each["state"]) for each in shown] == [
        (busy, "attention"),
        (silent, "no_answer"),
    ]
    assert shown[1]["problems"] == []
    assert "no agent answers" in shown[1]["error"]
    text = (ROOT / "etc/docs/status.rst").read_text()
    sharing = shown[0]["sharing"]
    group = sharing["group"]
    keys = {*shown[0], *shown[1], *shown[0]["stores"][0], *sharing, *group, *group["members"][0]}
    for key in keys:
        assert f"``{key}``" in text, key


def test_value_is_one_line_an_agent(capsys: pytest.CaptureFixture[str]) -> None:
    silent = f"127.0.0.1:{free_port()}"
    with agent(BUSY) as (busy, _):
        _, output, _ = run("-f", "value", "--agent", busy, "--agent", silent, capsys=capsys)
    assert output.splitlines() == [
        f"{busy} attention 10 10 0 67.0 2 1 1 1 True True",
        f"{silent} no_answer - - - - - - - - - -",
    ]


def test_an_agent_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    with agent(WELL) as (address, sent):
        run("--agent", address, "--agent", address, capsys=capsys)
    assert len(sent) == 1


def test_agents_are_asked_at_the_same_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = threading.Barrier(8)

    def respond(_path: str, _body: bytes) -> tuple[int, bytes]:
        asked.wait(60)  # for the requests to the others
        return 200, json.dumps(WELL).encode()

    with ExitStack() as stack:
        addresses = [stack.enter_context(http_server(respond)) for _ in range(8)]
        code, _, errors = run(
            *(word for address in addresses for word in ("--agent", address)), capsys=capsys
        )
    assert (code, errors) == (0, "")


@pytest.mark.usefixtures("global_configuration")
@pytest.mark.parametrize("listen", ["none", "127.0.0.1:0"])
def test_an_agent_without_a_port_cannot_be_asked(
    listen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "evscrub.conf"
    config.write_text(f"[DEFAULT]\nglance_config_files = none\n[status]\nlisten = {listen}\n")
    code, output, errors = run("--config-file", config, capsys=capsys)
    assert (code, output) == (2, "")
    assert errors == (
        f"evscrub: [status] listen is {listen}, so no agent can be asked there: name one by"
        " --agent HOST:PORT\n"
    )


@pytest.mark.usefixtures("global_configuration")
def test_the_agent_of_the_configuration_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "evscrub.conf"
    with agent(WELL) as (address, _):
        config.write_text(f"[DEFAULT]\nglance_config_files = none\n[status]\nlisten = {address}\n")
        code, output, _ = run("--config-file", config, capsys=capsys)
    assert code == 0
    assert address in output


@pytest.mark.parametrize("wrong", ["", "none", "host", "host:port", "a b:1", "host:70000"])
def test_a_wrong_address_is_wrong_usage(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--agent", wrong, capsys=capsys)
    assert caught.value.code == 2
    assert "--agent" in capsys.readouterr().err


# -- what is no agent

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202e"


def say(*pieces: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return talk


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"[" * 65536)


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(say(b""), id="hangs up"),
        pytest.param(say(b"SSH-2.0-OpenSSH_9.2\r\n"), id="ssh"),
        pytest.param(say(EVIL.encode() + b"\r\n"), id="control characters"),
        pytest.param(say(b"\x00" * 1000), id="zeros"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), id="long header"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n"), id="headers"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), id="cut"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}"), id="bad length"),
        pytest.param(
            say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="bad chunk"
        ),
        pytest.param(say(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), id="redirect"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000), id="deep"),
        pytest.param(say(b'HTTP/1.1 200 OK\r\n\r\n{"agent": ' + b"1" * 5000 + b"}"), id="digits"),
        pytest.param(say(b'HTTP/1.1 200 OK\r\n\r\n{"agent": "\xff"}'), id="not UTF-8"),
        pytest.param(say(b'HTTP/1.1 200 OK\r\n\r\n{"agent": {}}'), id="nothing in it"),
        pytest.param(drip, id="dripping", marks=pytest.mark.costly),
        pytest.param(endless, id="endless"),
    ],
)
def test_what_is_no_agent_gives_one_plain_line(
    talk: Callable[[socket.socket], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_DOCUMENT_SECONDS", 1.0)
    with raw_server(talk) as address:
        code, output, errors = run("--agent", address, capsys=capsys)
    assert (code, output) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("evscrub: ")
    assert address in line
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize("how", ["table", "json", "yaml", "value"])
def test_control_characters_never_reach_the_terminal(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = deepcopy(BUSY)
    evil["agent"] |= {"host": EVIL, "version": EVIL}
    evil["stores"][0] |= {"name": EVIL, "reason": EVIL}
    evil["stores"][1] |= {"fault": EVIL}
    with agent(evil) as (address, _):
        code, output, _ = run("-f", how, "--agent", address, capsys=capsys)
    assert code == 1
    assert all(line.isprintable() for line in output.split("\n"))


def test_an_error_status_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(lambda *_: (503, EVIL.encode())) as address:
        code, _, errors = run("--agent", address, capsys=capsys)
    assert code == 2
    assert errors == f"evscrub: {address} answers 503: is it an evscrub agent?\n"
