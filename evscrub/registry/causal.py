# SPDX-License-Identifier: Apache-2.0
"""Read everything that was committed before the read, on whichever node it was committed.

Nodes of a cluster and replicas behind a proxy apply the commits of other nodes with a delay.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from evscrub.domain.refusals import UnavailableError
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.errors import explain
from evscrub.registry.tables import image_locations

#: Galera's wsrep_sync_wait, a bit mask: wait before reads (1) and before UPDATE and DELETE (2).
_READS_AND_UPDATES = 3


@contextmanager
def caught_up(database: Database) -> Iterator[sa.Connection]:
    """Open a transaction that reads everything that was committed before it began.

    It begins with an UPDATE of no row. A proxy that sends reads to replicas sends the UPDATE, and
    with it the whole transaction, to the primary; a replica rejects it. A Galera node first applies
    what other nodes have committed, and fails if that takes too long (repl.causal_read_timeout).

    :raises oslo_db.exception.DBError: the node cannot catch up, or rejects writes.
    """
    if database.engine.dialect.name == "sqlite":  # a single file: no replication
        with database.reading() as connection:
            yield connection
        return
    with database.reading() as connection:
        galera = database.engine.dialect.name == "mysql" and _is_galera(connection)
        if galera:
            connection.execute(sa.text(f"SET SESSION wsrep_sync_wait = {_READS_AND_UPDATES}"))
        try:
            connection.execute(
                sa.update(image_locations).where(sa.false()).values(status=image_locations.c.status)
            )
            yield connection
        except BaseException:
            if galera:
                connection.invalidate()  # the session setting could not be reset
            raise
        if galera:
            connection.execute(sa.text("SET SESSION wsrep_sync_wait = DEFAULT"))


def _is_galera(connection: sa.Connection) -> bool:
    """Return whether the server is a node of a Galera cluster; cached with the connection."""
    known = connection.info.get(__name__)
    if known is None:
        value = connection.execute(sa.text("SHOW VARIABLES LIKE 'wsrep_on'")).first()
        known = connection.info[__name__] = value is not None and value[1] == "ON"
    return bool(known)


def may_have_several_nodes(database: Database) -> bool:
    """Return whether the next connection may reach another node, by what the database reports.

    :raises UnavailableError: the database does not answer; the message says what to do.
    """
    if isinstance(database.engine.url.query.get("host"), tuple):  # several, for PostgreSQL
        return True
    if database.engine.dialect.name != "mysql":
        return False
    try:
        with database.reading() as connection:
            group = connection.execute(
                sa.text("SHOW VARIABLES LIKE 'group_replication_group_name'")
            ).first()
            return _is_galera(connection) or bool(group and group[1])
    except UNAVAILABLE as error:
        raise UnavailableError(f"Glance's database cannot be used: {explain(error)}") from None
