# SPDX-License-Identifier: Apache-2.0
"""Detect outages of the message bus, which oslo.messaging only writes to its log.

oslo.messaging logs a lost broker up to once a second; :class:`BrokerWatch` reads these records and
reports each outage once. It also connects to the brokers from time to time, because oslo.messaging
does not notice a dead connection while no message arrives.
"""

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
from oslo_config import cfg
from oslo_messaging import TransportURL

from evscrub.domain.address import Address
from evscrub.intake import kafka
from evscrub.telemetry.outage import Outage
from evscrub.telemetry.quiet import is_below
from evscrub.telemetry.redact import redact

INTERVAL_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
_DEFAULT_PORTS = {"rabbit": 5672, kafka.SCHEME: kafka.DEFAULT_PORT}
#: oslo.messaging waits at most 30 s between two attempts (rabbit_interval_max), so after a longer
#: time without a complaint it is connected.
_QUIET_SECONDS = 35.0

_CLIENTS = ("amqp", "kombu", "oslo_messaging", "oslo.messaging")
_RABBIT = ("oslo_messaging._drivers.impl_rabbit", "oslo.messaging._drivers.impl_rabbit")
_LOST = "recoverable connection/channel error"
_BACK = re.compile(r"Reconnected to AMQP server|unblocked the connection").search
_CONNECTION_ID = re.compile(r"^\[[0-9a-f-]+\] ")
_NEXT_TRY = re.compile(r"[.,]? *\(?(?:Trying again|retrying) in .*", re.IGNORECASE)


def transport_url(conf: cfg.ConfigOpts) -> TransportURL:
    """Return the URL of the bus with Glance's notifications.

    :param conf: a configuration from which a notification transport was made, which registers the
        options.
    """
    return TransportURL.parse(conf, conf.oslo_messaging_notifications.transport_url)


def brokers(conf: cfg.ConfigOpts) -> list[Address]:
    """Return the addresses of the bus's brokers; an empty list if it is neither RabbitMQ nor Kafka.

    :param conf: as for :func:`transport_url`.
    """
    url = transport_url(conf)
    scheme = url.transport.partition("+")[0]
    if scheme not in _DEFAULT_PORTS:
        return []
    port = _DEFAULT_PORTS[scheme]
    hosts = [Address(one.hostname or "localhost", one.port or port) for one in url.hosts]
    return hosts or [Address("localhost", port)]


class BrokerWatch:
    """Keep track of whether the bus can be used.

    :param outage: receives each change.
    :param now: returns the time in seconds.
    :param brokers: addresses to name in messages and to probe, see :func:`brokers`.
    """

    def __init__(
        self, outage: Outage, now: Callable[[], float], brokers: Sequence[Address]
    ) -> None:
        self.outage = outage
        self._now = now
        self._brokers = brokers
        self._complained_at = 0.0

    def is_told(self, record: logging.LogRecord) -> bool:
        """Evaluate a record of the bus's client; return whether `outage` reports the same.

        Thread-safe.
        """
        if not is_below(record.name, _CLIENTS):
            return False
        text = record.getMessage()
        if is_below(record.name, _RABBIT):
            if record.levelno >= logging.ERROR or _LOST in text:
                self.complain(text)
            elif _BACK(text):
                told = self.outage.is_on
                self.outage.back()
                return told
        return self.outage.is_on

    def complain(self, text: str) -> None:
        """Record that the bus cannot be used.

        :param text: the reason; credentials and connection ids in it are removed.
        """
        self._complained_at = self._now()
        words = redact(_NEXT_TRY.sub("", _CONNECTION_ID.sub("", " ".join(text.split()))))
        names = list(map(str, self._brokers))
        if names and not any(name in words for name in names):
            words += f" ({', '.join(names)})"
        self.outage.away(words)

    async def run(self, on_change: Callable[[bool], None]) -> None:
        """Probe the brokers until cancelled; return immediately if no broker is known.

        :param on_change: called with whether the bus can be used, each time that changes. The bus
            is assumed to be usable at first.
        """
        was_there = True
        while self._brokers:
            await anyio.sleep(INTERVAL_SECONDS)
            if not await _is_any_reachable(self._brokers):
                self.complain("no broker takes connections")
                self._complained_at = 0.0  # an accepted connection refutes this at once
            elif self._now() >= self._complained_at + _QUIET_SECONDS:
                self.outage.back()
            if self.outage.is_on == was_there:
                was_there = not self.outage.is_on
                on_change(was_there)


async def _is_any_reachable(brokers: Sequence[Address]) -> bool:
    for host, port in brokers:
        # For a host or port that cannot be, it is no OSError.
        with anyio.move_on_after(_CONNECT_SECONDS), suppress(Exception):
            async with await anyio.connect_tcp(host, port):
                return True
    return False
