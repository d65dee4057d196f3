# SPDX-License-Identifier: Apache-2.0
"""Exit codes, by which a service manager decides whether a start may work the next time."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evscrub import cli

pytestmark = pytest.mark.usefixtures("global_configuration")

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes an evscrub.conf and returns its path."""

    def write_lines(*lines: str) -> str:
        path = tmp_path / "evscrub.conf"
        path.write_text("\n".join(["[DEFAULT]", "glance_config_files = none", *lines, ""]))
        return str(path)

    return write_lines


@pytest.fixture
def refusing() -> Iterator[int]:
    """Return a port at which nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        yield taken.getsockname()[1]


def test_codes_of_the_kinds_differ() -> None:
    assert (os.EX_UNAVAILABLE, os.EX_CONFIG) == (69, 78)


@pytest.mark.parametrize("command", ["agent", "list", "sweep", "show x", "hold x"])
@pytest.mark.parametrize(
    "lines",
    [
        ("[sweep]", "interval = often"),
        ("[sweep]", "intervall = 60"),
        ("[database]", "connection ="),
        ("[database]", "connection = sqlite"),
        ("[database]", "connection = oracle://user@host/glance"),
        ("[database]", "connection = mysql+nothing://user@host/glance"),
        ("[status]", "listen = localhost"),
    ],
    ids=" ".join,
)
def test_wrong_configuration(command: str, lines: tuple[str, ...], write: Write) -> None:
    assert cli.main([*command.split(), "--config-file", write(*lines)]) == os.EX_CONFIG


@pytest.mark.parametrize("command", ["agent", "list", "sweep", "show x", "hold x"])
def test_missing_file(command: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "evscrub.conf")
    assert cli.main([*command.split(), "--config-file", missing]) == os.EX_CONFIG


@pytest.mark.parametrize("command", ["agent", "list", "sweep", "show x", "hold x"])
@pytest.mark.parametrize("url", ["mysql+pymysql", "postgresql+psycopg2", "no tables"])
def test_database_that_is_away_or_not_ready(
    command: str,
    url: str,
    refusing: int,
    write: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = url != "no tables"
    connection = f"{url}://u:secret@127.0.0.1:{refusing}/g" if known else f"sqlite:///{tmp_path}/g"
    path = write("[database]", f"connection = {connection}")
    assert cli.main([*command.split(), "--config-file", path]) == os.EX_UNAVAILABLE
    said = capsys.readouterr().err
    assert said.startswith("evscrub: Glance's database cannot be used: ")
    assert "secret" not in said


@pytest.mark.parametrize("line", ["agent --confg-file x", "agnet", "list --limit many", ""])
def test_wrong_usage(line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(line.split())
    assert caught.value.code == 2


@pytest.mark.parametrize("line", ["sweep --long", "list -c Colour", "show x -c Colour"])
def test_arguments_that_do_not_fit(line: str, write: Write) -> None:
    path = write("[database]", "connection = sqlite://")
    assert cli.main([*line.split(), "--config-file", path]) == 2
