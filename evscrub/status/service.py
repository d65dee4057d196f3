# SPDX-License-Identifier: Apache-2.0
"""The status service of an agent: routes requests and keeps the data for them up to date."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files

import anyio
from prometheus_client import exposition

from evscrub.domain.address import Address
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.scrubbing.claimer import disputed
from evscrub.status import metrics, retry_route
from evscrub.status.registry_count import RegistryCounter
from evscrub.status.retry_route import Retry, RetryRoute
from evscrub.status.server import Answer, serve
from evscrub.status.snapshot import (
    STEP_SECONDS,
    AgentStatistics,
    History,
    Snapshot,
    Sources,
    Sparing,
    take,
)
from evscrub.status.view import trouble_lines, view

#: Maximum share of the event loop's time for snapshots, which are slow with a million images.
_SHARE = 0.02
_PROBE_SECONDS = 3.0
_JSON = "application/json"
_STYLE = "/*STYLE*/"
_SCRIPT = "/*SCRIPT*/"


async def run(address: Address | None, sources: Sources, retry: Retry) -> None:
    """Serve an agent's status until cancelled.

    :param address: where to listen; None returns at once.
    :param retry: what clients may retry.
    """
    if address is None:
        return
    snapshot: Sparing[Snapshot] = Sparing(lambda: take(sources), sources.clock.boot, _SHARE)
    history = History(sources.scrubber.statistics().record)
    count = RegistryCounter(
        sources.database,
        sources.clock,
        sources.stores.schemes,
        lambda: sources.scrubber.settings,
    )
    readiness = Readiness(sources.database, sources.statistics)
    routes = Routes(sources, snapshot, history, count, readiness)
    retries = RetryRoute(
        retry,
        lambda: sources.stores.names,
        lambda: sources.stores.faults,
        sources.scrubber.statistics,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep_history, history, sources)
        tasks.start_soon(_keep_count, count, routes)
        await serve(address, routes.respond, {retry_route.PATH: retries.accept})


async def _keep_history(history: History, sources: Sources) -> None:
    while True:
        statistics = sources.statistics()
        queue = statistics.queue
        history.step(statistics.now, queue.ready + queue.taken, statistics.scrubber.record)
        await anyio.sleep(STEP_SECONDS)


async def _keep_count(count: RegistryCounter, routes: "Routes") -> None:
    """Refresh the count while clients request it."""
    while True:
        await routes.count_wanted.wait()
        routes.count_wanted = anyio.Event()
        await count.refresh()
        await anyio.sleep(1.0)


class Routes:
    """Responds to requests, by path.

    :param count: count of the registry; :attr:`count_wanted` asks another task to refresh it.
    """

    def __init__(
        self,
        sources: Sources,
        snapshot: Sparing[Snapshot],
        history: History,
        count: RegistryCounter,
        readiness: "Readiness",
    ) -> None:
        self.count_wanted = anyio.Event()
        self._sources = sources
        self._snapshot = snapshot
        self._history = history
        self._count = count
        self._readiness = readiness
        self._metrics = metrics.registry(sources.statistics, snapshot.get, lambda: count.latest)
        self._page = load_page()

    async def respond(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Return the response to a GET.

        :param headers: headers of the request, with names in lower case.
        """
        match path:
            case "/":
                return Answer(
                    self._page.html,
                    "text/html; charset=utf-8",
                    headers={"Content-Security-Policy": self._page.policy},
                )
            case "/status":
                self.count_wanted.set()
                shown = view(
                    self._sources.statistics(),
                    self._snapshot.get(),
                    self._history.points,
                    self._count.latest,
                )
                return Answer(json.dumps(shown, separators=(",", ":")), _JSON)
            case "/troubles":
                scrubber = self._sources.scrubber
                lanes, images = scrubber.statistics().lanes, scrubber.images_in_trouble()
                return Answer(trouble_lines(lanes, images), "application/x-ndjson")
            case "/metrics":
                self.count_wanted.set()
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


class Readiness:
    """Checks whether an agent can do its work.

    Queries the registry at most once at a time, however many clients ask.
    """

    def __init__(self, database: Database, statistics: Callable[[], AgentStatistics]) -> None:
        self._database = database
        self._statistics = statistics
        self._thread = anyio.CapacityLimiter(1)

    async def what_lacks(self) -> list[str]:
        """Return what keeps the agent from being ready; empty if it is ready."""
        lacking = []
        registry = self._statistics().scrubber.registry
        if registry.refuses_changes:
            lacking.append("the registry takes no changes")
        elif registry.is_away or not await self._registry_answers():
            lacking.append("the registry does not answer")
        statistics = self._statistics()
        if not statistics.sweep.count:
            lacking.append("the first sweep is not done")
        if (dispute := statistics.database_clock.dispute_seconds) is not None:
            lacking.append(f"nothing is claimed: {disputed(dispute)}")
        return lacking

    async def _registry_answers(self) -> bool:
        with anyio.move_on_after(_PROBE_SECONDS):
            try:
                await anyio.to_thread.run_sync(
                    self._database.now, limiter=self._thread, abandon_on_cancel=True
                )
            except UNAVAILABLE:
                return False
            return True
        return False


@dataclass(frozen=True, slots=True)
class Page:
    """The status page, with its style and script inlined.

    :param policy: its Content-Security-Policy, which allows only its own script, style and data.
    """

    html: str
    policy: str


def load_page() -> Page:
    """Read the page from the package."""
    folder = files("evscrub.status") / "assets"
    html, style, script = (
        (folder / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:;"
        f" style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html.replace(_STYLE, style).replace(_SCRIPT, script), policy)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
