# SPDX-License-Identifier: Apache-2.0
"""What the checks look at, and what they learn on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oslo_config import cfg
from oslo_messaging import TransportHost, TransportURL

from evscrub.checks.report import NotCheckedError
from evscrub.domain.address import Address
from evscrub.registry.database import Database
from evscrub.stores.backends import Stores


@dataclass
class Bus:
    """A RabbitMQ that answers.

    :param options: ``[oslo_messaging_rabbit]``, as the transport's URL may change it.
    """

    url: TransportURL
    host: TransportHost
    options: cfg.ConfigOpts.GroupAttr


@dataclass
class Subject:
    """A deployment.

    :param conf: the whole configuration; must be ``cfg.CONF``.
    :param agents: the status ports of agents to ask; none for that of the configuration.
    """

    conf: cfg.ConfigOpts
    agents: Sequence[Address] = ()
    bus: Bus | None = None
    _database: Database | None = field(default=None, repr=False)
    _stores: Stores | None = field(default=None, repr=False)
    schema_known: bool = False

    def reach(self, database: Database) -> None:
        """Keep a database that answers."""
        self._database = database

    def lose(self) -> None:
        """Take in that the database stopped answering."""
        self._database = None

    def load(self, stores: Stores) -> None:
        """Keep stores that loaded."""
        self._stores = stores

    @property
    def database(self) -> Database:
        """The database.

        :raises NotCheckedError: it cannot be reached.
        """
        if self._database is None:
            raise NotCheckedError("the database cannot be reached")
        return self._database

    @property
    def registry(self) -> Database:
        """The database, with Glance's tables in it.

        :raises NotCheckedError: it cannot be reached, or is not Glance's.
        """
        database = self.database
        if not self.schema_known:
            raise NotCheckedError("the database does not have the tables that evscrub needs")
        return database

    @property
    def stores(self) -> Stores:
        """The stores.

        :raises NotCheckedError: none was loaded.
        """
        if self._stores is None:
            raise NotCheckedError("the stores were not loaded")
        return self._stores
