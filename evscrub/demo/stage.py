# SPDX-License-Identifier: Apache-2.0
"""Set up the demo: a temporary folder, an empty database, a Glance and an agent's configuration.

Everything created is removed again: the folder, the tables in a given database and, by auto-delete,
the exchange and the queue on a broker.
"""

import configparser
import logging
import shutil
import socket
import tempfile
from pathlib import Path

import oslo_messaging
import sqlalchemy as sa
from amqp.exceptions import AMQPError
from kombu.connection import Connection
from oslo_config import cfg
from oslo_log import log as oslo_log

from evscrub.config import loader, options
from evscrub.demo.glance import GlanceThread
from evscrub.demo.glance_config import GlanceConfig
from evscrub.demo.images import STORES
from evscrub.registry.tables import images
from evscrub.telemetry import log_redaction
from evscrub.telemetry.redact import redact

EMBEDDED_BUS = "kombu+memory://"
_CONNECT_SECONDS = 5
#: Long enough to watch an unannounced image wait for the sweep.
_LONGEST_SWEEP_SECONDS = 4


class Stage:
    """The surroundings of the demo: :meth:`build` sets them up, :meth:`close` removes them.

    :param scrub_time: seconds to keep deleted images.
    :param rate: deletes a second at most.
    :param transport_url: URL of the bus; None for one in memory.
    :param database_url: URL of an empty database; None for SQLite in the folder.
    :param topic: name of a topic and an exchange that nothing else on the bus uses, so that other
        consumers of a real broker are unaffected.
    :raises ConfigError: the bus or the database cannot be used.
    """

    def __init__(
        self,
        *,
        scrub_time: int,
        rate: float,
        transport_url: str | None,
        database_url: str | None,
        topic: str,
    ) -> None:
        self.scrub_time = scrub_time
        self.rate = rate
        self._sweep_seconds = max(1, min(_LONGEST_SWEEP_SECONDS, scrub_time - 1))
        bus = None if transport_url is None else _check_bus(transport_url)
        self._given_database = None if database_url is None else _check_database(database_url)
        self.folder = Path(tempfile.mkdtemp(prefix="evscrub-demo-"))
        self._topic = topic
        self.glance = GlanceConfig(
            directory=self.folder,
            port=_free_port(),
            database_url=database_url or f"sqlite:///{self.folder / 'glance.sqlite'}",
            transport_url=transport_url or EMBEDDED_BUS,
            topics=(self._topic,),
            stores=dict.fromkeys(STORES, "file"),
            extra={
                "DEFAULT": {"control_exchange": self._topic},
                "oslo_messaging_rabbit": {"amqp_auto_delete": "True", "amqp_durable_queues": "True"}
                if bus
                else {},
            },
        )
        self.bus = bus or "bus in memory"
        self.database = (
            "SQLite" if self._given_database is None else self._given_database.get_backend_name()
        )
        self._server = GlanceThread(self.glance)

    @property
    def url(self) -> str:
        """URL of Glance's API."""
        return self.glance.url

    @property
    def agent_log(self) -> Path:
        """The agent's log file, with messages of the libraries too."""
        return self.folder / "evscrub.log"

    @property
    def agent_config(self) -> Path:
        """The agent's configuration file."""
        return self.folder / "evscrub.conf"

    @property
    def has_own_database(self) -> bool:
        """Whether the database is SQLite in the folder."""
        return self._given_database is None

    def build(self) -> tuple[cfg.ConfigOpts, loader.OwnOptions]:
        """Start Glance and load the agent's configuration.

        :returns: the whole configuration and evscrub's own options, for
            :class:`evscrub.agent.Agent`.
        :raises RuntimeError: Glance could not be started.
        :raises ConfigError: the agent's configuration cannot be read.
        """
        self._write_agent_config()
        early = logging.FileHandler(self.agent_log)
        logging.getLogger().addHandler(early)
        logging.captureWarnings(True)
        self._server.start()
        if self.has_own_database:
            _queue_for_sqlite()
        # Glance and the agent share cfg.CONF. Glance starts first, because that reads only Glance's
        # file; the agent then reads both, and its definitions of the options in common replace
        # Glance's.
        cfg.CONF.clear()
        cfg.CONF.unregister_opts(options.glance_opts)
        conf, own = loader.load([str(self.agent_config)])
        quiet = ("glance_store=WARNING", "httpx=WARNING")
        oslo_log.set_defaults(default_log_levels=[*oslo_log.get_default_log_levels(), *quiet])
        loader.start_logging(own)
        log_redaction.install()
        return conf, own

    def keep_deleted(self, seconds: int) -> None:
        """Set how long images are kept once the agent has reloaded its configuration."""
        self.scrub_time = seconds
        self._write_agent_config()

    def close(self) -> None:
        """Stop Glance and remove everything created; may be called twice."""
        self._server.stop()
        try:
            if self._given_database is not None:
                _drop_glance_tables(self._given_database)
        finally:
            logging.getLogger().handlers[:] = [logging.NullHandler()]
            shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self) -> sa.Engine:
        """Return a new engine for Glance's database."""
        return sa.create_engine(self.glance.database_url)

    def log_tails(self, lines: int = 12) -> str:
        """Return the ends of both logs, without credentials."""
        said = []
        for path in (self.agent_log, self.glance.log_path):
            if path.exists():
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                said.append("\n".join([f"--- {path.name}", *tail]))
        return redact("\n".join(said))

    def _write_agent_config(self) -> None:
        ini = configparser.RawConfigParser(default_section="")
        ini.read_dict(
            {
                "DEFAULT": {
                    "glance_config_files": self.folder / "glance-api.conf",
                    "scrub_time": self.scrub_time,
                    "log_file": self.agent_log,
                },
                "listener": {"topics": self._topic, "exchange": self._topic},
                "status": {"listen": "none"},
                "scrubber": {"rate": self.rate, "concurrency": 4},
                "sweep": {"interval": self._sweep_seconds},
            }
        )
        with self.agent_config.open("w") as file:
            ini.write(file)


