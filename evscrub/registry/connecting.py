# SPDX-License-Identifier: Apache-2.0
"""How to connect: which drivers evscrub knows, and the time-outs that each of them is given.

A server that is frozen, or a network that swallows what is sent, answers nothing and hangs nothing
up. Without time-outs a driver waits for that for ever.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from evscrub.registry import watchdog

#: Seconds that a connection may take. PyMySQL's default, and above any healthy network's.
CONNECT_SECONDS = 10
#: Seconds that a statement may go unanswered. The longest of evscrub's own read on through a part
#: of the registry: on one of a million images the slowest takes a few seconds. Row locks of MySQL
#: end after 50 s (innodb_lock_wait_timeout).
ANSWER_SECONDS = 60
_MIN_ANSWER_SECONDS = 5


def answer_seconds(lease_seconds: float) -> int:
    """Return how long a statement may go unanswered where claims must not run out meanwhile.

    :param lease_seconds: ``[scrubber] claim_timeout``.
    """
    return int(min(ANSWER_SECONDS, max(_MIN_ANSWER_SECONDS, lease_seconds / 2)))


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that evscrub knows.

    :param connect: names of its option for connecting; the first one is set.
    :param answer: names of its options for reading and writing.
    :param watched: connects such that each wait for an answer is bounded, where the driver has no
        option for that.
    """

    connect: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    watched: Callable[..., Any] | None = None


#: By SQLAlchemy's names. SQLite's driver waits 5 s for a lock by itself.
_DRIVERS = {
    ("mysql", "pymysql"): Driver(("connect_timeout",), ("read_timeout", "write_timeout")),
    ("mysql", "mysqldb"): Driver(("connect_timeout",), ("read_timeout", "write_timeout")),
    ("mysql", "mysqlconnector"): Driver(
        ("connection_timeout", "connect_timeout"), ("read_timeout", "write_timeout")
    ),
    ("postgresql", "psycopg2"): Driver(("connect_timeout",), watched=watchdog.connect_psycopg2),
    ("postgresql", "psycopg"): Driver(("connect_timeout",), watched=watchdog.connect_psycopg),
    ("sqlite", "pysqlite"): Driver(),
}
_SPELLINGS = "mysql+pymysql://, postgresql+psycopg2:// or sqlite://"


def read_url(connection: str) -> sa.URL:
    """Read a database's URL.

    SQLAlchemy's dialect ``mariadb`` is ``mysql`` with a check of the server, but oslo.db and
    Glance look for that name: such a URL is read as one of ``mysql``, with the same driver.

    :raises ValueError: evscrub does not work with this database or this driver.
    :raises sa.exc.ArgumentError: it is no URL.
    """
    url = sa.make_url(connection)
    family, plus, driver = url.drivername.partition("+")
    if family == "mariadb":
        url = url.set(drivername=f"mysql{plus}{driver}")
    _driver_of(url, connection.partition("://")[0])
    return url


def driver_of(url: sa.URL) -> Driver:
    """Return what is known of a URL's driver.

    :raises ValueError: nothing is.
    """
    return _driver_of(url, url.drivername)


def _driver_of(url: sa.URL, written: str) -> Driver:
    """Return what is known of a URL's driver.

    :param written: how the operator wrote it.
    :raises ValueError: nothing is.
    """
    try:
        dialect = url.get_dialect()
    except sa.exc.NoSuchModuleError:
        dialect = None
    known = _DRIVERS.get((dialect.name, dialect.driver)) if dialect is not None else None
    if known is None or dialect is None or dialect.is_async:
        raise ValueError(
            f"[database] connection begins with {written}://, which evscrub does not know:"
            f" write {_SPELLINGS}, in evscrub.conf where Glance itself uses another driver"
        )
    return known


def limit(engine: sa.Engine, seconds: int) -> None:
    """Give an engine's new connections time-outs, where its URL has none of its own.

    :param seconds: that a statement may go unanswered, at least 1.
    """
    driver = driver_of(engine.url)

    def connect(
        _dialect: object,
        _record: object,
        arguments: list[Any],
        options: MutableMapping[str, Any],
    ) -> object:
        if driver.connect and not any(name in options for name in driver.connect):
            options[driver.connect[0]] = CONNECT_SECONDS
        for name in driver.answer:
            options.setdefault(name, seconds)
        # None lets SQLAlchemy connect.
        return driver.watched(seconds, *arguments, **options) if driver.watched else None

    sa.event.listen(engine, "do_connect", connect)
