# SPDX-License-Identifier: Apache-2.0
"""Say why a bus on Kafka cannot be used, where oslo.messaging's driver would not.

The driver accepts URLs by which no notification ever arrives. The facts are from its
``oslo_messaging/_drivers/impl_kafka.py``.
"""

from importlib.util import find_spec

from oslo_messaging import DriverLoadFailure, TransportURL

SCHEME = "kafka"
DEFAULT_PORT = 9092
_CLIENT = "confluent_kafka"


def why_not_loaded(error: Exception) -> str | None:
    """Return what the driver lacks, by what oslo.messaging raised; None for another cause."""
    is_kafka = isinstance(error, DriverLoadFailure) and error.driver == SCHEME
    if not is_kafka or find_spec(_CLIENT) is not None:
        return None
    return f"the message bus on Kafka needs the Python module {_CLIENT}: install 'evscrub[kafka]'"


def why_unusable(url: TransportURL) -> str | None:
    """Return what is wrong with the URL of a bus on Kafka, without credentials.

    :returns: None if nothing is, or if the bus is not on Kafka.
    """
    if url.transport != SCHEME:
        return None
    if not url.hosts:
        return f"the transport_url of Kafka names no broker: write kafka://HOST:{DEFAULT_PORT}"
    if unnamed := [host.hostname for host in url.hosts if not host.port]:
        return (  # the driver would connect to a port named None
            f"the transport_url of Kafka names no port for {', '.join(map(str, unnamed))}: write"
            f" each broker as HOST:PORT, such as {unnamed[0]}:{DEFAULT_PORT}"
        )
    if url.virtual_host:
        return (
            "the transport_url of Kafka ends with a virtual host, with which oslo.messaging listens"
            " to other topics than it publishes to: remove what follows the / after the brokers, in"
            " glance-api.conf too"
        )
    return None
