# SPDX-License-Identifier: Apache-2.0
"""Real RabbitMQ, MariaDB and PostgreSQL servers for the tests, each in a temporary folder.

Own code, because pifpaf falls short here: its PostgreSQL does not start for root, its
MariaDB has no TCP port, and none of its servers can be stopped and started again with its
data and its port, which is what the tests of lost connections are about.
"""

from __future__ import annotations

import atexit
import base64
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

USER = "evscrub"
PASSWORD = "secret"
POLL = 0.02


def free_port() -> int:
    """Return a TCP port that nothing on 127.0.0.1 listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], deadline: float, what: str) -> None:
    """Wait until a condition holds.

    :param true: the condition.
    :param deadline: seconds to wait at most.
    :param what: what is waited for, for the error.
    :raises TimeoutError: it did not hold in time.
    """
    until = time.monotonic() + deadline
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {deadline} s")
        time.sleep(POLL)


class Server(ABC):
    """A server with its own port and temporary folder: a context manager.

    :param deadline: seconds to wait until it is ready.
    """

    #: The Debian package that has the server.
    package: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    kill_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, *, deadline: float = 60.0) -> None:
        self.deadline = deadline
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"evscrub-{self.package}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        atexit.register(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log_path(self) -> Path:
        """Everything that the server prints."""
        return self.directory / "output.log"

    @property
    def pid(self) -> int | None:
        """The server's process id, none while it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server, with the data that it had, and wait until it is ready.

        :raises FileNotFoundError: the server is not installed; names the package.
        :raises RuntimeError: it ended or was not ready in time; with its log's tail.
        """
        if self._process is not None:
            return
        try:
            if not self._prepared:
                self._prepare()
                self._prepared = True
            self._process = self._spawn(self._command())
            wait_until(self._is_up, self.deadline, f"{self.package} is ready")
        except BaseException as error:
            self.kill()
            if not isinstance(error, TimeoutError | subprocess.SubprocessError):
                raise
            raise RuntimeError(f"{error}\n{self._tail()}") from error

    def stop(self) -> None:
        """Stop the server in good order; its data stays."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Stop the server as a crash would; what it had on disk stays."""
        self._end(self.kill_signal)

    def restart(self) -> None:
        """Stop the server and start it on the same port with its data.

        :raises RuntimeError: it ended or was not ready in time; with its log's tail.
        """
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    @abstractmethod
    def _prepare(self) -> None:
        """Do once what comes before the first start."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def _ready(self) -> bool:
        """Return whether the server takes work."""

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _account(self) -> str | None:
        """Return the name of the account to run as, none for the caller's own."""
        return None

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        account = self._account()
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=dict(self._environment()),
                # In a session of its own, Ctrl-C reaches the tests alone, and they stop it.
                start_new_session=True,
                user=account,
                group=pwd.getpwnam(account).pw_gid if account else None,
                extra_groups=[] if account else None,
            )

    def _run(self, command: Sequence[str]) -> None:
        process = self._spawn(command)
        if process.wait(self.deadline):
            raise subprocess.CalledProcessError(process.returncode, command)

    def _is_up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(
                f"{self.package} ended with {self._process.returncode}\n{self._tail()}"
            )
        return self._ready()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end(process, how)

    def _tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else ""

    def _program(self, name: str, *places: str) -> str:
        """Find a program in the given folders, which may have wildcards, or on the path."""
        for place in places:
            for folder in sorted(Path("/").glob(place.removeprefix("/")), reverse=True):
                if (folder / name).exists():
                    return str(folder / name)
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found is None:
            raise FileNotFoundError(f"{name} is not installed: install {self.package}")
        return found


