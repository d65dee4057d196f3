# SPDX-License-Identifier: Apache-2.0
"""All stores and images in trouble, one a line of JSON, for ``evscrub list``; sent in pieces."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

import anyio.lowlevel

from evscrub.domain.verdict import Outcome
from evscrub.flow_control.circuit_breaker import State
from evscrub.scrubbing.lane import Lane
from evscrub.status.sources import Sources
from evscrub.status.view import trouble_view
from evscrub.telemetry.statistics import Trouble

_PIECE = 500


def lines(
    lanes: Iterable[Lane], troubles: Mapping[str, Trouble], damaged: Mapping[str, str]
) -> Iterator[str]:
    """Yield a line for each store that nothing, or little, is deleted from, and for each image."""
    for lane in lanes:
        breaker = lane.breaker
        if breaker.state is not State.CLOSED:
            told = {"store": lane.name, "state": breaker.state.value, "reason": breaker.reason}
            yield json.dumps(told) + "\n"
    for image_id, trouble in troubles.items():
        state = "retrying"
        if trouble.parked:
            state = "parked"
        elif trouble.verdict.outcome is Outcome.IN_USE:
            state = "in use"
        yield json.dumps({"id": image_id, "state": state, **trouble_view(trouble)}) + "\n"
    for image_id, reason in damaged.items():
        yield json.dumps({"id": image_id, "state": "damaged", "reason": reason}) + "\n"


async def pieces(sources: Sources) -> AsyncIterator[bytes]:
    """Yield the lines in pieces, with a turn for everybody else in between."""
    # Copies: all of them change while a slow client reads.
    record = sources.scrubber.record
    found = lines(list(sources.scrubber.lanes), dict(record.troubles), dict(record.damaged))
    piece: list[str] = []
    for line in found:
        piece.append(line)
        if len(piece) == _PIECE:
            yield "".join(piece).encode()
            piece = []
            await anyio.lowlevel.checkpoint()
    if piece:
        yield "".join(piece).encode()
