# SPDX-License-Identifier: Apache-2.0
"""Retry loading the stores that cannot be used, and log their faults."""

from collections.abc import Awaitable, Callable, Collection

import anyio
from oslo_log import log as logging

from evscrub.stores.backends import Stores
from evscrub.stores.faults import Fault

LOG = logging.getLogger(__name__)

#: Time between two attempts; the same as between probes of a store that keeps failing.
RELOAD_SECONDS = 60.0


class StoreReloads:
    """Loads unusable stores periodically.

    :param on_usable: called with the stores that became usable; returns how many parked images
        are retried for them.
    """

    def __init__(
        self, stores: Stores, on_usable: Callable[[Collection[str]], Awaitable[int]]
    ) -> None:
        self._stores = stores
        self._on_usable = on_usable
        self._logged: dict[str, Fault] = {}
        self._lately: set[str] = set()
        self._wanted = anyio.Event()

    def soon(self) -> None:
        """Try immediately instead of at the next interval."""
        self._wanted.set()

    async def run(self) -> None:
        """Try every :data:`RELOAD_SECONDS`, and after :meth:`soon`, until cancelled."""
        self._tell()
        while True:
            with anyio.move_on_after(RELOAD_SECONDS):
                await self._wanted.wait()
            self._wanted = anyio.Event()
            # A driver that hangs is abandoned in its thread.
            usable = await anyio.to_thread.run_sync(self._stores.load, abandon_on_cancel=True)
            # Reported twice, for images that were being parked during the first report.
            count = await self._on_usable(usable | self._lately)
            self._lately = usable
            if usable:
                LOG.info(
                    "Loaded stores: %s; retrying %d images that were parked because of them",
                    ", ".join(sorted(usable)),
                    count,
                )
            self._tell()

    def _tell(self) -> None:
        """Log each new or changed fault."""
        faults = self._stores.faults
        for store, fault in faults.items():
            if self._logged.get(store) != fault:
                LOG.error(
                    "Store %s cannot be used: %s. Its images are parked; loading is retried every"
                    " %.0f s and at SIGHUP",
                    store,
                    fault.hint,
                    RELOAD_SECONDS,
                )
        self._logged = dict(faults)
