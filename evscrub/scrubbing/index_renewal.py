# SPDX-License-Identifier: Apache-2.0
"""Renews the index of shared data in the background, so that no claim waits until all is read."""

import anyio
from oslo_log import log as logging

from evscrub.registry.gateway import RegistryAwayError, RegistryGateway
from evscrub.registry.shared_urls import SharedUrls

LOG = logging.getLogger(__name__)

#: Pause after a failure that is not an outage of the registry.
_PAUSE_SECONDS = 300.0


class IndexRenewal:
    """Renews the index of :class:`~evscrub.registry.shared_urls.SharedUrls` once it is old.

    An agent that claims nothing renews nothing: the next claim then reads the whole index again.
    """

    def __init__(self, shared_urls: SharedUrls, calls: RegistryGateway) -> None:
        self._shared_urls = shared_urls
        self._calls = calls
        self._old = anyio.Event()

    def claimed(self) -> None:
        """Begin to renew the index if it is old; to be called after claims."""
        if self._shared_urls.is_old:
            self._old.set()

    async def run(self) -> None:
        """Renew the index whenever it is old and used, until cancelled."""
        while True:
            await self._old.wait()
            self._old = anyio.Event()
            try:
                while await self._calls.call(self._shared_urls.renew_page):
                    pass
            except RegistryAwayError:
                pass  # goes on after the next claim
            except Exception:
                LOG.exception("The index of shared data could not be renewed; a claim will read it")
                await anyio.sleep(_PAUSE_SECONDS)
