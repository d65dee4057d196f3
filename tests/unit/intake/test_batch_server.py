# SPDX-License-Identifier: Apache-2.0
"""How long a server of batches waits for messages, on oslo.messaging's own adapter."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from oslo_config import cfg
from oslo_messaging._drivers.amqpdriver import AMQPListener
from oslo_messaging._drivers.base import PollStyleListenerAdapter

from evscrub.intake.batch_server import BatchServer

BATCH_SECONDS = 0.05


class FakeListener:
    """Kafka's listener, with messages that have arrived.

    :param answers: what its polls return, one after another; nothing from then on.
    """

    prefetch_size = -1

    def __init__(self, answers: Sequence[list[str]]) -> None:
        self.polls: list[tuple[int, float]] = []
        self.stopped = threading.Event()
        self._answers = iter(answers)

    def poll(self, batch_size: int, batch_timeout: float) -> list[str]:
        if self.stopped.is_set():
            return []
        self.polls.append((batch_size, batch_timeout))
        answer = next(self._answers, None)
        if answer is None:
            self.stopped.wait(10)
        return answer or []

    def stop(self) -> None:
        self.stopped.set()

    def cleanup(self) -> None:
        pass


class FakeRabbit(FakeListener, AMQPListener):  # type: ignore[misc] # oslo.messaging is not typed
    """RabbitMQ's."""


def serve(listener: FakeListener, batch_size: int, batches: int) -> list[list[str]]:
    """Serve until so many batches were dispatched, and return them."""
    served: list[list[str]] = []
    enough = threading.Event()

    def listen(*_: object) -> PollStyleListenerAdapter:
        return PollStyleListenerAdapter(listener, batch_size, BATCH_SECONDS)

    def dispatch(messages: list[str]) -> None:
        served.append(messages)
        if len(served) == batches:
            enough.set()

    dispatcher: Any = SimpleNamespace(supported_priorities=("info",))
    transport: Any = SimpleNamespace(conf=cfg.ConfigOpts(), _listen_for_notifications=listen)
    server = BatchServer(transport, [], dispatcher, "threading", batch_size=batch_size)
    adapter = server._create_listener()
    adapter.start(dispatch)
    assert enough.wait(10)
    adapter.stop()
    adapter.cleanup()
    return served[:batches]


def test_the_time_of_a_batch_begins_with_its_first_message() -> None:
    listener = FakeRabbit([[], [], ["a"], ["b", "c"], ["d"], []])
    assert serve(listener, 10, batches=2) == [["a", "b", "c"], ["d"]]
    idle = listener.polls[0]
    assert idle[0] == 1
    assert idle[1] >= 20 * BATCH_SECONDS, "it would wake up often on a quiet bus"
    rest = (9, BATCH_SECONDS)
    assert listener.polls[:6] == [idle, idle, idle, rest, idle, rest]


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_is_never_larger_than_its_size(size: int) -> None:
    listener = FakeRabbit([["a"], ["b"], ["c"], ["d"]])
    served = serve(listener, size, batches=2)
    assert served == ([["a"], ["b"]] if size == 1 else [["a", "b"], ["c", "d"]])


def test_a_driver_that_fills_its_batches_is_left_alone() -> None:
    listener = FakeListener([["a"]])
    assert serve(listener, 10, batches=1) == [["a"]]
    assert set(listener.polls) == {(10, BATCH_SECONDS)}
