# SPDX-License-Identifier: Apache-2.0
"""Short-lived or kept connections to RabbitMQ of evscrub's own, with a timeout for each step.

oslo.messaging's driver would wait for a broker without limit, and tells nothing about queues.
Nothing here creates or changes anything at the broker.
"""

import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import oslo_messaging
from amqp import Connection
from amqp.exceptions import AMQPError
from oslo_config import cfg
from oslo_messaging import TransportHost, TransportURL

from evscrub.domain.address import Address
from evscrub.intake import kafka

#: The group of the options of RabbitMQ's driver.
GROUP = "oslo_messaging_rabbit"
#: Glance sends image.delete at this priority; a queue of its own for each topic has them.
PRIORITY = "info"
#: What a failed connection, request or TLS handshake raises; UnicodeError is of a host's odd name.
ERRORS = (AMQPError, OSError, UnicodeError)

_SECONDS = 5.0
#: RabbitMQ closes a connection that was silent for longer, such as one of a host that died.
_HEARTBEAT_SECONDS = 60
_DEFAULT_PORT = 5672
_KINDS = frozenset({"rabbit", "kombu"})


@dataclass(frozen=True, slots=True)
class Broker:
    """A RabbitMQ of the bus, and how to log in to it.

    :param host: its address and credentials.
    :param virtual_host: the virtual host; None for RabbitMQ's default.
    :param options: ``[oslo_messaging_rabbit]``, with changes from the URL.
    """

    host: TransportHost = field(repr=False)
    virtual_host: str | None
    options: cfg.ConfigOpts.GroupAttr = field(repr=False)

    def __str__(self) -> str:
        """Return the address, without the login."""
        host = self.host
        return str(Address(host.hostname or "localhost", host.port or _DEFAULT_PORT))


@dataclass(frozen=True, slots=True)
class Bus:
    """The bus that Glance's options name.

    :param kind: the driver, such as ``rabbit``.
    :param brokers: the brokers, at least one if the driver is RabbitMQ's, else none.
    """

    kind: str
    brokers: tuple[Broker, ...]


def configured(conf: cfg.ConfigOpts) -> Bus:
    """Return the bus of a configuration, without connecting to it.

    :raises ValueError: the bus cannot be used; the message says what to do and has no password.
    """
    try:
        transport = oslo_messaging.get_notification_transport(conf)
        url = TransportURL.parse(conf, conf.oslo_messaging_notifications.transport_url)
    except (oslo_messaging.MessagingException, ValueError) as error:
        # Some of these errors quote the URL, which holds the broker's password.
        raise ValueError(
            kafka.why_not_loaded(error)
            or f"the bus's URL cannot be used ({type(error).__name__}): check [DEFAULT]"
            " transport_url and [oslo_messaging_notifications] transport_url in glance-api.conf"
        ) from None
    if reason := kafka.why_unusable(url):
        raise ValueError(reason)
    if url.transport not in _KINDS:
        return Bus(url.transport, ())
    hosts = url.hosts or [TransportHost("localhost")]
    options = transport.conf[GROUP]
    return Bus(url.transport, tuple(Broker(host, url.virtual_host, options) for host in hosts))


def consumers_of_an_agent(listener: cfg.ConfigOpts.GroupAttr) -> Counter[str]:
    """Return how many consumers an agent has on each queue that it reads.

    oslo.messaging makes one consumer for each topic, and with a pool all of them read one queue.

    :param listener: ``[listener]``.
    """
    return Counter(listener.pool or f"{topic}.{PRIORITY}" for topic in listener.topics)


@contextmanager
def connection(broker: Broker) -> Iterator[Connection]:
    """Connect to a broker; each step of the connection and each request may take 5 seconds.

    :raises AMQPError: the broker refuses; see :data:`ERRORS` for the others.
    """
    host, options = broker.host, broker.options
    connected = Connection(
        str(broker),
        userid=host.username or "guest",
        password=host.password or "guest",
        virtual_host=broker.virtual_host or "/",
        ssl=_tls(options),
        login_method=options.rabbit_login_method,
        connect_timeout=_SECONDS,
        read_timeout=_SECONDS,
        write_timeout=_SECONDS,
        heartbeat=_HEARTBEAT_SECONDS,
        client_properties={"connection_name": "evscrub"},
    )
    try:
        connected.connect()
        yield connected
    except BaseException:
        # Closing in good order would wait for a broker that may not answer.
        connected.collect()
        raise
    connected.close()


@contextmanager
def channel(connected: Connection) -> Iterator[Any]:
    """Open a channel for one request, because RabbitMQ closes it when it refuses."""
    opened = connected.channel()
    yield opened
    # After an error the broker has closed it already, or does not answer.
    opened.close()


def reason(error: Exception) -> str:
    """Return what the broker or the socket reported, which never includes a password."""
    said = getattr(error, "reply_text", None) or getattr(error, "strerror", None)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _tls(options: cfg.ConfigOpts.GroupAttr) -> bool | dict[str, Any]:
    if not options.ssl:
        return False
    settings: dict[str, Any] = {}
    if options.ssl_key_file:
        settings["keyfile"] = options.ssl_key_file
    if options.ssl_cert_file:
        settings["certfile"] = options.ssl_cert_file
    if options.ssl_ca_file:
        settings |= {"ca_certs": options.ssl_ca_file, "cert_reqs": ssl.CERT_REQUIRED}
    return settings or True
