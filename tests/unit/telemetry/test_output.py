# SPDX-License-Identifier: Apache-2.0
"""Commands whose output is read by ``head``, as real processes on real pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evscrub.telemetry.output import reader_may_leave

#: As most have it: what is printed waits in a buffer, and may fail where nobody looks for it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a database that holds no table; no agent of this host is asked."""
    path = tmp_path / "evscrub.conf"
    url = f"sqlite:///{tmp_path / 'none.sqlite'}"
    path.write_text(
        "[DEFAULT]\nglance_config_files = none\n[status]\nlisten = none\n"
        f"[database]\nconnection = {url}\n"
    )
    return path


@pytest.mark.costly
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--help", 0),
        ("completion bash", 0),
        ("check --json --config-file {config}", 2),
        ("check --config-file {config} 2>&1", 2),
        ("list --config-file {config} 2>&1", 69),
        ("hold --config-file {config} 1 2 3 2>&1", 69),
    ],
)
def test_who_has_seen_enough_changes_neither_the_exit_code_nor_prints_an_error(
    arguments: str, code: int, config: Path
) -> None:
    command = f"{sys.executable} -m evscrub {arguments.format(config=config)}"
    script = f'exec 3>&1; {{ {command}; echo "exit $?" >&3; }} | head -c 0 > /dev/null'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.stdout == f"exit {code}\n"
    for word in ("Traceback", "BrokenPipe", "Exception ignored"):
        assert word not in done.stderr


@pytest.mark.costly
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_neither_the_exit_code_nor_the_output(
    closed: str, config: Path
) -> None:
    command = f"{sys.executable} -m evscrub list -f json --config-file {config} {closed}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed: str) -> None:
    """Standard input is still seen to be closed, not taken for an empty one."""
    program = (
        "import os, sys; from evscrub.telemetry.output import open_closed;"
        " had_input = sys.stdin is not None; open_closed();"
        " assert (sys.stdin is not None) is had_input;"
        " sys.exit(7 if os.open(os.devnull, os.O_RDONLY) > 2 else 1)"
    )
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program],
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 7


#: Prints after its reader has gone, more than a buffer holds, and then does its work.
_PROGRAM = """
import os, sys
from evscrub.telemetry.output import reader_may_leave, say
os.read(0, 1)  # until the reader has gone
for number in range(3):
    say("y" * {length})
    with reader_may_leave():
        print("x" * {length})
        print("y" * {length}, file=sys.stderr)
    open(sys.argv[1], "a").write(str(number))
sys.exit(7)
"""


@contextmanager
def without_reader(
    *arguments: str, errors: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """Start Python with a pipe as its output, close that, and have a read from stdin return."""
    with subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.close()
        yield process


@pytest.mark.parametrize("length", [1, 100_000])
@pytest.mark.parametrize("errors", [subprocess.PIPE, subprocess.STDOUT])
def test_a_command_goes_on_without_a_reader(length: int, errors: int, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with without_reader(_PROGRAM.format(length=length), str(done), errors=errors) as process:
        if process.stderr is not None:
            assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 7
    assert done.read_text() == "012"


def test_a_message_does_not_hide_that_the_output_has_no_reader() -> None:
    program = (
        "import os, sys; from evscrub.telemetry.output import say, silence; os.read(0, 1);"
        " say('x'); sys.exit(7 if silence() else 1)"
    )
    with without_reader(program) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b"evscrub: x\n"
    assert process.returncode == 7


#: Its reader leaves before it has a result.
_COMMAND = (
    "from evscrub import cli; from evscrub.commands import list as command;"
    " command.main = lambda _: print('x' * 100_000); sys.exit(cli.main(['list']))"
)


@pytest.mark.parametrize(
    ("program", "code"),
    [("say('x'); sys.exit(7)", 7), ("silence(); os.write(2, b'x'); sys.exit(7)", 7), (_COMMAND, 1)],
)
def test_exit_code_without_a_reader_of_output_and_errors(program: str, code: int) -> None:
    """What is left in a buffer would change it."""
    program = (
        "import os, sys; from evscrub.telemetry.output import say, silence; os.read(0, 1);"
        f" {program}"
    )
    with without_reader(program, errors=subprocess.STDOUT) as process:
        pass
    assert process.returncode == code


def test_another_broken_pipe_is_an_error() -> None:
    with pytest.raises(BrokenPipeError), reader_may_leave():
        raise BrokenPipeError
