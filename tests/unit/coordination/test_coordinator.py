# SPDX-License-Identifier: Apache-2.0
"""What tooz is asked for."""

from __future__ import annotations

from fractions import Fraction

import pytest
import redis

from evscrub.coordination.capabilities import Published
from evscrub.coordination.coordinator import Coordinator, CoordinatorAwayError


def test_timeouts_in_the_url_do_not_outlast_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployment tools give all services one URL, whose requests may take a minute."""
    asked: list[dict[str, object]] = []

    def client(**options: object) -> None:
        asked.append(options)
        raise redis.ConnectionError

    monkeypatch.setattr(redis, "Redis", client)
    url = "redis://h?db=3&socket_timeout=60&socket_connect_timeout=60&retry_on_timeout=yes"
    member = Coordinator(url, "evscrub.one", "host:1:a", membership_seconds=30, request_seconds=3)
    with pytest.raises(CoordinatorAwayError):
        member.beat(Published(Fraction(0)))
    used = {name: asked[0][name] for name in ("db", "socket_timeout", "socket_connect_timeout")}
    assert used == {"db": 3, "socket_timeout": 3.0, "socket_connect_timeout": 3.0}
