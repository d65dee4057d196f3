# SPDX-License-Identifier: Apache-2.0
"""``POST /retry``: who may send it, what it may ask for, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.scrubbing.retries import Retried
from evscrub.status.retry_route import Retry, RetryRoute, Wanted, read_wanted, refusal
from evscrub.status.server import MOST_BODY_BYTES, Answer, Post
from evscrub.stores.faults import Fault
from tests.unit.agent_parts import FakeClock, make_busy, make_sources

NETWORKS = [ip_network("10.0.0.0/24"), ip_network("fd00::/8")]


def post(
    body: object = None, *, client: str = "127.0.0.1", here: bool = True, **headers: str
) -> Post:
    given = {"content_type": "application/json", **headers}
    named = {name.replace("_", "-"): value for name, value in given.items() if value}
    return Post(named, json.dumps(body).encode(), ip_address(client), here)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(), None),
        (post(content_type="Application/JSON; charset=utf-8"), None),
        (post(content_type=""), 415),
        # What a web page may send to another origin without asking first.
        (post(content_type="text/plain"), 415),
        (post(content_type="text/plain;application/json"), 415),
        (post(content_type="application/x-www-form-urlencoded"), 415),
        (post(content_type="multipart/form-data"), 415),
        (post(origin="https://evil.example"), 403),
        (post(origin="null"), 403),
        (post(origin="http://127.0.0.1:9753"), 403),
        (post(client="192.0.2.1", here=False), 403),
        (post(client="10.0.0.9", here=False), None),
        (post(client="10.0.1.9", here=False), 403),
        (post(client="fd00::1", here=False), None),
        (post(client="fe80::1%eth0", here=False), 403),
    ],
)
def test_only_programs_here_and_in_the_networks_may_ask(request_: Post, status: int | None) -> None:
    refused = refusal(request_, NETWORKS)
    assert (None if refused is None else refused.status) == status


def test_another_host_is_told_the_option() -> None:
    refused = refusal(post(client="10.0.0.9", here=False), [])
    assert refused is not None
    assert "[status] retry_from" in str(refused.body)


def test_what_is_asked_for_is_read() -> None:
    assert read_wanted(b'{"all": true}') == Wanted()
    assert read_wanted(b'{"images": ["a", "B"]}') == Wanted(images=("a", "B"))
    assert read_wanted(b'{"stores": ["fast"]}') == Wanted(stores=("fast",))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff",
        b"[" * 60_000,
        b'{"all": false}',
        b'{"all": 1}',
        b'{"all": true, "images": ["a"]}',
        b'{"images": []}',
        b'{"images": [1]}',
        b'{"images": [""]}',
        b'{"images": "a"}',
        b'{"images": ["a"], "stores": ["b"]}',
        b'{"stores": []}',
        b'{"stores": [null]}',
        json.dumps({"images": ["x" * 37]}).encode(),
        json.dumps({"images": ["x"] * 1001}).encode(),
        json.dumps({"stores": ["x" * 241]}).encode(),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|images"):
        read_wanted(body)


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_no_body_raises_anything_else(body: object) -> None:
    text = body if isinstance(body, bytes) else json.dumps({"images": body}).encode()
    with suppress(ValueError):
        read_wanted(text)


def test_a_full_request_fits_in_a_body() -> None:
    assert len(json.dumps({"images": ["x" * 36] * 1000})) <= MOST_BODY_BYTES


class Scrubber:
    """Notes what it is asked to retry."""

    def __init__(self, retried: Retried) -> None:
        self.asked: list[object] = []
        self._retried = retried

    async def images(self, ids: Sequence[str]) -> Retried:
        self.asked.append(list(ids))
        return self._retried

    async def stores(self, names: Collection[str] | None) -> Retried:
        self.asked.append(names)
        return self._retried


def answered(request_: Post, retried: Retried | None = None) -> tuple[Answer, list[object]]:
    sources = make_sources(FakeClock())
    make_busy(sources)
    scrubber = Scrubber(retried or Retried())
    route = RetryRoute(
        Retry(scrubber.images, scrubber.stores, NETWORKS),
        lambda: ["fast", "slow"],
        lambda: {"slow": Fault("store_not_loaded", "its driver is missing")},
        sources.scrubber.statistics,
    )

    async def main() -> Answer:
        return await route.accept(request_)

    return anyio.run(main), scrubber.asked


def content(answer: Answer) -> dict[str, Any]:
    assert answer.status is HTTPStatus.OK
    assert isinstance(answer.body, str)
    read: dict[str, Any] = json.loads(answer.body)
    return read


def test_images_are_retried(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    retried = Retried(2, 1, 1, {"d": "why"}, ["u"], {"fast"})
    answer, asked = answered(post({"images": ["a", "b\n", "c", "d", "u"]}), retried)
    assert asked == [["a", "b\n", "c", "d", "u"]]
    assert content(answer) == {
        "due": 2,
        "waiting": 1,
        "in_work": 1,
        "not_retried": {"d": "why"},
        "unknown": ["u"],
        "stores": [
            {
                "name": "fast",
                "breaker": "blown",
                "reason": "its directory is missing",
                "fault": "",
            }
        ],
        "unknown_stores": [],
        "known_stores": ["fast", "slow"],
    }
    (line,) = caplog.messages
    assert line == (
        "Retrying 2 images, asked for by 127.0.0.1 (5 images: 'a', 'b\\n', 'c', 'd', 'u')"
    )


def test_stores_are_retried_and_unknown_ones_named() -> None:
    answer, asked = answered(post({"stores": ["slow", "sow"]}))
    assert asked == [{"slow"}]
    shown = content(answer)
    assert shown["unknown_stores"] == ["sow"]
    assert [(store["name"], store["fault"]) for store in shown["stores"]] == [
        ("slow", "its driver is missing")
    ]


def test_everything_is_retried() -> None:
    answer, asked = answered(post({"all": True}))
    assert asked == [None]
    assert [store["name"] for store in content(answer)["stores"]] == ["fast", "slow"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post({"all": True}, origin="x"), 403),
        (post({"all": True}, client="192.0.2.1", here=False), 403),
        (post({"all": True}, content_type="text/plain"), 415),
        (post({"al": True}), 400),
    ],
)
def test_nothing_is_retried_for_a_refused_request(request_: Post, status: int) -> None:
    answer, asked = answered(request_)
    assert (answer.status, asked) == (status, [])


def test_a_long_request_makes_a_short_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    answered(post({"images": ["x" * 36] * 1000}))
    assert len(caplog.messages[0]) < 400
