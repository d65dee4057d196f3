# SPDX-License-Identifier: Apache-2.0
"""Audit notifications on a real RabbitMQ, consumed as a billing service would."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import kombu

from tests.functional.agents import AgentProcess, wait_for
from tests.functional.conftest import GlanceFactory
from tests.glance_client import GlanceClient
from tests.servers import RabbitMQ


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


def _read(told: kombu.Queue, events: list[dict[str, Any]], event_type: str) -> bool:
    """Read one message; return whether it was the expected event."""
    message = told.get(no_ack=True)
    if message is None:
        return False
    events.append(json.loads(message.payload["oslo.message"]))
    return bool(events[-1]["event_type"] == event_type)
