# SPDX-License-Identifier: Apache-2.0
"""Tells systemd how the agent is, by the protocol of sd_notify(3).

Own code, since it is one datagram: oslo.service tells readiness alone and knows no watchdog.
"""

import os
import socket
from collections.abc import Mapping

import anyio


class ServiceManager:
    """The service manager that started this process, if any did.

    :param environment: holds ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` where it did.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000

    def tell(self, *states: str) -> None:
        """Send states such as ``READY=1``; nobody listening is no error."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            try:
                client.sendto("\n".join(states).encode(), self._address)
            except OSError:
                return

    async def watch(self) -> None:
        """Show for ever that the event loop turns."""
        while self._watchdog_seconds:
            self.tell("WATCHDOG=1")
            await anyio.sleep(self._watchdog_seconds / 3)
