# SPDX-License-Identifier: Apache-2.0
"""The deployment that the checks examine, and what they find out about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oslo_config import cfg

from evscrub.checks.report import NotCheckedError
from evscrub.domain.address import Address
from evscrub.intake.amqp import Broker
from evscrub.registry.database import Database
from evscrub.stores.backends import Stores


@dataclass
class Subject:
    """A deployment to check.

    :param conf: the whole configuration; must be ``cfg.CONF``.
    :param agents: status ports of the agents to ask; if empty, the configured one.
    :param broker: the first RabbitMQ of the bus that can be reached.
    """

    conf: cfg.ConfigOpts
    agents: Sequence[Address] = ()
    broker: Broker | None = None
    _database: Database | None = field(default=None, repr=False)
    _stores: Stores | None = field(default=None, repr=False)
    schema_known: bool = False

    def reach(self, database: Database) -> None:
        """Store a reachable database."""
        self._database = database

    def lose(self) -> None:
        """Record that the database stopped answering."""
        self._database = None

    def load(self, stores: Stores) -> None:
        """Store the loaded stores."""
        self._stores = stores

    @property
    def database(self) -> Database:
        """The database.

        :raises NotCheckedError: the database cannot be reached.
        """
        if self._database is None:
            raise NotCheckedError("the database cannot be reached")
        return self._database

    @property
    def registry(self) -> Database:
        """The database, with Glance's tables in it.

        :raises NotCheckedError: the database cannot be reached, or is not Glance's.
        """
        database = self.database
        if not self.schema_known:
            raise NotCheckedError("the database does not have the tables that evscrub needs")
        return database

    @property
    def stores(self) -> Stores:
        """The stores.

        :raises NotCheckedError: the stores were not loaded.
        """
        if self._stores is None:
            raise NotCheckedError("the stores were not loaded")
        return self._stores