class RabbitMQ(Server):
    """A RabbitMQ of one node, with an own epmd, so that several run side by side.

    Durable queues and persistent messages outlive a restart.

    :param options: further lines of `rabbitmq.conf`, such as `{"consumer_timeout": "60000"}`.
    :param deadline: seconds to wait until it is ready.
    """

    package = "rabbitmq-server"

    def __init__(self, *, options: Mapping[str, str] | None = None, deadline: float = 60.0) -> None:
        super().__init__(deadline=deadline)
        self.options = dict(options or {})
        self.node = f"evscrub{self.port}@localhost"
        self._cookie = secrets.token_hex(16)
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """oslo.messaging transport URL."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}//"

    def close(self) -> None:
        """Stop the server and its epmd and remove its folder."""
        super().close()
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            _end(epmd, signal.SIGTERM)

    def list_queues(self) -> dict[str, int]:
        """Return how many messages, ready and unacknowledged, each queue holds.

        :raises RuntimeError: the server does not answer.
        """
        lines = self._evaluate(
            '[[N, " ", integer_to_list(M), "\\n"] || Q <- rabbit_amqqueue:list(),'
            " [{name, {resource, _, queue, N}}, {messages, M}]"
            " <- [rabbit_amqqueue:info(Q, [name, messages])]]"
        )
        pairs = (line.rsplit(" ", 1) for line in lines.splitlines())
        return {name: int(messages) for name, messages in pairs}

    def purge_queue(self, name: str) -> None:
        """Drop the messages of a queue that are ready.

        :param name: the queue's name.
        :raises RuntimeError: there is no such queue, or the server does not answer.
        """
        self._evaluate(
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)),'
            ' rabbit_amqqueue:purge(Q), ""'
        )

    def close_all_connections(self) -> int:
        """Close every client's connection, as an operator may, and return how many.

        :raises RuntimeError: the server does not answer.
        """
        return int(
            self._evaluate(
                "L = rabbit_networking:connections_local(),"
                ' [rabbit_networking:close_connection(P, "closed by a test") || P <- L],'
                " integer_to_list(length(L))"
            )
        )

    def _evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression, whose value is a string, in the server.

        What rabbitmqctl does in a second, erl_call does in a few milliseconds.
        """
        erl_call = self._program("erl_call", "/usr/lib/erlang/bin")
        done = subprocess.run(
            [erl_call, "-n", self.node, "-c", self._cookie, "-e"],
            # In base64 the value comes back as it is, whatever it holds.
            input=f"V = begin {expression} end, base64:encode_to_string(iolist_to_binary(V)).\n",
            capture_output=True,
            text=True,
            timeout=self.deadline,
            env=dict(self._environment()),
            check=False,
        )
        value = re.fullmatch(r'\{ok, (?:"(.*)"|\[\])\}', done.stdout.strip())
        if done.returncode or value is None:
            raise RuntimeError(f"{self.node}: {done.stdout}{done.stderr}")
        return base64.b64decode(value[1] or "").decode()

    def _environment(self) -> Mapping[str, str]:
        home = self.directory
        return os.environ | {
            "HOME": str(home),  # Erlang looks for its cookie there
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_INETRC": str(home / "inetrc"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(home / "rabbitmq.pid"),
            # Makes the script become the server, so that our signals reach it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _prepare(self) -> None:
        home = self.directory
        cookie = home / ".erlang.cookie"
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        # Erlang would ask a name server first, for seconds where there is none.
        names = f'["localhost", "{socket.gethostname()}"]'
        (home / "inetrc").write_text(f"{{lookup, [file]}}.\n{{host, {{127,0,0,1}}, {names}}}.\n")
        options = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "disk_free_limit.absolute": "1MB",
            **self.options,
        }
        lines = (f"{key} = {value}\n" for key, value in options.items())
        (home / "rabbitmq.conf").write_text("".join(lines))

    def _command(self) -> Sequence[str]:
        if self._epmd is None or self._epmd.poll() is not None:
            # RabbitMQ would start one too, as a daemon that nobody stops.
            self._epmd = self._spawn([self._program("epmd"), "-port", str(self._epmd_port)])
            wait_until(lambda: is_open(self._epmd_port), self.deadline, "epmd is ready")
        return [self._program("rabbitmq-server", "/usr/lib/rabbitmq/bin")]

    def _ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"  # a method frame: connection.start
        except OSError:
            return False


