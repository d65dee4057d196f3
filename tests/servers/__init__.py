# SPDX-License-Identifier: Apache-2.0
"""Real servers of the bus, databases and groups for the tests, in temporary folders.

Own code, because pifpaf falls short here: its PostgreSQL does not start for root, its
MariaDB has no TCP port, and none of its servers can be stopped and started again with its
data and its port, which is what the tests of lost connections are about.
"""

from tests.servers.base import Server, free_port, is_open, wait_until
from tests.servers.coordinators import COORDINATORS, CoordinatorServer, Etcd, Memcached, Redis
from tests.servers.databases import DatabaseServer, MariaDB, PostgreSQL
from tests.servers.galera import Galera, GaleraNode
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import RabbitMQ

__all__ = [
    "COORDINATORS",
    "CoordinatorServer",
    "DatabaseServer",
    "Etcd",
    "Galera",
    "GaleraNode",
    "MariaDB",
    "Memcached",
    "PostgreSQL",
    "Proxy",
    "RabbitMQ",
    "Redis",
    "Server",
    "free_port",
    "is_open",
    "wait_until",
]
