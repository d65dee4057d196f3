# SPDX-License-Identifier: Apache-2.0
"""Serve Glance's API: an HTTP server, a stand-in for Keystone's middleware, and a log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cheroot import wsgi

if TYPE_CHECKING:
    from pathlib import Path

WSGIApp = Callable[..., Any]

#: Identity of requests without identity headers.
ADMIN = {
    "HTTP_X_PROJECT_ID": "admin",
    "HTTP_X_USER_ID": "admin",
    "HTTP_X_ROLES": "admin,member,reader",
}
#: Loggers that write to Glance's log file only, to keep the caller's log readable.
GLANCE_LOGGERS = ("glance", "keystonemiddleware", "oslo_policy", "taskflow")
HTTP_THREADS = 16


def identity(global_conf: dict[str, str], **local_conf: str) -> Callable[[WSGIApp], WSGIApp]:
    """Return a paste filter that trusts the identity headers, instead of checking a token.

    The headers are `X-Project-Id`, `X-User-Id` and `X-Roles`; missing ones are filled in from
    `ADMIN`.

    :param global_conf: paste's defaults, unused.
    :param local_conf: the filter's own settings, unused.
    """
    del global_conf, local_conf

    def wrap(app: WSGIApp) -> WSGIApp:
        def trust(environ: dict[str, Any], start_response: Callable[..., Any]) -> object:
            for key, value in ADMIN.items():
                environ.setdefault(key, value)
            environ["HTTP_X_IDENTITY_STATUS"] = "Confirmed"
            return app(environ, start_response)

        return trust

    return wrap


def make_server(directory: Path, port: int) -> wsgi.Server:
    """Load Glance's API from its configuration folder into an HTTP server on 127.0.0.1.

    Glance's configuration and database engine are global: run one Glance per process at a time.

    :param directory: the folder with `glance-api.conf`, written by `write_config`.
    :param port: TCP port to listen on.
    :returns: a server that is bound and listening; `serve()` runs it until `stop()`.
    :raises OSError: the port is taken.
    """
    # Imported here, because importing Glance registers options and takes a second.
    from glance.common import wsgi_app
    from glance.db.sqlalchemy import api as db_api

    db_api.clear_db_env()  # an earlier Glance in this process may have used another database
    with _environment("OS_GLANCE_CONFIG_DIR", str(directory)):
        app = wsgi_app.init_app()
    server = wsgi.Server(
        ("127.0.0.1", port),
        app,
        numthreads=HTTP_THREADS,
        max=HTTP_THREADS,
        request_queue_size=128,
        shutdown_timeout=5,
    )
    server.prepare()
    return server


@contextmanager
def own_log(path: Path) -> Iterator[None]:
    """Send Glance's log to a file and preserve the caller's logging.

    Start Glance in this block: Glance replaces the handlers of the root logger and
    `sys.excepthook`, which are restored at the end.

    :param path: Glance's log file.
    """
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, sys.excepthook
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook = hook
        log_file = logging.FileHandler(path)
        log_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        for name in GLANCE_LOGGERS:
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
            logger.addHandler(log_file)
            logger.setLevel(logging.INFO)
            logger.propagate = False


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
