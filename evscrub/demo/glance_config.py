# SPDX-License-Identifier: Apache-2.0
"""Set up a real Glance: its configuration, folders and database."""

from __future__ import annotations

import configparser
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The folder that contains the package `evscrub`.
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]

#: Name of the data folder of a single store without a name.
SINGLE_STORE = "images"
#: Stores that Glance reserves for itself if stores have names.
RESERVED_STORES = ("os_glance_staging_store", "os_glance_tasks_store")

PASTE = """\
[pipeline:glance-api]
pipeline = versionnegotiation identity context root

[composite:root]
paste.composite_factory = glance.api:root_app_factory
/: versions
/v2: v2

[app:versions]
paste.app_factory = glance.api.versions:create_resource

[app:v2]
paste.app_factory = glance.api.v2.router:API.factory

[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory

[filter:identity]
paste.filter_factory = evscrub.demo._glance_wsgi:identity

[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
"""


@dataclass(frozen=True)
class GlanceConfig:
    """How to run a Glance.

    :param directory: folder for its configuration, data and log; nothing is written elsewhere.
    :param port: TCP port on 127.0.0.1.
    :param database_url: SQLAlchemy URL of its database.
    :param transport_url: oslo.messaging URL of the bus.
    :param topics: topics that it sends notifications to; empty for no notifications.
    :param delayed_delete: whether a DELETE leaves the data to a scrubber.
    :param stores: type of each store by name, the default store first; empty for a Glance with one
        `file` store without a name.
    :param store_options: more options by group, which is a store's name or `glance_store`.
    :param metadata_encryption_key: key that encrypts locations (16, 24 or 32 characters); None for
        plain locations.
    :param extra: more options by group, which override all others.
    :param python: the interpreter that runs Glance and its commands; its environment needs Glance,
        cheroot, httpx and the database's driver.
    """

    directory: Path
    port: int
    database_url: str
    transport_url: str
    topics: tuple[str, ...] = ("notifications", "evscrub")
    delayed_delete: bool = True
    stores: Mapping[str, str] = field(default_factory=dict)
    store_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metadata_encryption_key: str | None = None
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    python: str = sys.executable

    @property
    def url(self) -> str:
        """URL of Glance's API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """Glance's log file."""
        return self.directory / "glance-api.log"

    def data_directory(self, store: str = SINGLE_STORE) -> Path:
        """Return the data folder of a `file` store.

        :param store: the store's name; the single store without a name by default.
        """
        return self.directory / "data" / store


def write_config(config: GlanceConfig) -> Path:
    """Write `glance-api.conf` and its paste file, and create the folders that they name.

    :param config: how to run Glance.
    :returns: the path of `glance-api.conf`.
    """
    config.directory.mkdir(parents=True, exist_ok=True)
    paste = config.directory / "glance-api-paste.ini"
    paste.write_text(PASTE)
    groups = _options(config, paste)
    for overrides in (config.store_options, config.extra):
        for group, options in overrides.items():
            groups.setdefault(group, {}).update(options)
    for options in groups.values():
        if "filesystem_store_datadir" in options:
            Path(options["filesystem_store_datadir"]).mkdir(parents=True, exist_ok=True)
    ini = configparser.RawConfigParser(default_section="", strict=True)
    ini.optionxform = str  # type: ignore[assignment,method-assign] # as documented
    # oslo.config reads `$name` as a reference, and URLs and keys may contain a dollar sign.
    ini.read_dict({g: {k: v.replace("$", "$$") for k, v in o.items()} for g, o in groups.items()})
    path = config.directory / "glance-api.conf"
    with path.open("w") as file:
        ini.write(file)
    path.chmod(0o600)  # it contains the passwords of the database and the bus
    return path


def migrate(config: GlanceConfig) -> None:
    """Create or upgrade the database with `glance-manage db sync`.

    :param config: how to run Glance; call `write_config` first.
    :raises RuntimeError: the command failed; the message has its output.
    """
    url = make_url(config.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        # Write-ahead logging, stored in the file, lets readers and a writer work concurrently.
        connection = sqlite3.connect(url.database)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    done = run_command(config, "glance.cmd.manage", "db", "sync")
    if done.returncode:
        raise RuntimeError(
            f"glance-manage db sync failed: {done.stderr or done.stdout}{log_tail(config)}"
        )


def run_command(
    config: GlanceConfig, module: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run one of Glance's commands with Glance's interpreter and configuration.

    :param config: how to run Glance; call `write_config` first.
    :param module: the command's module, such as `glance.cmd.manage`.
    :param arguments: the command's arguments.
    :returns: the completed process with its exit code and output.
    """
    command = [config.python, "-m", module]
    command += ["--config-file", str(config.directory / "glance-api.conf"), *arguments]
    return subprocess.run(
        command, env=environment(config), capture_output=True, text=True, check=False
    )


def environment(config: GlanceConfig) -> dict[str, str]:
    """Return the environment variables of Glance's processes.

    :param config: how to run Glance.
    """
    variables = dict(os.environ)
    if config.python != sys.executable:
        # The server and the paste filter are in this package, which is not installed there.
        places = [str(_PACKAGE_ROOT), *filter(None, [variables.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(places)
    return variables


def log_tail(config: GlanceConfig, size: int = 4000) -> str:
    """Return the end of Glance's output and log, at most `size` characters each."""
    said = ""
    for path in (config.directory / "glance.out", config.log_path):
        if path.exists():
            said += f"\n--- {path.name}\n{path.read_text(errors='replace')[-size:]}"
    return said


def _options(config: GlanceConfig, paste: Path) -> dict[str, dict[str, str]]:
    directory = config.directory
    groups = {
        "DEFAULT": {
            "transport_url": config.transport_url,
            "delayed_delete": str(config.delayed_delete),
            "show_multiple_locations": "True",  # lets tests change locations by PATCH
            "log_file": str(config.log_path),
            "use_stderr": "False",
            "node_staging_uri": f"file://{directory / 'staging'}",
            "image_cache_dir": str(directory / "cache"),
            "enabled_import_methods": "[glance-direct,copy-image]",
            "worker_self_reference_url": config.url,
        },
        # The database need not survive a power failure, and SQLite is twice as fast without syncs.
        "database": {"connection": config.database_url, "sqlite_synchronous": "False"},
        "oslo_messaging_notifications": {
            "driver": "messagingv2" if config.topics else "noop",
            "topics": ",".join(config.topics),
        },
        "oslo_concurrency": {"lock_path": str(directory / "lock")},
        "task": {"work_dir": str(directory / "tasks")},
        "paste_deploy": {"config_file": str(paste)},
        "glance_store": {},
    }
    if config.metadata_encryption_key is not None:
        groups["DEFAULT"]["metadata_encryption_key"] = config.metadata_encryption_key
    if not config.stores:
        groups["glance_store"] |= {
            "stores": "file,http",
            "default_store": "file",
            "filesystem_store_datadir": str(config.data_directory()),
        }
        return groups
    backends = ",".join(f"{name}:{kind}" for name, kind in config.stores.items())
    groups["DEFAULT"]["enabled_backends"] = backends
    groups["glance_store"]["default_backend"] = next(iter(config.stores))
    files = [name for name, kind in config.stores.items() if kind == "file"]
    for name in (*files, *RESERVED_STORES):
        groups[name] = {"filesystem_store_datadir": str(config.data_directory(name))}
    return groups