class DatabaseServer(Server):
    """A database server.

    :param durable: whether a commit reaches the disk; without, it is faster.
    :param deadline: seconds to wait until it is ready.
    """

    driver: ClassVar[str]
    first_database: ClassVar[str]

    def __init__(self, *, durable: bool = False, deadline: float = 60.0) -> None:
        super().__init__(deadline=deadline)
        self.durable = durable

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the server's first database, for an administrator."""
        return self._url(self.first_database)

    def new_database(self, name: str) -> str:
        """Create an empty database, instead of the one of that name if there is one.

        :param name: the database's name: lower case letters, digits and underscores.
        :returns: its SQLAlchemy URL.
        """
        self.drop_database(name)
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, even one in use, if it is there.

        :param name: the database's name.
        """
        self._execute(f"DROP DATABASE IF EXISTS {name}{self._drop_options()}")

    def _drop_options(self) -> str:
        return ""

    def _url(self, database: str) -> str:
        return f"{self.driver}://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(statement))
        finally:
            engine.dispose()

    def _ready(self) -> bool:
        if not is_open(self.port):
            return False
        try:
            self._execute("SELECT 1")
        except SQLAlchemyError:
            return False
        return True


class MariaDB(DatabaseServer):
    """A MariaDB."""

    package = "mariadb-server"
    driver = "mysql+pymysql"
    first_database = "mysql"

    def _prepare(self) -> None:
        init = [self._program("mariadb-install-db"), "--no-defaults", "--skip-test-db"]
        init += [f"--datadir={self.directory}/data", "--auth-root-authentication-method=normal"]
        self._run(init + self._as_root())
        (self.directory / "init.sql").write_text(
            f"CREATE OR REPLACE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {USER}@'%';\n"
        )

    def _command(self) -> Sequence[str]:
        here = self.directory
        command = [self._program("mariadbd"), "--no-defaults", f"--datadir={here}/data"]
        command += ["--bind-address=127.0.0.1", f"--port={self.port}", f"--tmpdir={here}"]
        command += [f"--socket={here}/socket", f"--pid-file={here}/pid", "--skip-name-resolve"]
        command += [f"--init-file={here}/init.sql", "--innodb-buffer-pool-size=128M"]
        command += ["--max-connections=300", "--innodb-lock-wait-timeout=10"]
        if not self.durable:
            command += ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]
        return command + self._as_root()

    @staticmethod
    def _as_root() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


class PostgreSQL(DatabaseServer):
    """A PostgreSQL; for root, which it refuses, it runs as the package's `postgres`."""

    package = "postgresql"
    driver = "postgresql+psycopg2"
    first_database = "postgres"
    stop_signal = signal.SIGINT  # fast: SIGTERM would wait for the clients to leave
    kill_signal = signal.SIGQUIT  # as a crash: SIGKILL would leave its children behind

    def _account(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None

    def _drop_options(self) -> str:
        return " WITH (FORCE)"

    def _prepare(self) -> None:
        if account := self._account():
            shutil.chown(self.directory, account)
        init = [self._postgres("initdb"), "-D", f"{self.directory}/data", "--auth=trust"]
        init += [f"--username={USER}", "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8"]
        self._run(init)

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "300",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        command = [self._postgres("postgres"), "-D", f"{self.directory}/data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _postgres(self, name: str) -> str:
        return self._program(name, "/usr/lib/postgresql/*/bin")


def is_open(port: int) -> bool:
    """Return whether something on 127.0.0.1 listens on a TCP port.

    :param port: the port.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes], how: signal.Signals, grace: float = 30.0) -> None:
    """End a process by a signal, and by SIGKILL where that takes more than `grace` seconds."""
    process.send_signal(how)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
