# SPDX-License-Identifier: Apache-2.0
"""Where the demo plays: a temporary folder, an empty database, a Glance and the configuration.

Whatever it makes it also removes: the folder, the tables in a database that it was given, and on a
broker, by auto-delete, its own exchange and queue.
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
from evscrub.telemetry import redact

EMBEDDED_BUS = "kombu+memory://"
_CONNECT_SECONDS = 5
#: Long enough to see an image that the bus did not bring wait for the sweep.
_LONGEST_SWEEP_SECONDS = 4


class Stage:
    """A stage, which :meth:`build` sets up and :meth:`close` takes down.

    :param scrub_time: seconds that deleted images are kept.
    :param rate: deletes a second at most.
    :param transport_url: the bus; None is one within this process.
    :param database_url: an empty database; None is SQLite in the folder.
    :param topic: the name of a topic and an exchange that nothing else on the bus uses, so that a
        real broker's listeners hear nothing of this.
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
        """Where Glance's API is."""
        return self.glance.url

    @property
    def agent_log(self) -> Path:
        """The agent's log file, which has what the libraries say too."""
        return self.folder / "evscrub.log"

    @property
    def agent_config(self) -> Path:
        """The agent's configuration file."""
        return self.folder / "evscrub.conf"

    @property
    def has_own_database(self) -> bool:
        """Whether the database is SQLite in the folder."""
        return self._given_database is None

    def build(self) -> tuple[cfg.ConfigOpts, cfg.ConfigOpts]:
        """Start Glance and read the agent's configuration.

        :returns: what :class:`evscrub.agent.Agent` takes.
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
        # Glance and the agent share cfg.CONF. Glance is first, because its start reads its own file
        # alone; the agent then reads both, and its definitions of the options that they have in
        # common take the place of Glance's.
        cfg.CONF.clear()
        cfg.CONF.unregister_opts(options.glance_opts)
        conf, own = loader.load([str(self.agent_config)])
        quiet = ("glance_store=WARNING", "httpx=WARNING")
        oslo_log.set_defaults(default_log_levels=[*oslo_log.get_default_log_levels(), *quiet])
        loader.start_logging(own)
        redact.install()
        return conf, own

    def keep_deleted(self, seconds: int) -> None:
        """Let images be kept so long from when the agent reads its configuration again."""
        self.scrub_time = seconds
        self._write_agent_config()

    def close(self) -> None:
        """Stop Glance and remove what was made; may be called twice."""
        self._server.stop()
        try:
            if self._given_database is not None:
                _drop_glance_tables(self._given_database)
        finally:
            logging.getLogger().handlers[:] = [logging.NullHandler()]
            shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self) -> sa.Engine:
        """Return an engine of its own on Glance's database."""
        return sa.create_engine(self.glance.database_url)

    def log_tails(self, lines: int = 12) -> str:
        """Return the ends of both logs, without credentials."""
        said = []
        for path in (self.agent_log, self.glance.log_path):
            if path.exists():
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                said.append("\n".join([f"--- {path.name}", *tail]))
        return redact.redact("\n".join(said))

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
    """Let Glance's transactions take SQLite's one write lock at once, and wait for it.

    One that reads before it writes fails otherwise when another has written meanwhile; a database
    server has no such trouble.
    """
    # Imported here, because importing Glance registers options and takes a second.
    from glance.db.sqlalchemy import api

    sa.event.listen(api.get_engine(), "begin", _lock)


def _lock(connection: sa.Connection) -> None:
    connection.execute(sa.update(images).where(sa.false()).values(status=images.c.status))


def _check_bus(url: str) -> str | None:
    """Say what to call a broker that lets us in; None is one within this process."""
    try:
        parsed = oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), url)
    except (oslo_messaging.MessagingException, ValueError):
        raise loader.ConfigError("--transport-url is not a URL of oslo.messaging's") from None
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
    raise loader.ConfigError(f"--transport-url: no broker lets us in: {trouble}")


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
    """See that a database answers and is empty."""
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
    except sa.exc.SQLAlchemyError:  # quotes the URL, password and all
        raise loader.ConfigError(
            "--database must be a URL of SQLAlchemy's, such as"
            " mysql+pymysql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if tables:
        raise loader.ConfigError(
            f"--database {url.render_as_string()} is not empty: the demo wants a"
            " database of its own, and drops at the end what it made there"
        )
    return url


def _tables(url: sa.URL) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    inspector = sa.inspect(engine)
    return {*inspector.get_table_names(), *inspector.get_view_names()}


def _drop_glance_tables(url: sa.URL) -> None:
    """Drop Glance's tables from a database that was empty before."""
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
