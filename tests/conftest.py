# SPDX-License-Identifier: Apache-2.0
"""How a run is spread over processes, and what all tests need."""

from __future__ import annotations

import importlib
import os
import signal
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import certifi
import pytest
from oslo_service import backend

from tests import sharing

# Glance's dependencies bring eventlet, whose resolver, which nobody here asks, is a fifth of what a
# process that imports oslo.messaging needs to start.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

# Warnings are errors here, but not those of OpenStack's libraries about each other.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # Before anything imports oslo.messaging: it would pick eventlet otherwise.
    backend.init_backend(backend.BackendType.THREADING)
    for name in ("oslo_messaging", "swiftclient"):
        importlib.import_module(name)


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end the tests as Ctrl-C does, so that the servers are stopped."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A shell starts its background jobs with SIGINT ignored, and programs under test inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        sharing.open_to_workers()
        _trust_little(config)


def _trust_little(config: pytest.Config) -> None:
    """Let OpenSSL trust one authority instead of the system's hundred and more.

    No server of the tests speaks TLS, but PyMySQL and httpx get ready for it whenever they connect,
    and reading all those certificates takes longer than all else that they do.
    """
    folder = TemporaryDirectory(prefix="evscrub-authority-")
    config.add_cleanup(folder.cleanup)
    head, end, _ = certifi.contents().partition("-----END CERTIFICATE-----")
    one = Path(folder.name, "one.pem")
    one.write_text(f"{head}{end}\n")
    os.environ |= {"SSL_CERT_FILE": str(one), "SSL_CERT_DIR": folder.name}


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does, which a terminal sends to the workers too."""
    me = os.getpid()
    for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGTERM)
    signal.default_int_handler(number, frame)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers that were shared."""
    if not hasattr(config, "workerinput"):
        sharing.close()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share what is costly to set up in one worker; spread all others."""
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str | None:
    """Return the name of the set-up that a test shares with others: its module's, by database."""
    if not isinstance(item, pytest.Function):
        return None
    scopes = {fixtures[-1].scope for fixtures in item._fixtureinfo.name2fixturedefs.values()}
    if not scopes & {"module", "class"}:
        return None
    callspec = getattr(item, "callspec", None)
    return f"{item.module.__name__}-{callspec.params.get('backend') if callspec else None}"
