# SPDX-License-Identifier: Apache-2.0
"""Audit notifications on a real RabbitMQ, consumed as a billing service would."""

from __future__ import annotations

import json
import socket
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import kombu
from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

from evscrub.telemetry.audit import Audit
from evscrub.telemetry.statistics import Scrubbed
from tests.functional.agents import AgentProcess, wait_for
from tests.functional.conftest import GlanceFactory
from tests.glance_client import GlanceClient
from tests.servers import Proxy, RabbitMQ, free_port


def test_scrub_sends_an_audit_notification(
    glance: GlanceFactory, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    process = glance(transport_url=rabbitmq.url, topics=("billing", "evscrub"))
    with (
        kombu.Connection(rabbitmq.url.replace("rabbit://", "amqp://")) as connection,
        GlanceClient(process.url) as client,
        AgentProcess(tmp_path, process.config, {"audit": {"notify": True}}),
    ):
        image_id = client.create("image", owner="someone")
        client.upload(image_id, b"x" * 123)
        client.delete(image_id)
        told = kombu.Queue("billing.info", channel=connection.channel())
        events: list[dict[str, Any]] = []
        wait_for("image.scrub", partial(_read, told, events, "image.scrub"))
        event = events[-1]
    payload = event["payload"]
    assert (payload["id"], payload["owner"], payload["size"]) == (image_id, "someone", 123)
    assert payload["status"] == "deleted"
    assert event["publisher_id"].startswith("evscrub.")


def test_notifications_wait_while_the_bus_is_away(rabbitmq: RabbitMQ) -> None:
    port = free_port()
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    for group, options in messaging_opts.list_opts():
        conf.register_opts(options, group)
    conf.set_override("transport_url", rabbitmq.seen_at(port).url)
    conf.set_override("topics", ["waiting"], "oslo_messaging_notifications")
    conf.set_override("rabbit_retry_backoff", 0, "oslo_messaging_rabbit")
    audit = Audit(conf)

    def hang_up() -> None:
        with socket.create_server(("127.0.0.1", port)) as broken:
            for _ in range(4):
                broken.accept()[0].close()

    def arrived() -> None:
        with kombu.Connection(rabbitmq.url.replace("rabbit://", "amqp://")) as connection:
            wait_for("image.scrub", partial(_arrived, connection, "waiting.info", "image.scrub"))

    async def main() -> None:
        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(audit.run)
                audit.scrubbed(Scrubbed("image", "owner", 1, 0.0, data_went=True))
                await anyio.to_thread.run_sync(hang_up)
                with Proxy(rabbitmq.port, port):
                    await anyio.to_thread.run_sync(arrived)
                    await audit.finish()
                    # Heartbeats would go on, and log into other tests when they find no bus.
                    await anyio.to_thread.run_sync(audit._notifier.transport.cleanup)

    anyio.run(main)
    assert audit.lost == 0


def _read(told: kombu.Queue, events: list[dict[str, Any]], event_type: str) -> bool:
    """Read one message; return whether it was the expected event."""
    message = told.get(no_ack=True)
    if message is None:
        return False
    events.append(json.loads(message.payload["oslo.message"]))
    return bool(events[-1]["event_type"] == event_type)


def _arrived(connection: kombu.Connection, queue: str, event_type: str) -> bool:
    """Return whether an event is in a queue, which may not exist yet."""
    with connection.channel() as channel:
        try:
            return _read(kombu.Queue(queue, channel=channel), [], event_type)
        except connection.channel_errors:
            return False
