# SPDX-License-Identifier: Apache-2.0
"""Run a real Glance in this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from evscrub.demo._glance_wsgi import make_server, own_log
from evscrub.demo.glance_config import GlanceConfig, migrate, write_config

if TYPE_CHECKING:
    from cheroot import wsgi


class GlanceThread:
    """A Glance in threads of the calling process; :meth:`start` and :meth:`stop` it.

    It can share an in-memory bus such as `kombu+memory://` with the caller. Glance's configuration
    is global: run one at a time.

    :param config: how to run Glance; `python` is used only for the migration of the database.
    """

    def __init__(self, config: GlanceConfig) -> None:
        self.config = config
        self._server: wsgi.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Configure, migrate and start Glance; on return it listens.

        :raises RuntimeError: the database could not be migrated.
        :raises OSError: the port is taken.
        """
        write_config(self.config)
        migrate(self.config)
        with own_log(self.config.log_path):
            self._server = make_server(self.config.directory, self.config.port)
        # A daemon thread, so that the interpreter can exit without `stop`.
        self._thread = threading.Thread(target=self._server.serve, name="glance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests under way and stop; may be called twice."""
        server, self._server = self._server, None
        thread, self._thread = self._thread, None
        if server is not None:
            server.stop()
        if thread is not None:
            thread.join(10)
