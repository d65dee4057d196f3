# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: junk on the bus does not cost the good messages beside it."""

import logging
from types import SimpleNamespace
from typing import Any

import anyio
import oslo_messaging
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Channel
from oslo_config import cfg
from oslo_messaging._drivers import impl_rabbit

from evscrub.config.options import listener_opts
from evscrub.domain.clock import Clock
from evscrub.intake import listener
from evscrub.intake.listener import Dispatcher, Listener
from evscrub.intake.notification import READ, DeleteEvent, MalformedError, NotForUsError
from evscrub.telemetry import silence
from tests.servers import wait_until

SECRET = "swift+https://user:secret@host/container/object"


def good(number: int) -> dict[str, Any]:
    return {
        "event_type": "image.delete",
        "payload": {
            "id": f"image-{number}",
            "owner": "owner",
            "status": "pending_delete",
            "deleted_at": "2020-02-03T04:05:06Z",
        },
    }


def event(number: int) -> DeleteEvent:
    return DeleteEvent(f"image-{number}", "owner", 1_580_702_706.0)


def message(body: object) -> SimpleNamespace:
    """What a driver hands over, as far as it is looked at."""
    return SimpleNamespace(message=body)


class Delivered:
    """Takes batches, and fails where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[DeleteEvent]] = []
        self.error = error

    def __call__(self, events: list[DeleteEvent]) -> None:
        self.batches.append(events)
        if self.error is not None:
            raise self.error


class Unreadable:
    """A message whose body cannot be had."""

    @property
    def message(self) -> object:
        raise RuntimeError(SECRET)


MALFORMED: list[object] = [
    None,
    [],
    "text",
    7,
    b"bytes",
    {"event_type": "image.delete"},
    {"event_type": "image.delete", "payload": SECRET},
    {"event_type": "image.delete", "payload": {"id": 7}},
    {"event_type": "image.delete", "payload": {"id": SECRET * 10}},
    good(0) | {"payload": good(0)["payload"] | {"deleted_at": SECRET}},
    good(0) | {"payload": good(0)["payload"] | {"owner": {SECRET: SECRET}}},
]
IGNORED: list[object] = [
    {},
    {"event_type": "image.create", "payload": {}},
    {"event_type": ["image.delete"]},
    good(0) | {"payload": good(0)["payload"] | {"status": "deleted"}},
]


def test_a_batch_is_delivered_at_once_and_in_order() -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    assert dispatcher.dispatch([message(good(number)) for number in range(5)]) == set()
    assert delivered.batches == [[event(number) for number in range(5)]]
    assert dispatcher.received == 5
    assert dispatcher.ignored == 0
    assert not dispatcher.malformed


@pytest.mark.parametrize(("wall", "taken"), [(1_580_702_706.0, 1), (1_500_000_000.0, 0)])
def test_the_present_is_the_clock_s(wall: float, taken: int) -> None:
    """A deletion that is days ahead is not believed."""
    delivered = Delivered()
    dispatcher = Dispatcher(delivered, wall=lambda: wall)
    dispatcher.dispatch([message(good(1))])
    assert dispatcher.last_at == wall
    assert sum(map(len, delivered.batches)) == taken


def test_only_what_glance_sends_its_deletes_at_is_asked_for() -> None:
    assert Dispatcher.supported_priorities == ("info",)


@pytest.mark.parametrize("junk", MALFORMED, ids=lambda value: repr(value)[:60])
def test_a_malformed_message_costs_itself_alone(junk: object) -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    assert dispatcher.dispatch([message(good(1)), message(junk), message(good(2))]) == set()
    assert delivered.batches == [[event(1), event(2)]]
    assert dispatcher.received == 3
    assert dispatcher.ignored == 0
    assert dispatcher.malformed.total() == 1


def test_a_message_that_cannot_be_read_at_all_costs_itself_alone() -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    assert dispatcher.dispatch([Unreadable(), message(good(1)), object()]) == set()
    assert delivered.batches == [[event(1)]]
    assert dispatcher.malformed == {"RuntimeError": 1, "AttributeError": 1}


@pytest.mark.parametrize("other", IGNORED, ids=lambda value: repr(value)[:60])
def test_what_is_not_for_us_is_counted_apart(other: object) -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    assert dispatcher.dispatch([message(other), message(good(1))]) == set()
    assert delivered.batches == [[event(1)]]
    assert dispatcher.ignored == 1
    assert not dispatcher.malformed


def test_a_batch_with_nothing_for_us_is_not_delivered() -> None:
    delivered = Delivered()
    Dispatcher(delivered).dispatch([message(body) for body in [*MALFORMED, *IGNORED]])
    Dispatcher(delivered).dispatch([])
    assert delivered.batches == []


def test_a_delivery_that_fails_puts_nothing_back() -> None:
    delivered = Delivered(RuntimeError(SECRET))
    dispatcher = Dispatcher(delivered)
    assert dispatcher.dispatch([message(good(1))]) == set()
    assert dispatcher.dispatch([message(good(2))]) == set()
    assert delivered.batches == [[event(1)], [event(2)]]
    assert dispatcher.received == 2


def test_a_flood_of_junk_is_told_once_a_minute_and_shows_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "evscrub")
    now = 100.0
    dispatcher = Dispatcher(Delivered(RuntimeError(SECRET)), lambda: now)
    for second in range(150):
        now = 100.0 + second
        dispatcher.dispatch([Unreadable(), *(message(body) for body in MALFORMED)])
    assert 1 < len(dispatcher.malformed) < 10
    assert dispatcher.malformed.total() == 150 * (1 + len(MALFORMED))
    assert len(caplog.records) == 3
    told = [record.getMessage() for record in caplog.records]
    assert "RuntimeError: 1," in told[0] + ","
    assert "RuntimeError: 60," in told[1] + ","
    dispatcher.dispatch([message(good(1))])
    assert len(caplog.records) == 4
    assert "secret" not in caplog.text
    assert max(map(len, told)) < 500


@pytest.mark.parametrize(
    ("read", "malformed", "ignored"),
    [
        (event(1), {}, 0),
        (NotForUsError("another event"), {}, 1),
        (MalformedError("too large"), {"too large": 1}, 0),
    ],
)
def test_what_was_read_as_it_arrived_is_taken_as_it_is(
    read: object, malformed: dict[str, int], ignored: int
) -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    dispatcher.dispatch([message({READ: read})])
    assert delivered.batches == ([[read]] if isinstance(read, DeleteEvent) else [])
    assert dispatcher.malformed == malformed
    assert dispatcher.ignored == ignored


@pytest.mark.parametrize("forged", [None, "event", {"image_id": "1"}, ["too large"]])
def test_a_sender_cannot_pass_something_off_as_read(forged: object) -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    dispatcher.dispatch([message(good(1) | {READ: forged})])
    assert delivered.batches == [[event(1)]]


def configured(**options: object) -> cfg.ConfigOpts:
    """Return a configuration for a bus in memory, whose driver is RabbitMQ's."""
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    conf.register_opts(listener_opts, "listener")
    oslo_messaging.get_notification_transport(conf, url="fake:")
    conf.set_override("transport_url", "kombu+memory://", "oslo_messaging_notifications")
    conf.register_opts(impl_rabbit.rabbit_opts, "oslo_messaging_rabbit")
    for name, value in options.items():
        conf.set_override(name, value, "oslo_messaging_rabbit")
    return conf


