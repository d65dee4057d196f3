# SPDX-License-Identifier: Apache-2.0
"""A `python` that is forked from one that has imported what the program needs.

Importing Glance, or evscrub with OpenStack's libraries, takes a second or two of a processor, and
the tests start such programs some hundred times.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar, Self

#: Glance loads all drivers, and evscrub those of the enabled stores. Those of Ceph and Cinder are
#: missing here: tests give programs stand-ins for their client libraries.
STORE_DRIVERS = tuple(
    f"glance_store._drivers.{name}"
    for name in ("filesystem", "http", "s3", "swift", "vmware_datastore")
)

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent.parent


class ForkingPython:
    """A context manager; its :attr:`python` is run as an interpreter, by any process.

    It runs `-m MODULE` and scripts, with its caller's arguments, environment, folder and standard
    streams, passes signals on and ends as the program does. It is a process of its own for each.
    """

    #: What is imported before; not the programs themselves, which run as `__main__`.
    preload: ClassVar[tuple[str, ...]]

    def __enter__(self) -> Self:
        self._folder = Path(mkdtemp(prefix="evscrub-python-"))
        script = f"#!{sys.executable} -IS\n{(_HERE / 'launcher.py').read_text()}"
        self.python.write_text(script)
        self.python.chmod(0o755)
        command = [sys.executable, "-m", "tests.forking.server", f"{self.python}.socket"]
        # It ends with its input, so that it cannot outlive this process.
        self._process = subprocess.Popen(
            [*command, *self.preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_REPOSITORY,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            raise RuntimeError(f"{type(self).__name__} did not start: see what it printed")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __getstate__(self) -> dict[str, object]:
        return {"_folder": self._folder}

    @property
    def python(self) -> Path:
        """What to run as an interpreter."""
        return self._folder / "python"


class GlancePython(ForkingPython):
    """For Glance's API and commands."""

    preload = (
        "cheroot.wsgi",
        "glance.api.v2.router",
        "glance.api.versions",
        "glance.common.wsgi_app",
        "glance.db.migration",
        "glance.db.sqlalchemy.alembic_migrations.data_migrations",
        "glance.db.sqlalchemy.api",
        "glance.scrubber",
        "httpx",
        "oslo_messaging._drivers.impl_rabbit",
        "psycopg2",
        "pymysql",
        *STORE_DRIVERS,
    )


class EvscrubPython(ForkingPython):
    """For evscrub's commands, and what asks its configuration."""

    preload = (
        "evscrub.cli",
        "evscrub.commands.agent",
        "evscrub.commands.check",
        "evscrub.commands.keep",
        "evscrub.commands.list",
        "evscrub.commands.show",
        "oslo_messaging._drivers.impl_rabbit",
        "psycopg2",
        "pymysql",
        *STORE_DRIVERS,
    )


class DemoPython(ForkingPython):
    """For evscrub's demo, which has Glance in its process."""

    preload = ("evscrub.cli", "evscrub.demo.run", *GlancePython.preload)
