# SPDX-License-Identifier: Apache-2.0
"""``POST /retry``, the only request of the status port that changes something.

It makes failed images due earlier than the agent would, so the worst that a client can do with it
is to cost time: the registry, claims, holds, limits and paused stores are checked as usual. Still,
only programs on this host may send it, or on hosts in ``[status] retry_from``, and no web page can:
a browser sends an Origin header with each POST, and sends JSON to another origin only after asking
by OPTIONS, which the server refuses.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from oslo_log import log as logging

from evscrub.domain.words import count
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing.retries import Retried
from evscrub.scrubbing.statistics import ScrubberStatistics
from evscrub.status.server import Answer, Post
from evscrub.stores.faults import Fault

LOG = logging.getLogger(__name__)

PATH = "/retry"
_JSON = "application/json"
#: Glance's columns hold no longer ids, and its names of stores are far shorter.
_LONGEST_ID = 36
_LONGEST_NAME = 240
_MOST_NAMES = 1000
_LOGGED_CHARACTERS = 200

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Retry:
    """What may be retried, and how.

    :param images: retries images by id, see :meth:`evscrub.scrubbing.retries.Retries.images`.
    :param stores: retries the images of stores, None for all images, see
        :meth:`evscrub.scrubbing.retries.Retries.stores`.
    :param networks: networks whose hosts may ask for it, besides this host.
    """

    images: Callable[[Sequence[str]], Awaitable[Retried]]
    stores: Callable[[Collection[str] | None], Awaitable[Retried]]
    networks: Sequence[Network]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for: images, or stores, or everything if both are None."""

    images: tuple[str, ...] | None = None
    stores: tuple[str, ...] | None = None

    def __str__(self) -> str:
        names = self.images or self.stores
        if names is None:
            return "all failed images"
        said = ", ".join(map(repr, names))
        if len(said) > _LOGGED_CHARACTERS:
            said = f"{said[:_LOGGED_CHARACTERS]}..."
        number = count(len(names), "image" if self.images else "store")
        return f"{number}: {said}"


class RetryRoute:
    """Responds to requests for a retry.

    :param names: returns the names of the enabled stores.
    :param faults: returns why stores cannot be used, by store.
    :param statistics: returns the scrubber's statistics.
    """

    def __init__(
        self,
        retry: Retry,
        names: Callable[[], Sequence[str]],
        faults: Callable[[], Mapping[str, Fault]],
        statistics: Callable[[], ScrubberStatistics],
    ) -> None:
        self._retry = retry
        self._names = names
        self._faults = faults
        self._statistics = statistics

    async def accept(self, post: Post) -> Answer:
        """Retry what a request asks for, and return what became due as JSON."""
        refused = refusal(post, self._retry.networks)
        if refused is not None:
            return refused
        try:
            wanted = read_wanted(post.body)
        except ValueError as error:
            return Answer(f"{error}.\n", status=HTTPStatus.BAD_REQUEST)
        names = self._names()
        unknown = sorted(set(wanted.stores or ()) - set(names))
        if wanted.images is not None:
            retried = await self._retry.images(wanted.images)
        else:
            stores = None if wanted.stores is None else set(wanted.stores) - set(unknown)
            retried = await self._retry.stores(stores)
        LOG.info(
            "Retrying %s, asked for by %s (%s)", count(retried.due, "image"), post.client, wanted
        )
        concerned = retried.stores | set(names if wanted == Wanted() else wanted.stores or ())
        shown = {
            "due": retried.due,
            "waiting": retried.waiting,
            "in_work": retried.in_work,
            "not_retried": retried.not_retried,
            "unknown": retried.unknown,
            "stores": self._troubled(concerned),
            "unknown_stores": unknown,
            "known_stores": list(names),
        }
        return Answer(json.dumps(shown, separators=(",", ":")), _JSON)

    def _troubled(self, concerned: Collection[str]) -> list[dict[str, str]]:
        """Return the stores, of those concerned, that cannot be used or whose breaker is open."""
        faults = self._faults()
        shown = []
        for lane in self._statistics().lanes:
            fault = faults.get(lane.store)
            is_closed = lane.health.breaker is State.CLOSED
            if lane.store in concerned and (fault or not is_closed):
                shown.append(
                    {
                        "name": lane.store,
                        "breaker": lane.health.breaker.value,
                        "reason": lane.health.reason,
                        "fault": fault.hint if fault else "",
                    }
                )
        return shown


def refusal(post: Post, networks: Sequence[Network]) -> Answer | None:
    """Return the response to a request that must not change anything; None if it may.

    :param networks: networks whose hosts may send one, besides this host.
    """
    if not post.is_from_here and not any(post.client in network for network in networks):
        return Answer(
            f"Only this host may ask for a retry, not {post.client}: run evscrub retry here, or set"
            " [status] retry_from.\n",
            status=HTTPStatus.FORBIDDEN,
        )
    if "origin" in post.headers:
        return Answer("Not from a web page.\n", status=HTTPStatus.FORBIDDEN)
    media_type = post.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON:
        return Answer(f"Only {_JSON}.\n", status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    return None


def read_wanted(body: bytes) -> Wanted:
    """Read a request: ``{"images": [ID, ...]}``, ``{"stores": [NAME, ...]}`` or ``{"all": true}``.

    :raises ValueError: it is anything else; the message says what is allowed.
    """
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("The body is not JSON") from None
    match found:
        case {"all": True, **rest} if not rest:
            return Wanted()
        case {"images": list(names), **rest} if not rest and _are_names(names, _LONGEST_ID):
            return Wanted(images=tuple(names))
        case {"stores": list(names), **rest} if not rest and _are_names(names, _LONGEST_NAME):
            return Wanted(stores=tuple(names))
    raise ValueError(
        'Either {"images": [ID, ...]}, {"stores": [NAME, ...]} or {"all": true}, with 1 to'
        f" {_MOST_NAMES} names, of 1 to {_LONGEST_ID} characters for images"
    )


def _are_names(found: Sequence[object], longest: int) -> bool:
    return 0 < len(found) <= _MOST_NAMES and all(
        isinstance(name, str) and 0 < len(name) <= longest for name in found
    )
