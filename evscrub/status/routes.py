# SPDX-License-Identifier: Apache-2.0
"""What is where."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client import exposition

from evscrub.status import metrics, page, troubles
from evscrub.status.history import History
from evscrub.status.readiness import Readiness
from evscrub.status.server import Answer
from evscrub.status.snapshot import Snapshot
from evscrub.status.sources import Sources
from evscrub.status.space import SpaceReader
from evscrub.status.sparing import Sparing
from evscrub.status.view import view

_JSON = "application/json"


class Routes:
    """Answers by path.

    :param space: the registry's own count, refreshed by somebody else when it is wanted.
    """

    def __init__(
        self,
        sources: Sources,
        snapshot: Sparing[Snapshot],
        history: History,
        space: SpaceReader,
        readiness: Readiness,
    ) -> None:
        self.space_wanted = False
        self._sources = sources
        self._snapshot = snapshot
        self._history = history
        self._space = space
        self._readiness = readiness
        self._metrics = metrics.registry(sources, snapshot.get, lambda: space.latest)
        self._page = page.load()

    async def respond(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Answer a GET."""
        match path:
            case "/":
                return Answer(
                    self._page.html,
                    "text/html; charset=utf-8",
                    headers={"Content-Security-Policy": self._page.policy},
                )
            case "/status":
                self.space_wanted = True
                seen = view(self._sources, self._snapshot.get(), self._history, self._space.latest)
                return Answer(json.dumps(seen, separators=(",", ":")), _JSON)
            case "/troubles":
                return Answer(troubles.pieces(self._sources), "application/x-ndjson")
            case "/metrics":
                self.space_wanted = True
                encode, content_type = exposition.choose_encoder(headers.get("accept", ""))
                return Answer(encode(self._metrics), content_type)
            case "/healthz":
                return Answer("ok\n")
            case "/readyz":
                lacking = await self._readiness.what_lacks()
                if lacking:
                    text = "".join(f"not ready: {what}\n" for what in lacking)
                    return Answer(text, status=HTTPStatus.SERVICE_UNAVAILABLE)
                return Answer("ready\n")
        return Answer("Nothing is here.\n", status=HTTPStatus.NOT_FOUND)
