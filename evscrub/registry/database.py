# SPDX-License-Identifier: Apache-2.0
"""Connections to the registry, through oslo.db as Glance itself connects."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
import tenacity
from oslo_config import cfg
from oslo_db import exception as db_exception
from oslo_db import options as db_options
from oslo_db.sqlalchemy import enginefacade, exc_filters

from evscrub.registry import connecting
from evscrub.registry.errors import Sort, explain, is_read_only, sort
from evscrub.registry.tables import images, metadata, utc_now

P = ParamSpec("P")
R = TypeVar("R")

#: What says that the database is away or refuses, after the retries here.
UNAVAILABLE = (db_exception.DBError, sa.exc.SQLAlchemyError)

_RETRIES = 5
#: A statement that ran into its time-out is not tried again: its caller decides about more waiting.
_RETRY_SECONDS = 10.0
_PROBE_SECONDS = 10.0
#: A server that takes no changes refuses it, and SQLite locks its file for it.
_CHANGE_OF_NO_ROW = sa.update(images).where(sa.false()).values(status=images.c.status)


def retried(method: Callable[P, R]) -> Callable[P, R]:
    """Run a transaction again after a conflict or a lost connection.

    Up to five times, and not when ten seconds have passed. Only for methods that may run twice:
    those here compare before they set. oslo.db's own decorator has no limit of time, and logs a
    traceback for each error that it hands on.
    """

    @functools.wraps(method)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        return _RETRYING(method, *arguments, **named)

    return call


_RETRYING = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(
        (db_exception.DBDeadlock, db_exception.DBConnectionError)
    ),
    stop=tenacity.stop_after_attempt(_RETRIES + 1) | tenacity.stop_after_delay(_RETRY_SECONDS),
    wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
    reraise=True,
)


class Database:
    """An engine on Glance's database.

    :param conf: holds ``[database]``, as Glance's own configuration does.
    :param answer_seconds: how long a statement may go unanswered, at least 1, where the URL does
        not say it itself.
    :raises ValueError: ``[database] connection`` is not set or cannot be understood.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, *, answer_seconds: int = connecting.ANSWER_SECONDS
    ) -> None:
        conf.register_opts(db_options.database_opts, "database")
        if not conf.database.connection:
            raise ValueError(
                "[database] connection is not set: evscrub needs Glance's database, so name"
                " glance-api.conf in [DEFAULT] glance_config_files or set it in evscrub.conf"
            )
        self.engine = _make_engine(conf)
        connecting.limit(self.engine, answer_seconds)
        # Before oslo.db's own, which goes by words and knows few errors.
        sa.event.remove(self.engine, "handle_error", exc_filters.handler)
        for handler in (_sort_error, exc_filters.handler):
            sa.event.listen(self.engine, "handle_error", handler, retval=True)
        if self.engine.dialect.name == "mysql":
            # Without it a claim locks the gaps around its rows and holds up Glance's inserts.
            sa.event.listen(self.engine, "connect", _read_committed)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction that may write; locks the whole database on SQLite, which has no rows'."""
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.execute(_CHANGE_OF_NO_ROW)
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

    def try_to_write(self) -> None:
        """Change no row, to see whether the server takes changes.

        :raises UNAVAILABLE: it takes none, or does not answer.
        """
        with self.reading() as connection:
            connection.execute(_CHANGE_OF_NO_ROW)

    def reach(self, seconds: float = _PROBE_SECONDS) -> datetime:
        """Ask for the database's clock, and give up where a connection or its answer takes long.

        :param seconds: how long it may take; the driver's time-outs are longer.
        :raises UNAVAILABLE: it cannot be reached, or did not answer in time.
        """
        answers: list[datetime] = []
        errors: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(self.now())
            except Exception as error:  # noqa: BLE001 - it is raised below
                errors.append(error)

        thread = threading.Thread(target=ask, name="probe", daemon=True)
        thread.start()
        thread.join(seconds)
        if errors:
            raise errors[0]
        if not answers:
            raise db_exception.DBConnectionError(f"it has not answered for {seconds:g} s")
        return answers[0]

    def probe(self) -> None:
        """See that the database answers and is Glance's.

        :raises ValueError: it is not; the message says what to do.
        """
        try:
            self.reach()
            with self.reading() as connection:
                for table in metadata.sorted_tables:
                    connection.execute(sa.select(table).limit(0))
        except UNAVAILABLE as error:
            raise ValueError(f"Glance's database cannot be used: {explain(error)}") from None

    def dispose(self) -> None:
        """Close idle connections; those in use are closed when they come back."""
        self.engine.dispose()


def is_away(error: Exception) -> bool:
    """Return whether an error of :data:`UNAVAILABLE` says that no answer is to be had at all."""
    return isinstance(error, db_exception.DBConnectionError) and not is_read_only(error)


def read_now(connection: sa.Connection) -> datetime:
    """The database's clock, naive UTC."""
    now = connection.execute(sa.select(utc_now())).scalar_one()
    assert isinstance(now, datetime)  # noqa: S101 - narrows the type
    return now


def _read_committed(dbapi_connection: Any, _record: Any) -> None:  # noqa: ANN401 - the driver's
    cursor = dbapi_connection.cursor()
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.close()


def _make_engine(conf: cfg.ConfigOpts) -> sa.Engine:
    options = conf.database
    facade = enginefacade.transaction_context()
    try:
        url = connecting.read_url(options.connection)
        facade.configure(
            connection=url.render_as_string(hide_password=False),
            connection_parameters=options.connection_parameters,
            max_pool_size=options.max_pool_size,
            max_overflow=options.max_overflow,
            connection_recycle_time=options.connection_recycle_time,
            mysql_sql_mode=options.mysql_sql_mode,
            sqlite_fk=False,
            # Who is to retry is the caller; an agent starts without its database.
            max_retries=0,
        )
        engine: sa.Engine = facade.writer.get_engine()
    except (sa.exc.ArgumentError, ValueError) as error:
        if str(error).startswith("[database]"):
            raise
        # It quotes the URL, password and all.
        raise ValueError("[database] connection is not a URL that SQLAlchemy knows") from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f"[database] connection needs the Python module {error.name}, which is not installed:"
            " install it, or let the URL begin with mysql+pymysql:// or postgresql+psycopg2://,"
            " whose modules come with the extras mysql and postgresql of evscrub"
        ) from None
    return engine


def _sort_error(context: sa.engine.ExceptionContext) -> None:
    """Tell SQLAlchemy and oslo.db what an error means for its transaction.

    :raises DBDeadlock: the transaction may be run again on this connection.
    """
    match sort(context.original_exception, context.dialect.name):
        case Sort.LOST:
            # SQLAlchemy drops the connection and all idle ones, oslo.db makes it DBConnectionError.
            context.is_disconnect = True
        case Sort.CONFLICT:
            raise db_exception.DBDeadlock(context.sqlalchemy_exception)
