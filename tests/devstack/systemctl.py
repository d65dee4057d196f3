# SPDX-License-Identifier: Apache-2.0
"""A systemctl that is good enough for DevStack's units, in a folder of its own.

PHASES_SYSTEMD_DIR has the units; beside it, ``state`` keeps what is enabled and what runs, and
``journal`` what the services print.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

UNITS = Path(os.environ["PHASES_SYSTEMD_DIR"])
STATE = UNITS.parent / "state"
JOURNAL = UNITS.parent / "journal"
DEADLINE = 60


def service(unit: str) -> dict[str, str]:
    """Read a unit's options, all sections in one."""
    pairs = (line.split("=", 1) for line in (UNITS / unit).read_text().splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def pid(unit: str) -> int | None:
    """The process of a unit that runs."""
    try:
        number = int((STATE / f"{unit}.pid").read_text())
        # Whoever adopts the process may not reap it.
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else number


def start(unit: str) -> None:
    """Start what does not run."""
    if pid(unit) is not None:
        return
    with (JOURNAL / unit).open("ab") as journal:
        process = subprocess.Popen(
            shlex.split(service(unit)["ExecStart"]),
            stdin=subprocess.DEVNULL,
            stdout=journal,
            stderr=journal,
            start_new_session=True,
        )
    (STATE / f"{unit}.pid").write_text(str(process.pid))


def stop(unit: str) -> None:
    """Stop what runs, and wait until it has."""
    number = pid(unit)
    if number is None:
        return
    os.kill(number, signal.SIGTERM)
    until = time.monotonic() + DEADLINE
    while pid(unit) is not None:
        if time.monotonic() > until:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.02)
    (STATE / f"{unit}.pid").unlink()


def restart(unit: str) -> None:
    """Stop and start."""
    stop(unit)
    start(unit)


def reload(unit: str) -> None:
    """Run the unit's ExecReload."""
    command = service(unit)["ExecReload"].replace("$MAINPID", str(pid(unit)))
    subprocess.run(shlex.split(command), check=True)


def enabled(unit: str) -> Path:
    """The file that says that a unit is enabled."""
    return STATE / f"{unit}.enabled"


ASK: dict[str, Callable[[str], bool]] = {
    "is-enabled": lambda unit: enabled(unit).exists(),
    "is-active": lambda unit: pid(unit) is not None,
}
DO: dict[str, Callable[[str], object]] = {
    "enable": lambda unit: enabled(unit).touch(),
    "disable": lambda unit: enabled(unit).unlink(missing_ok=True),
    "start": start,
    "stop": stop,
    "restart": restart,
    "reload": reload,
}


def main(verb: str, *names: str) -> int:
    """Do one thing to some units; returns the exit code."""
    STATE.mkdir(exist_ok=True)
    JOURNAL.mkdir(exist_ok=True)
    units = [name if name.endswith(".service") else f"{name}.service" for name in names]
    if verb in ASK:
        return 0 if all(ASK[verb](unit) for unit in units) else 1
    for unit in units:
        if not (UNITS / unit).exists():
            return 5
        DO[verb](unit)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
