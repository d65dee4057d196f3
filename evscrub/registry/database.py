# SPDX-License-Identifier: Apache-2.0
"""Connect to the registry through oslo.db, as Glance does."""

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

from evscrub.domain.refusals import UnavailableError
from evscrub.registry import connecting
from evscrub.registry.errors import Sort, code_of, explain, is_read_only, sort
from evscrub.registry.tables import images, metadata, utc_now

P = ParamSpec("P")
R = TypeVar("R")

#: Exceptions of a database that is down or fails a statement, after the retries here.
UNAVAILABLE = (db_exception.DBError, sa.exc.SQLAlchemyError)

_RETRIES = 5
#: No retry starts later than this. A statement that timed out is not retried: its caller decides.
_RETRY_SECONDS = 10.0
_PROBE_SECONDS = 10.0
#: A read-only server rejects it, and SQLite locks its file for it.
_CHANGE_OF_NO_ROW = sa.update(images).where(sa.false()).values(status=images.c.status)


def retried(method: Callable[P, R]) -> Callable[P, R]:
    """Retry a transaction after a conflict or a lost connection.

    At most five times, and not after ten seconds. The method must be safe to run twice; those of
    this package compare before they set. oslo.db's own decorator has no time limit and logs a
    traceback for each error that it raises.

    :raises oslo_db.exception.DBError: the transaction failed and is not retried any more.
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
    """Connections to Glance's database.

    :param conf: contains ``[database]``, as Glance's own configuration does.
    :param answer_seconds: how long to wait for the answer to a statement, at least 1, unless the
        URL sets a timeout.
    :raises ValueError: ``[database] connection`` is not set or invalid; the message says what to
        do.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, *, answer_seconds: int = connecting.ANSWER_SECONDS
    ) -> None:
        conf.register_opts(db_options.database_opts, "database")
        if not conf.database.connection:
            read = ", ".join(conf.config_file or []) or "no file, because none was found"
            raise ValueError(
                "[database] connection is not set: evscrub needs Glance's database, so name"
                " glance-api.conf in [DEFAULT] glance_config_files of evscrub.conf, or set it"
                f" there. Read: {read}"
            )
        self.engine = _make_engine(conf)
        connecting.limit(self.engine, answer_seconds)
        # Before oslo.db's own handler, which matches messages and knows few errors.
        sa.event.remove(self.engine, "handle_error", exc_filters.handler)
        for handler in (_sort_error, _translate):
            sa.event.listen(self.engine, "handle_error", handler, retval=True)
        if self.engine.dialect.name == "mysql":
            # REPEATABLE READ would lock the gaps around claimed rows and block Glance's inserts.
            sa.event.listen(self.engine, "connect", _read_committed)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction that may write; on SQLite it locks the whole database at once."""
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                connection.execute(_CHANGE_OF_NO_ROW)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads."""
        with self.engine.begin() as connection:
            yield connection

    def now(self) -> datetime:
        """Return the database's time, naive UTC.

        :raises UNAVAILABLE: the database is down.
        """
        with self.reading() as connection:
            return read_now(connection)

    def try_to_write(self) -> None:
        """Write to no row, to check that the server accepts writes.

        :raises UNAVAILABLE: it rejects them, or does not answer.
        """
        with self.reading() as connection:
            connection.execute(_CHANGE_OF_NO_ROW)

    def reach(self) -> datetime:
        """Return the database's time, but wait no longer than 10 seconds for it.

        The driver's own timeouts for connecting and answering are longer.

        :raises UNAVAILABLE: the database cannot be reached, or did not answer in time.
        """
        answers: list[datetime] = []
        errors: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(self.now())
            except Exception as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        thread = threading.Thread(target=ask, name="probe", daemon=True)
        thread.start()
        thread.join(_PROBE_SECONDS)
        if errors:
            raise errors[0]
        if not answers:
            raise db_exception.DBConnectionError(f"it has not answered for {_PROBE_SECONDS:g} s")
        return answers[0]

    def probe(self) -> None:
        """Check that the database answers and has Glance's tables.

        :raises UnavailableError: it does not; the message says what to do.
        """
        try:
            self.reach()
            with self.reading() as connection:
                for table in metadata.sorted_tables:
                    connection.execute(sa.select(table).limit(0))
        except UNAVAILABLE as error:
            raise UnavailableError(f"Glance's database cannot be used: {explain(error)}") from None

    def dispose(self) -> None:
        """Close idle connections; those in use are closed when they are returned."""
        self.engine.dispose()


def is_away(error: Exception) -> bool:
    """Return whether an error of :data:`UNAVAILABLE` means that the database is unreachable."""
    return isinstance(error, db_exception.DBConnectionError) and not is_read_only(error)


def read_now(connection: sa.Connection) -> datetime:
    """Return the database's time, naive UTC."""
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
            # No retries here: callers retry, and an agent may start while its database is down.
            max_retries=0,
        )
        engine: sa.Engine = facade.writer.get_engine()
    except (sa.exc.ArgumentError, ValueError) as error:
        if str(error).startswith("[database]"):
            raise
        # The original message quotes the URL with its password.
        raise ValueError("[database] connection is not a URL that SQLAlchemy knows") from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f"[database] connection needs the Python module {error.name}, which is not installed:"
            " install it, or use a URL that begins with mysql+pymysql:// or postgresql+psycopg2://,"
            " whose modules the extras mysql and postgresql of evscrub install"
        ) from None
    return engine


def _sort_error(context: sa.engine.ExceptionContext) -> None:
    """Classify an error for SQLAlchemy and oslo.db.

    :raises DBDeadlock: the transaction may be retried on this connection.
    """
    match sort(context.original_exception, context.dialect.name):
        case Sort.LOST:
            # SQLAlchemy closes this and all idle connections; oslo.db raises DBConnectionError.
            context.is_disconnect = True
        case Sort.CONFLICT:
            raise db_exception.DBDeadlock(context.sqlalchemy_exception)


def _translate(context: sa.engine.ExceptionContext) -> db_exception.DBError | None:
    """Let oslo.db translate an error, except into a lost connection that its code denies.

    oslo.db looks for 2002, 2006 and other codes anywhere in the text, where they may be a part of
    a database's name or of an image's id.
    """
    was_lost = context.is_disconnect
    translated: db_exception.DBError | None = exc_filters.handler(context)
    has_code = code_of(context.original_exception) is not None
    if isinstance(translated, db_exception.DBConnectionError) and has_code and not was_lost:
        context.is_disconnect = False
        return db_exception.DBError(context.sqlalchemy_exception)
    return translated
