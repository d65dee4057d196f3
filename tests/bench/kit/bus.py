# SPDX-License-Identifier: Apache-2.0
"""Puts ``image.delete`` notifications on a real RabbitMQ, in the form that Glance sends them.

oslo.messaging publishes less than two thousand a second, which is slower than what is measured; its
own client underneath, with messages made beforehand, is several times faster.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import kombu

from tests.bench.kit import seed
from tests.servers import RabbitMQ

EXCHANGE = "glance"
TOPIC = "evscrub"
QUEUE = f"{TOPIC}.info"


def notification(number: int, deleted_at: datetime) -> str:
    """Return a message about the image of that number, as it is on the wire."""
    stamp = deleted_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    payload = {
        "id": seed.image_id(number),
        "name": f"image {number}",
        "status": "pending_delete",
        "created_at": stamp,
        "updated_at": stamp,
        "min_disk": 0,
        "min_ram": 0,
        "protected": False,
        "checksum": "1e50210a0202497fb79bc38b6ade6c34",
        "owner": seed.owner(number),
        "disk_format": "raw",
        "container_format": "bare",
        "size": 10,
        "virtual_size": 10,
        "is_public": False,
        "visibility": "shared",
        "properties": {"os_type": "linux", "hw_disk_bus": "virtio", "hw_vif_model": "virtio"},
        "tags": [],
        "deleted": True,
        "deleted_at": stamp,
    }
    message = {
        "message_id": str(uuid.uuid4()),
        "publisher_id": "image.host",
        "event_type": "image.delete",
        "priority": "INFO",
        "payload": payload,
        "timestamp": f"{stamp[:10]} {stamp[11:19]}.000000",
        "_context_project_id": seed.owner(number),
        "_unique_id": uuid.uuid4().hex,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})


class Bus:
    """A publisher.

    :param broker: must run.
    """

    def __init__(self, broker: RabbitMQ, channel: Any) -> None:
        self._broker = broker
        exchange = kombu.Exchange(EXCHANGE, type="topic", durable=False, auto_delete=False)
        queue = kombu.Queue(
            QUEUE, exchange, routing_key=QUEUE, durable=False, auto_delete=False, exclusive=False
        )
        queue(channel).declare()
        self._producer = kombu.Producer(channel, exchange, routing_key=QUEUE, serializer="json")

    def clear(self) -> None:
        """Drop what is in the queue."""
        self._broker.purge_queue(QUEUE)

    def publish(self, messages: Iterable[str]) -> None:
        """Publish as fast as it goes."""
        for message in messages:
            self._producer.publish(
                message, content_type="application/json", content_encoding="utf-8", delivery_mode=1
            )

    def fill(self, numbers: Iterable[int], deleted_at: datetime, deadline: float = 120.0) -> None:
        """Put events into the queue and wait until the broker has them all."""
        messages = [notification(number, deleted_at) for number in numbers]
        self.clear()
        self.publish(messages)
        until = time.monotonic() + deadline
        while self._broker.list_queues().get(QUEUE, 0) < len(messages):
            if time.monotonic() > until:
                raise TimeoutError("the broker did not take all messages")
            time.sleep(0.05)

    def publish_at(
        self, rate: float, numbers: Iterable[int], before: Callable[[int], datetime]
    ) -> float:
        """Publish so many a second, evenly.

        :param before: called right before each message; returns its ``deleted_at``.
        :returns: the seconds that it took.
        """
        began = time.monotonic()
        for index, number in enumerate(numbers):
            ahead = began + index / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            self.publish([notification(number, before(number))])
        return time.monotonic() - began


@contextmanager
def connect(broker: RabbitMQ) -> Iterator[Bus]:
    """Connect to a broker as a publisher."""
    with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{broker.port}//") as connection:
        yield Bus(broker, connection.channel())


def utc_now() -> datetime:
    return datetime.now(UTC)