class Server:
    """Stands for oslo.messaging's server, and counts."""

    started = 0
    stopped = 0

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def start(self, *, override_pool_size: int) -> None:
        assert override_pool_size == 1  # batches come one at a time, in order
        Server.started += 1

    def stop(self) -> None:
        Server.stopped += 1

    def wait(self) -> None:
        pass


def test_a_silent_bus_is_joined_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "BatchServer", Server)
    monkeypatch.setattr(listener, "_SILENCE_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(silence, "_QUIET_SECONDS", 0.05)
    monkeypatch.setattr(Server, "started", 0)
    monkeypatch.setattr(Server, "stopped", 0)
    conf = configured()
    joined: list[bool] = []

    async def run() -> None:
        missed, changed = 0, anyio.Event()

        def on_joined(there: bool) -> None:
            joined.append(there)
            changed.set()

        made = Listener(conf, Clock(), lambda _: None, on_joined, lambda: missed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            with anyio.fail_after(30):
                await changed.wait()  # joined
                changed, missed = anyio.Event(), 50
                await changed.wait()  # left
                changed = anyio.Event()
                await changed.wait()  # joined again
                assert made.statistics().joined
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert joined == [True, False, True]
    # Nobody waits for a thread that takes long to stop.
    wait_until(lambda: (Server.started, Server.stopped) == (2, 2), 30, "the stop")


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, 500), ({"rabbit_qos_prefetch_count": 7}, 7)],
    ids=["a few batches", "what the operator set"],
)
def test_only_so_many_messages_are_taken_ahead(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], limit: int
) -> None:
    """Asked of the broker, before anything is consumed: without a limit it sends all it has."""
    asked: list[int] = []

    def limit_to(_channel: Channel, _size: int, count: int, *_: object) -> None:
        asked.append(count)

    monkeypatch.setattr(Channel, "basic_qos", limit_to)
    conf = configured(**options)
    conf.set_override("batch_size", 100, "listener")

    async def run() -> None:
        joined = anyio.Event()
        made = Listener(conf, Clock(), lambda _: None, lambda _: joined.set())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            with anyio.fail_after(30):
                await joined.wait()
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert set(asked) == {limit}


bodies = st.one_of(
    st.integers(0, 9).map(good), st.sampled_from(MALFORMED), st.sampled_from(IGNORED)
)


@given(st.lists(st.lists(bodies, max_size=10), max_size=5))
def test_every_good_message_arrives_and_everything_is_counted_once(
    batches: list[list[dict[str, Any]]],
) -> None:
    delivered = Delivered()
    dispatcher = Dispatcher(delivered)
    for batch in batches:
        assert dispatcher.dispatch([message(body) for body in batch]) == set()
    bodies_sent = [body for batch in batches for body in batch]
    wanted = [good(number) for number in range(10)]
    sent = [body["payload"]["id"] for body in bodies_sent if body in wanted]
    assert [one.image_id for batch in delivered.batches for one in batch] == sent
    assert dispatcher.received == len(bodies_sent)
    counted = dispatcher.ignored + dispatcher.malformed.total() + len(sent)
    assert counted == dispatcher.received
