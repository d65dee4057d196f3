# SPDX-License-Identifier: Apache-2.0
"""Real RabbitMQ, MariaDB, Galera and PostgreSQL servers for the tests, in temporary folders.

Own code, because pifpaf falls short here: its PostgreSQL does not start for root, its
MariaDB has no TCP port, and none of its servers can be stopped and started again with its
data and its port, which is what the tests of lost connections are about.
"""

from tests.servers.base import Server, free_port, is_open, wait_until
from tests.servers.databases import DatabaseServer, MariaDB, PostgreSQL
from tests.servers.galera import Galera, GaleraNode
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import RabbitMQ

__all__ = [
    "DatabaseServer",
    "Galera",
    "GaleraNode",
    "MariaDB",
    "PostgreSQL",
    "Proxy",
    "RabbitMQ",
    "Server",
    "free_port",
    "is_open",
    "wait_until",
]
