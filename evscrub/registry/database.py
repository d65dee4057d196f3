# SPDX-License-Identifier: Apache-2.0
"""Connections to the registry, through oslo.db as Glance itself connects."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exception
from oslo_db import options as db_options
from oslo_db.sqlalchemy import enginefacade

from evscrub.redact import redact
from evscrub.registry.tables import images, metadata, utc_now

P = ParamSpec("P")
R = TypeVar("R")

#: What says that the database is away or refuses, after oslo.db's own retries.
UNAVAILABLE = (db_exception.DBError, sa.exc.SQLAlchemyError)


def retried(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
    """Run a transaction again after a deadlock or a lost connection.

    Only for methods that may run twice: those here compare before they set.
    """
    wrapped: Callable[Concatenate[Any, P], R] = oslo_db_api.wrap_db_retry(
        max_retries=5,
        retry_interval=0.1,
        inc_retry_interval=True,
        max_retry_interval=2,
        jitter=True,
        retry_on_deadlock=True,
        retry_on_disconnect=True,
    )(method)
    return functools.wraps(method)(wrapped)


class Database:
    """An engine on Glance's database.

    :param conf: holds ``[database]``, as Glance's own configuration does.
    :raises ValueError: ``[database] connection`` is not set or cannot be understood.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(db_options.database_opts, "database")
        if not conf.database.connection:
            raise ValueError(
                "[database] connection is not set: evscrub needs Glance's database, so name"
                " glance-api.conf in [DEFAULT] glance_config_files or set it in evscrub.conf"
            )
        facade = enginefacade.transaction_context()
        facade.configure(
            connection=conf.database.connection,
            max_pool_size=conf.database.max_pool_size,
            max_overflow=conf.database.max_overflow,
            connection_recycle_time=conf.database.connection_recycle_time,
            mysql_sql_mode=conf.database.mysql_sql_mode,
            sqlite_fk=False,
            # Who is to retry is the caller; an agent starts without its database.
            max_retries=0,
        )
        try:
            self.engine: sa.Engine = facade.writer.get_engine()
        except sa.exc.NoSuchModuleError as error:
            raise ValueError(f"[database] connection: {error}") from None
        except (sa.exc.ArgumentError, ValueError):  # which quote it, password and all
            raise ValueError("[database] connection is not a URL that SQLAlchemy knows") from None
        except ModuleNotFoundError as error:
            raise ValueError(
                f"[database] connection needs the Python module {error.name}, which is not"
                " installed: see the extras mysql and postgresql of evscrub"
            ) from None
        if self.engine.dialect.name == "mysql":
            # Without it a claim locks the gaps around its rows and holds up Glance's inserts.
            sa.event.listen(self.engine, "connect", _read_committed)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction that may write; locks the whole database on SQLite, which has no rows'."""
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.execute(
                    sa.update(images).where(sa.false()).values(status=images.c.status)
                )
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads."""
        with self.engine.begin() as connection:
            yield connection

    def now(self) -> datetime:
        """The database's clock, naive UTC."""
        with self.reading() as connection:
            return read_now(connection)

    def probe(self) -> None:
        """See that the database answers and is Glance's.

        :raises ValueError: it is not.
        """
        try:
            with self.reading() as connection:
                read_now(connection)
                for table in metadata.sorted_tables:
                    connection.execute(sa.select(table).limit(0))
        except UNAVAILABLE as error:
            cause = getattr(getattr(error, "inner_exception", error), "orig", error)
            reason = redact(" ".join(str(cause).split()))
            raise ValueError(
                f"Glance's database cannot be used: {reason}; check [database] connection, and that"
                " Glance has made its tables there"
            ) from None

    def dispose(self) -> None:
        """Close idle connections."""
        self.engine.dispose()


def read_now(connection: sa.Connection) -> datetime:
    """The database's clock, naive UTC."""
    now = connection.execute(sa.select(utc_now())).scalar_one()
    assert isinstance(now, datetime)  # noqa: S101 - narrows the type
    return now


def _read_committed(dbapi_connection: Any, _record: Any) -> None:  # noqa: ANN401 - the driver's
    cursor = dbapi_connection.cursor()
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.close()
