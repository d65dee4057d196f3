# SPDX-License-Identifier: Apache-2.0
"""An environment for each release of Glance, made once and kept between runs.

A release's requirements stand in a file of its name beside this one: Glance itself, cheroot and
httpx for the demo's server, and the databases' drivers PyMySQL and psycopg2-binary.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[1]


@dataclass(frozen=True)
class Release:
    """A release of Glance.

    :param name: what its environment and its file of requirements are named after.
    :param openstack: the OpenStack release that it is part of.
    """

    name: str
    openstack: str

    @property
    def requirements(self) -> Path:
        """The file that says what to install."""
        return _HERE / f"{self.name}.txt"

    @property
    def environment(self) -> Path:
        """The folder of its environment."""
        return _ROOT / f".venv-tests-{self.name}"

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.environment / "bin" / "python"

    @property
    def version(self) -> str:
        """Glance's version."""
        (version,) = re.findall(r"^glance==(\S+)$", self.requirements.read_text(), re.MULTILINE)
        return str(version)


RELEASES = (
    Release("glance28", "2024.1"),
    Release("glance30", "2025.1"),
    Release("glance32", "2026.1"),
    Release("glance33", "2026.2"),
)


def make_environment(release: Release) -> Path:
    """Make a release's environment, unless it is there and up to date.

    :returns: its interpreter.
    :raises RuntimeError: a command failed; with the end of what it printed.
    """
    stamp, wanted = release.environment / ".installed", _stamp(release)
    if stamp.exists() and stamp.read_text() == wanted:
        return release.python
    shutil.rmtree(release.environment, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(release.environment))
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(str(release.python), *install, "--requirement", str(release.requirements))
    stamp.write_text(wanted)
    return release.python


def _stamp(release: Release) -> str:
    """Return what the environment is made from: the interpreter and all pins."""
    text = release.requirements.read_text()
    constraints = re.findall(r"^--constraint (\S+)$", text, re.MULTILINE)
    pins = "".join((_HERE / name).read_text() for name in constraints)
    return f"{platform.python_version()}\n{text}{pins}"


def _run(*command: str) -> None:
    # pip goes out to the world, which an authority that tests trust does not vouch for.
    env = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)} failed: {said}")
