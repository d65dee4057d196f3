# SPDX-License-Identifier: Apache-2.0
"""The brokers that a configuration names."""

import oslo_messaging
import pytest
from oslo_config import cfg

from evscrub.config.options import listener_opts
from evscrub.intake import amqp

PASSWORD = "topsecret"


def configuration(url: str) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    conf([], project="evscrub", default_config_files=[], default_config_dirs=[])
    conf.register_opts(listener_opts, "listener")
    oslo_messaging.get_notification_transport(conf, url="fake:")
    conf.set_override("transport_url", url, "oslo_messaging_notifications")
    return conf


@pytest.mark.parametrize(
    ("url", "kind", "brokers", "virtual_host"),
    [
        (f"rabbit://u:{PASSWORD}@one:1,u:p@two:2/v", "rabbit", ["one:1", "two:2"], "v"),
        (f"rabbit://u:{PASSWORD}@[::1]:7/", "rabbit", ["[::1]:7"], ""),
        ("kombu://u:p@one/", "kombu", ["one:5672"], ""),
        ("rabbit://", "rabbit", ["localhost:5672"], None),
        ("kombu+memory://", "kombu+memory", [], None),
        ("fake://", "fake", [], None),
    ],
)
def test_brokers_of_a_url(
    url: str, kind: str, brokers: list[str], virtual_host: str | None
) -> None:
    """They are shown without their logins."""
    bus = amqp.configured(configuration(url))
    assert bus.kind == kind
    assert list(map(str, bus.brokers)) == brokers
    assert all(broker.virtual_host == virtual_host for broker in bus.brokers)
    assert PASSWORD not in repr(bus)


def test_options_in_the_url_count() -> None:
    conf = configuration("rabbit://u:p@one/?rabbit_quorum_queue=true")
    (broker,) = amqp.configured(conf).brokers
    assert broker.options.rabbit_quorum_queue
    assert not conf.oslo_messaging_rabbit.rabbit_quorum_queue


@pytest.mark.parametrize(
    "url",
    [f"nosuch://u:{PASSWORD}@one/", f"rabbit://u:{PASSWORD}@one:port/", f"u:{PASSWORD}@one"],
)
def test_an_unusable_url_is_not_quoted(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"^the bus.s URL cannot be used \(\w+\): check "
    ) as raised:
        amqp.configured(configuration(url))
    assert PASSWORD not in str(raised.value)
    assert raised.value.__cause__ is None
