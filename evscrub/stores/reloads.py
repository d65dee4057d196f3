# SPDX-License-Identifier: Apache-2.0
"""Loads stores that cannot be used again from time to time, and tells of them."""

from collections.abc import Callable, Collection

import anyio
from oslo_log import log as logging

from evscrub.stores.backends import Stores
from evscrub.stores.faults import Fault

LOG = logging.getLogger(__name__)

#: Between two attempts; as often as a store that fails is probed in the end.
RELOAD_SECONDS = 60.0


class StoreReloads:
    """Keeps trying to load the stores that cannot be used.

    :param on_usable: told which stores can be used that could not; returns how many images it
        tries again for that.
    """

    def __init__(self, stores: Stores, on_usable: Callable[[Collection[str]], int]) -> None:
        self._stores = stores
        self._on_usable = on_usable
        self._told: dict[str, Fault] = {}
        self._lately: set[str] = set()
        self._wanted = anyio.Event()

    def soon(self) -> None:
        """Try as soon as may be, rather than when it is time."""
        self._wanted.set()

    async def run(self) -> None:
        """Try once a minute, and when asked to, until cancelled."""
        self._tell()
        while True:
            with anyio.move_on_after(RELOAD_SECONDS):
                await self._wanted.wait()
            self._wanted = anyio.Event()
            # A driver that hangs is left behind in a thread.
            usable = await anyio.to_thread.run_sync(self._stores.load, abandon_on_cancel=True)
            # Once more the next time, for images that were under way to being parked.
            count = self._on_usable(usable | self._lately)
            self._lately = usable
            if usable:
                LOG.info(
                    "Loaded: %s; %d images that were parked for that are tried again",
                    ", ".join(sorted(usable)),
                    count,
                )
            self._tell()

    def _tell(self) -> None:
        """Log each fault once."""
        faults = self._stores.faults
        for store, fault in faults.items():
            if self._told.get(store) != fault:
                LOG.error(
                    "Store %s cannot be used: %s. Its images are parked; it is loaded again every"
                    " %.0f s, and at SIGHUP",
                    store,
                    fault.hint,
                    RELOAD_SECONDS,
                )
        self._told = dict(faults)
