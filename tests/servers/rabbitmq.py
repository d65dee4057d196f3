# SPDX-License-Identifier: Apache-2.0
"""A real RabbitMQ."""

from __future__ import annotations

import base64
import copy
import os
import re
import secrets
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Self

from tests.servers.base import Server, end, free_port, is_open, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RabbitMQ(Server):
    """A RabbitMQ of one node, with an own epmd, so that several run side by side.

    Durable queues and persistent messages outlive a restart.

    :param options: further lines of `rabbitmq.conf`, such as `{"consumer_timeout": "60000"}`.
    :param deadline: seconds to wait until it is ready.
    """

    package = "rabbitmq-server"

    def __init__(
        self, *, options: Mapping[str, str] | None = None, deadline: float = 180.0
    ) -> None:
        super().__init__(deadline=deadline)
        self.options = dict(options or {})
        self.vhost = "/"
        self.node = f"evscrub{self.port}@localhost"
        self._cookie = secrets.token_hex(16)
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what lets another process use the server, but neither stop nor start it."""
        return super().__getstate__() | {"_epmd": None}

    @property
    def url(self) -> str:
        """oslo.messaging transport URL."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/{self.vhost}"

    def new_vhost(self) -> Self:
        """Make an empty virtual host and return the server as it is seen from there.

        :raises RuntimeError: the server does not answer.
        """
        there = self.seen_at(self.port)
        there.vhost = f"tests-{secrets.token_hex(4)}"
        name = f'<<"{there.vhost}">>'
        self._evaluate(
            f'ok = rabbit_vhost:add({name}, <<"tests">>),'
            f' rabbit_auth_backend_internal:set_permissions(<<"guest">>, {name},'
            ' <<".*">>, <<".*">>, <<".*">>, <<"tests">>), ""'
        )
        return there

    def seen_at(self, port: int) -> Self:
        """Return the server as it is seen through a proxy."""
        there = copy.copy(self)
        there.__dict__.update(there.__getstate__(), port=port, _owner=None)
        return there

    def close(self) -> None:
        """Stop the server and its epmd and remove its folder."""
        super().close()
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            end(epmd, signal.SIGTERM)

    def list_queues(self) -> dict[str, int]:
        """Return how many messages, ready and unacknowledged, each queue holds.

        :raises RuntimeError: the server does not answer.
        """
        lines = self._evaluate(
            '[[N, " ", integer_to_list(M), "\\n"]'
            f' || Q <- rabbit_amqqueue:list(<<"{self.vhost}">>),'
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
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{self.vhost}">>, queue,'
            f' <<"{name}">>)),'
            ' rabbit_amqqueue:purge(Q), ""'
        )

    def close_all_connections(self) -> int:
        """Close every connection to the virtual host, as an operator may, and return how many.

        :raises RuntimeError: the server does not answer.
        """
        return int(
            self._evaluate(
                "L = [P || P <- rabbit_networking:connections_local(),"
                " rabbit_networking:connection_info(P, [vhost]) =="
                f' [{{vhost, <<"{self.vhost}">>}}]],'
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
            # Two calls at once that have the same name of their own disturb each other.
            [erl_call, "-n", self.node, "-c", self._cookie, "-h", f"c{secrets.token_hex(8)}", "-e"],
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
            # Bound to a processor, each server's schedulers would wait for those of the others.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
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
