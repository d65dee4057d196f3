# SPDX-License-Identifier: Apache-2.0
"""All images in trouble, one a line of JSON, for ``evscrub list``; sent in pieces."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping

import anyio.lowlevel

from evscrub.record import Record, Trouble
from evscrub.status.view import trouble_view
from evscrub.verdict import Outcome

_PIECE = 500


def lines(troubles: Mapping[str, Trouble], damaged: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each image."""
    for image_id, trouble in troubles.items():
        state = "retrying"
        if trouble.parked:
            state = "parked"
        elif trouble.verdict.outcome is Outcome.IN_USE:
            state = "in use"
        yield json.dumps({"id": image_id, "state": state, **trouble_view(trouble)}) + "\n"
    for image_id, reason in damaged.items():
        yield json.dumps({"id": image_id, "state": "damaged", "reason": reason}) + "\n"


async def pieces(record: Record) -> AsyncIterator[bytes]:
    """Yield the lines in pieces, with a turn for everybody else in between."""
    # A copy: both change while a slow client reads.
    found = lines(dict(record.troubles), dict(record.damaged))
    piece: list[str] = []
    for line in found:
        piece.append(line)
        if len(piece) == _PIECE:
            yield "".join(piece).encode()
            piece = []
            await anyio.lowlevel.checkpoint()
    if piece:
        yield "".join(piece).encode()
