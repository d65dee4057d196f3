# SPDX-License-Identifier: Apache-2.0
"""Report the agent's state to systemd by the protocol of sd_notify(3).

Implemented here because it is a single datagram, and oslo.service supports no watchdog.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import anyio


class ServiceManager:
    """The service manager that started this process, if any.

    :param environment: environment variables; systemd sets ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000

    def tell(self, *states: str) -> None:
        """Send states such as ``READY=1``; do nothing if no service manager listens."""
        if not self._address:
            return
        with (
            suppress(OSError),  # nobody listens, or no file descriptor is left for now
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        ):
            client.sendto("\n".join(states).encode(), self._address)

    async def watch(self) -> None:
        """Send keep-alives from the event loop until cancelled, if the watchdog is enabled."""
        while self._watchdog_seconds:
            self.tell("WATCHDOG=1")
            await anyio.sleep(self._watchdog_seconds / 3)