def _queue_for_sqlite() -> None:
    """Make Glance's transactions take SQLite's single write lock at their begin, and wait for it.

    Otherwise a transaction that reads before it writes fails if another has written meanwhile; a
    database server does not have this limitation.
    """
    # Imported here, because importing Glance registers options and takes a second.
    from glance.db.sqlalchemy import api

    sa.event.listen(api.get_engine(), "begin", _lock)


def _lock(connection: sa.Connection) -> None:
    connection.execute(sa.update(images).where(sa.false()).values(status=images.c.status))


def _check_bus(url: str) -> str | None:
    """Return a description of a broker that accepts the login; None for a bus in memory.

    :raises ConfigError: the URL is invalid, or no broker accepts the login.
    """
    try:
        parsed = oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), url)
    except (oslo_messaging.MessagingException, ValueError):
        raise loader.ConfigError("--transport-url is not a URL of oslo.messaging's form") from None
    if url.startswith(EMBEDDED_BUS):
        return None
    if parsed.transport != "rabbit" or not parsed.hosts:
        raise loader.ConfigError("--transport-url must be rabbit://USER:PASSWORD@HOST:PORT/VHOST")
    for host in parsed.hosts:
        name = f"{host.hostname}:{host.port or 5672}"
        try:
            _connect_to_broker(host, parsed.virtual_host)
        except (OSError, AMQPError) as error:
            trouble = f"{name}: {_first_line(error)}"
        else:
            return f"RabbitMQ at {name}"
    raise loader.ConfigError(f"--transport-url: no broker accepts the connection: {trouble}")


def _connect_to_broker(host: oslo_messaging.TransportHost, virtual_host: str | None) -> None:
    connection = Connection(
        hostname=host.hostname,
        port=host.port or 5672,
        userid=host.username or "guest",
        password=host.password or "guest",
        virtual_host=virtual_host or "/",
        connect_timeout=_CONNECT_SECONDS,
    )
    try:
        connection.connect()
    finally:
        connection.release()


def _check_database(given: str) -> sa.URL:
    """Return the URL of a database that answers and is empty.

    :raises ConfigError: the URL is invalid, or the database does not answer or is not empty.
    """
    try:
        url = sa.make_url(given)
        if url.get_backend_name() == "sqlite":
            raise loader.ConfigError("--database is for a server; without it the demo uses SQLite")
        if not url.database:
            raise loader.ConfigError("--database names no database: end the URL with /NAME")
        tables = _tables(url)
    except ModuleNotFoundError as error:
        raise loader.ConfigError(
            f"--database needs the Python module {error.name}: see the extras mysql and postgresql"
            " of evscrub"
        ) from None
    except sa.exc.DBAPIError as error:
        raise loader.ConfigError(
            f"--database {url.render_as_string()} cannot be used: {_first_line(error.orig)}"
        ) from None
    except sa.exc.SQLAlchemyError:  # its text quotes the URL with the password
        raise loader.ConfigError(
            "--database must be a URL of SQLAlchemy's form, such as"
            " mysql+pymysql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if tables:
        raise loader.ConfigError(
            f"--database {url.render_as_string()} is not empty: the demo needs an empty"
            " database, and drops the tables that it creates at the end"
        )
    return url


def _tables(url: sa.URL) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    inspector = sa.inspect(engine)
    return {*inspector.get_table_names(), *inspector.get_view_names()}


def _drop_glance_tables(url: sa.URL) -> None:
    """Drop Glance's tables from a database that was empty before the demo."""
    # Imported here, because importing Glance registers options and takes a second.
    from glance.db.sqlalchemy import models, models_metadef

    known = {"alembic_version", *models.BASE.metadata.tables}
    known |= {*models_metadef.BASE_DICT.metadata.tables}
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found = sa.MetaData()
    found.reflect(engine, only=sorted(known & _tables(url)))
    found.drop_all(engine)


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
