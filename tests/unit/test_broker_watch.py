# SPDX-License-Identifier: Apache-2.0
"""Whether the broker can be reached."""

from __future__ import annotations

import anyio
import oslo_messaging
import pytest
from anyio.abc import SocketStream
from oslo_config import cfg

from evscrub import broker_watch


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("rabbit://u:p@one:1,u:p@two:2/vhost", [("one", 1), ("two", 2)]),
        ("rabbit://u:p@[::1]:7/", [("::1", 7)]),
        ("rabbit://u:p@one/", [("one", 5672)]),
        ("rabbit://", [("localhost", 5672)]),
        ("kombu+memory://", []),
    ],
)
def test_brokers_of_a_url(url: str, hosts: list[tuple[str, int]]) -> None:
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    oslo_messaging.get_notification_transport(conf, url="fake:")
    conf.set_override("transport_url", url, "oslo_messaging_notifications")
    assert broker_watch.broker_hosts(conf) == hosts


def test_each_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_watch, "INTERVAL_SECONDS", 0.01)
    told: list[bool] = []
    changed = anyio.Event()

    def on_change(reachable: bool) -> None:
        told.append(reachable)
        changed.set()

    async def hang_up(stream: SocketStream) -> None:
        await stream.aclose()

    async def until_told() -> None:
        nonlocal changed
        with anyio.fail_after(20):
            await changed.wait()
        changed = anyio.Event()

    async def run() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        hosts = [("127.0.0.1", 1), ("127.0.0.1", port)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker_watch.watch, hosts, on_change)
            async with listener, anyio.create_task_group() as serving:
                serving.start_soon(listener.serve, hang_up)
                await anyio.sleep(0.1)
                serving.cancel_scope.cancel()
            await until_told()
            assert told == [False]
            async with (
                await anyio.create_tcp_listener(
                    local_host="127.0.0.1", local_port=port, reuse_port=True
                ) as again,
                anyio.create_task_group() as serving,
            ):
                serving.start_soon(again.serve, hang_up)
                await until_told()
                serving.cancel_scope.cancel()
            tasks.cancel_scope.cancel()
        assert told == [False, True]

    anyio.run(run)
