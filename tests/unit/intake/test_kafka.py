# SPDX-License-Identifier: Apache-2.0
"""Notifications by way of Kafka: oslo.messaging's own driver and client, and a broker in memory."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import oslo_messaging
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from oslo_config import cfg
from oslo_upgradecheck.upgradecheck import Code

from evscrub.checks import bus
from evscrub.checks.subject import Subject
from evscrub.config.options import listener_opts
from evscrub.domain.clock import Clock
from evscrub.intake import kafka
from evscrub.intake.listener import Listener
from evscrub.intake.notification import DeleteEvent

#: oslo.messaging's client needs seconds to join a group.
SECONDS = 60


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Return the address of a broker that the Kafka client library brings along for tests."""
    server = AdminClient({"test.mock.num.brokers": 1, "log_level": 0})
    (found,) = server.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    del server


def configuration(url: str) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    conf.register_opts(listener_opts, "listener")
    oslo_messaging.get_notification_transport(conf, url="fake:")  # registers the options
    conf.set_override("transport_url", url, "oslo_messaging_notifications")
    return conf


def listener(url: str) -> Listener:
    return Listener(configuration(url), Clock(), lambda _: None, lambda _: None)


@pytest.mark.costly
# oslo.utils uses its own deprecated function where it logs what the driver raised.
@pytest.mark.filterwarnings("ignore:.*exception_to_unicode:DeprecationWarning")
def test_notifications_arrive(broker: str) -> None:
    conf = configuration(f"kafka://{broker}/")
    arrived: list[DeleteEvent] = []
    came = anyio.Event()

    def on_events(events: list[DeleteEvent]) -> None:
        arrived.extend(events)
        came.set()

    # As Glance sends them.
    transport = oslo_messaging.get_notification_transport(conf)
    notifier = oslo_messaging.Notifier(
        transport,
        driver="messagingv2",
        publisher_id="image.host",
        topics=["evscrub"],
    )
    payload = {"id": "i", "status": "pending_delete", "deleted_at": "2020-02-03T04:05:06Z"}
    junk = Producer({"bootstrap.servers": broker})
    # Makes the topic: a client notices one that is made later only after minutes.
    junk.produce("evscrub.info", b"")
    junk.flush()

    async def run() -> None:
        joined = anyio.Event()
        made = Listener(conf, Clock(), on_events, lambda _: joined.set())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            with anyio.fail_after(SECONDS):
                await joined.wait()
                assert made.statistics().joined
                # A consumer gets what is sent after it was assigned to the topic, so repeat.
                while not came.is_set():
                    notifier.info({}, "image.delete", payload)
                    await anyio.sleep(0.2)
                # What nobody can read costs at most what came with it.
                for text in (b"junk", b"{}", json.dumps({"oslo.message": "[]"}).encode()):
                    junk.produce("evscrub.info", text)
                junk.flush()
                before = len(arrived)
                while len(arrived) == before:
                    notifier.info({}, "image.delete", payload)
                    await anyio.sleep(0.2)
            tasks.cancel_scope.cancel()

    anyio.run(run)
    transport.cleanup()
    assert set(arrived) == {DeleteEvent("i", None, 1_580_702_706.0)}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://u:secret@one:9092,u:secret@two/", "no port for two: write each broker as HOST:"),
        ("kafka://u:secret@one/", "no port for one: write each broker as HOST:PORT, such as one:"),
        ("kafka://u:secret@one:9092/glance", "ends with a virtual host"),
        ("kafka://", "names no broker"),
    ],
)
class TestUnusable:
    def test_is_refused_by_an_agent(self, url: str, said: str) -> None:
        with pytest.raises(ValueError, match=said) as caught:
            listener(url)
        assert "secret" not in str(caught.value)

    def test_fails_the_check(self, url: str, said: str) -> None:
        found = bus.brokers(Subject(configuration(url)))
        assert found.code is Code.FAILURE
        assert said in (found.details or "")
        assert "secret" not in (found.details or "")


class TestWithoutItsClient:
    @pytest.fixture(autouse=True)
    def lacking(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_conf: object, *_: object, **__: object) -> None:
            raise oslo_messaging.DriverLoadFailure("kafka", RuntimeError("No 'kafka' driver"))

        monkeypatch.setattr(oslo_messaging, "get_notification_transport", fail)
        monkeypatch.setattr(kafka, "find_spec", lambda _name: None)

    @pytest.fixture
    def conf(self) -> Any:
        status = SimpleNamespace(topics=[], driver=[], transport_url=None)
        return SimpleNamespace(
            oslo_messaging_notifications=status, register_opts=lambda *_, **__: None
        )

    def test_an_agent_names_the_extra(self, conf: Any) -> None:
        with pytest.raises(ValueError, match=r"confluent_kafka: install 'evscrub\[kafka\]'"):
            Listener(conf, Clock(), lambda _: None, lambda _: None)

    def test_a_check_names_the_extra(self, conf: Any) -> None:
        found = bus.brokers(Subject(conf))
        assert found.code is Code.FAILURE
        assert "install 'evscrub[kafka]'" in (found.details or "")


def test_another_driver_that_does_not_load_is_not_kafkas() -> None:
    error = oslo_messaging.DriverLoadFailure("rabit", RuntimeError())
    assert kafka.why_not_loaded(error) is None


def test_check_says_that_it_knows_only_rabbitmq(broker: str) -> None:
    found = bus.brokers(Subject(configuration(f"kafka://{broker}/")))
    assert (found.code, "only RabbitMQ can be checked" in (found.details or "")) == (
        Code.WARNING,
        True,
    )
