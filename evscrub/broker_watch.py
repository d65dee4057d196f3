# SPDX-License-Identifier: Apache-2.0
"""Sees whether the broker can be reached, for oslo.messaging tells nobody that it lost it."""

from collections.abc import Callable, Sequence

import anyio
from oslo_config import cfg
from oslo_messaging import TransportURL

INTERVAL_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_DEFAULT_PORT = 5672


def broker_hosts(conf: cfg.ConfigOpts) -> list[tuple[str, int]]:
    """The hosts and ports of the bus's brokers; none where it is no RabbitMQ.

    :param conf: one that a notification transport was made of, which registers the options.
    """
    url = TransportURL.parse(conf, conf.oslo_messaging_notifications.transport_url)
    if not url.transport.startswith("rabbit"):
        return []
    hosts = [(host.hostname or "localhost", host.port or _DEFAULT_PORT) for host in url.hosts]
    return hosts or [("localhost", _DEFAULT_PORT)]


async def watch(hosts: Sequence[tuple[str, int]], on_change: Callable[[bool], None]) -> None:
    """Tell of each change of whether any of the brokers takes connections, for ever.

    :param on_change: at first it is taken for granted that one does.
    """
    was_reachable = True
    while True:
        await anyio.sleep(INTERVAL_SECONDS)
        reachable = await _is_any_reachable(hosts)
        if reachable != was_reachable:
            was_reachable = reachable
            on_change(reachable)


async def _is_any_reachable(hosts: Sequence[tuple[str, int]]) -> bool:
    for host, port in hosts:
        with anyio.move_on_after(_CONNECT_SECONDS):
            try:
                stream = await anyio.connect_tcp(host, port)
            except OSError:
                continue
            await stream.aclose()
            return True
    return False
