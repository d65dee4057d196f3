# SPDX-License-Identifier: Apache-2.0
"""Find the nodes of a database cluster and compare their clocks."""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from evscrub.domain.address import Address
from evscrub.domain.clock import epoch
from evscrub.registry.database import UNAVAILABLE, Database, read_now

_PORTS = {"mysql": 3306, "postgresql": 5432}
_CONNECT_SECONDS = 5
_READINGS = 3
#: ``host:port``, ``[host]:port`` or a host alone, as in Galera's status and connection URLs.
_ADDRESS = re.compile(r"(?:\[(?P<six>[^]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?").fullmatch


@dataclass(frozen=True, slots=True)
class NodeClock:
    """Bounds of how far a node's clock is ahead of this host's clock since boot, in seconds.

    Only differences between nodes are meaningful, because the two clocks have different epochs.
    """

    address: Address
    lowest: float
    highest: float


def addresses(database: Database) -> list[Address]:
    """Return the nodes that the connection URL and the cluster's own status name.

    :raises oslo_db.exception.DBError: the database does not answer.
    """
    url = database.engine.url
    default = url.port or _PORTS.get(database.engine.dialect.name, 0)
    hosts = url.query.get("host", ())
    texts = [
        text for one in ((hosts,) if isinstance(hosts, str) else hosts) for text in one.split(",")
    ]
    found = list(parse(texts, default))
    if url.host:
        found += _resolve(url.host, default)
    if database.engine.dialect.name == "mysql":
        found += parse(_cluster_members(database), default)
    return sorted({Address(_numeric(host), port) for host, port in found})


def parse(texts: Iterable[str], default_port: int) -> Iterator[Address]:
    """Yield the valid addresses among texts.

    Galera reports AUTO for a node that does not know its own address.
    """
    for text in texts:
        found = _ADDRESS(text.strip())
        if found is not None and text.strip() != "AUTO":
            port = int(found["port"] or default_port)
            if 0 < port < 2**16:
                yield Address(found["six"] or found["host"], port)


def read_clock(database: Database, address: Address, boot: Callable[[], float]) -> NodeClock | None:
    """Read the clock of a node as the user of the connection URL.

    :param boot: returns seconds since boot.
    :returns: None if the node cannot be reached.
    """
    host, port = address
    query = {name: value for name, value in database.engine.url.query.items() if name != "host"}
    url = database.engine.url.set(host=host, port=port, query=query)
    engine = sa.create_engine(
        url, poolclass=NullPool, connect_args={"connect_timeout": _CONNECT_SECONDS}
    )
    bounds = []
    try:
        with engine.connect() as connection:
            for _ in range(_READINGS):
                asked = boot()
                value = epoch(read_now(connection))
                bounds.append((value - boot(), value - asked))
    except (*UNAVAILABLE, OSError, TypeError):  # TypeError: the driver has no such option
        return None
    return NodeClock(address, max(low for low, _ in bounds), min(high for _, high in bounds))


def apart(clocks: Sequence[NodeClock]) -> tuple[float, float]:
    """Return the least and the greatest possible difference between any two clocks, in seconds."""
    highest_low = max(clock.lowest for clock in clocks)
    lowest_high = min(clock.highest for clock in clocks)
    most = max(clock.highest for clock in clocks) - min(clock.lowest for clock in clocks)
    return max(0.0, highest_low - lowest_high), most


def _cluster_members(database: Database) -> list[str]:
    """Return the addresses of the nodes of a Galera cluster or a replication group."""
    with database.reading() as connection:
        row = connection.execute(sa.text("SHOW STATUS LIKE 'wsrep_incoming_addresses'")).first()
    members = str(row[1]).split(",") if row else []
    with suppress(*UNAVAILABLE), database.reading() as connection:
        query = "SELECT MEMBER_HOST, MEMBER_PORT FROM performance_schema.replication_group_members"
        members += [f"{host}:{port}" for host, port in connection.execute(sa.text(query)) if host]
    return members


def _resolve(host: str, port: int) -> list[Address]:
    """Return every address of a host; the host itself if it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return [Address(host, port)]
    return [Address(str(address[0]), port) for *_, address in found]


def _numeric(host: str) -> str:
    """Return the address of a host that has exactly one, to unify names; else its name."""
    found = {address for address, _ in _resolve(host, 0)}
    return found.pop() if len(found) == 1 else host
