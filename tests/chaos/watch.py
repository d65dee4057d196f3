# SPDX-License-Identifier: Apache-2.0
"""Looks at everything all along, and says what must never be."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from urllib.parse import urlparse

from evscrub.registry.database import UNAVAILABLE
from tests.chaos.faults import Faults
from tests.chaos.plan import CLAIM_TIMEOUT, Act
from tests.chaos.site import SCRUBBER, Site
from tests.chaos.store import BUCKET, COPIES, Request
from tests.chaos.story import Story

MEMORY_LIMIT = 400 << 20
#: How long after it resumed an agent may take to finish the store calls that it was stopped in: a
#: bound for what hangs, since the machine may be slow.
_RESUMED_SECONDS = 10.0
#: What an agent logs right before it checks the lease and calls the store of a second location.
_BEGUN = re.compile(rf"About to delete image (\S+) from store {COPIES}\b")
_LIVE = (
    "SELECT i.id, l.id, l.value FROM images i JOIN image_locations l ON l.image_id = i.id"
    " WHERE i.status = 'active' AND NOT i.deleted AND NOT l.deleted AND l.status = 'active'"
)
#: What an agent says when something happens that nobody foresaw.
DEFECTS = ("Cannot process image", "A worker of store", "Unhandled")


class Watch:
    """The invariants of a run."""

    def __init__(self, site: Site, stories: dict[str, Story]) -> None:
        self.violations: list[tuple[str, str]] = []
        self.faults = Faults(site, lambda text: self.violated("", text))
        self.memory: dict[str, int] = defaultdict(int)
        self.deletes = 0
        self.twice_excused = 0
        self._site = site
        self._stories = stories
        self._files: set[str] = set()
        self._vanished: dict[str, float] = {}
        self._audited = 0
        self._unaudited: list[Request] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(look, pause), daemon=True)
            for look, pause in (
                (self._look_at_files, 0.2),
                (self._look_at_live, 1.0),
                (self._look_at_agents, 2.0),
            )
        ]

    def begin(self) -> None:
        """Look all along, in threads."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def violated(self, image_id: str, text: str) -> None:
        """Note that something is as it must never be."""
        self.violations.append((image_id, text))

    def _repeat(self, look: object, pause: float) -> None:
        assert callable(look)
        while not self._over.wait(pause):
            try:
                look()
            except UNAVAILABLE:
                continue
            except Exception as error:  # noqa: BLE001 - a watch that fails proves nothing
                self.violated("", f"the watch itself failed: {error!r}")
                return

    # -- all along

    def _look_at_live(self) -> None:
        """No live image's data is ever gone."""
        for image_id, number, url in self._site.rows.read(_LIVE):
            if self._has_data(url) is not False:
                continue
            if (image_id, number, url) in [tuple(row) for row in self._site.rows.read(_LIVE)]:
                deleters = {
                    r.who for r in self._site.objects.requests if _image_of(r.key) == image_id
                }
                if deleters and not any(who.startswith("agent") for who in deleters):
                    self.faults.note(f"glance-scrubber took the data of the live {image_id}")
                    continue
                self.violated(image_id, f"it is live and its data is gone: {_scheme(url)}")

    def _has_data(self, url: str) -> bool | None:
        """Whether there is data at a location; None if that cannot be told now."""
        if _scheme(url) == "s3":
            return _key(url) in self._site.objects
        if not self._site.mount.acquire(blocking=False):
            return None
        try:
            return Path(urlparse(url).path).exists()
        finally:
            self._site.mount.release()

    def _look_at_files(self) -> None:
        """Nothing is scrubbed before its time: files, which nobody but agents delete."""
        if not self._site.mount.acquire(blocking=False):
            return
        try:
            there = {path.name for path in self._site.files.iterdir()}
        finally:
            self._site.mount.release()
        now = time.time()
        for image_id in self._files - there:
            self._vanished[image_id] = now
        self._files = there

    def _look_at_agents(self) -> None:
        """Agents' memory stays bounded, and they do not end by themselves."""
        for agent in self._site.agents:
            size = agent.resident_bytes
            self.memory[agent.name] = max(self.memory[agent.name], size)
            if size > MEMORY_LIMIT:
                self.violated("", f"{agent.name} has {size >> 20} MiB")
            process = agent.process
            ended = process is not None and process.poll() is not None
            if process is not None and ended and not agent.is_away and process is agent.process:
                self.violated("", f"{agent.name} ended by itself: {process.returncode}")
        self._site.start_scrubber()
        self.audit()

    # -- what was deleted

    def audit(self, *, final: bool = False) -> None:
        """Judge the deletes since the last time, of images to which nothing is being done."""
        requests = self._site.objects.requests
        self._unaudited += requests[self._audited :]
        self._audited += len(requests) - self._audited
        waiting = []
        for request in self._unaudited:
            story = self._stories.get(_image_of(request.key))
            if story is None or not request.deleted or not request.who.startswith("agent"):
                continue
            if story.busy_since is not None and not final:
                waiting.append(request)
                continue
            self.deletes += 1
            if request.key.startswith(COPIES) and story.taken_off is not None:
                continue  # it was taken off the live image
            reason = story.why_not(request.at)
            if reason is not None:
                self.violated(
                    story.life.image_id, f"{request.who} deleted it at {request.at:.2f}: {reason}"
                )
        self._unaudited = waiting
        for image_id, at in list(self._vanished.items()):
            story = self._stories.get(image_id)
            if story is None or (story.busy_since is not None and not final):
                continue
            del self._vanished[image_id]
            self.deletes += 1
            if story.taken_off is not None:
                continue  # its file was the location that was taken off
            reason = story.why_not(at)
            if reason is not None:
                self.violated(image_id, f"its file was gone at {at:.2f}: {reason}")

    def judge_doubles(self) -> None:
        """No delete is issued twice for one location except after a kill, a stop or a takeover."""
        by_key: dict[str, list[Request]] = defaultdict(list)
        for request in self._site.objects.requests:
            if request.status in {204, 404} or (request.method == "HEAD" and request.status == 200):
                by_key[request.key].append(request)
        for key, requests in by_key.items():
            requests.sort(key=lambda request: request.at)
            first = next((r for r in requests if r.deleted), None)
            if first is None or first.who == SCRUBBER:
                continue
            for again in requests:
                if again.at <= first.at or again.who == SCRUBBER or again.method == "PUT":
                    continue
                if self._is_excused(first, again):
                    self.twice_excused += 1
                    break
                self.violated(
                    _image_of(key),
                    f"{first.who} deleted it at {first.at:.2f}, and {again.who} came again at"
                    f" {again.at:.2f} ({again.method} {again.status})",
                )
                break

    def judge_sleepers(self) -> None:
        """An agent that was stopped for longer than its claims last goes on with none of them."""
        for agent in self._site.agents:
            heads = [
                r for r in self._site.objects.requests if r.who == agent.name and r.method == "HEAD"
            ]
            for slept, woke, logged in agent.sleeps:
                if woke - slept < CLAIM_TIMEOUT:
                    continue
                before = {r.key for r in heads if slept - 5 < r.at < woke}
                after = {r.key: r.at for r in heads if woke <= r.at < woke + CLAIM_TIMEOUT}
                # A store call that began before may come to its first request only now.
                begun = set(_BEGUN.findall(agent.log, logged))
                for key, at in after.items():
                    # Its first location's delete was under way, and the second one came next.
                    image_id = _image_of(key)
                    # One that it let go of may be claimed again, by itself too.
                    let_go = f"The claim of image {image_id} expired" in agent.log
                    let_go = let_go or self._was_settled(image_id, woke, at)
                    went_on = image_id in before - after.keys() and image_id in begun
                    if key != image_id and went_on and not let_go:
                        self.violated(
                            image_id,
                            f"{agent.name} slept {slept:.2f}..{woke:.2f} and went on with {key}",
                        )

    def _was_settled(self, image_id: str, since: float, until: float) -> bool:
        """Return whether a deleted location was written down between two times: a claim's end."""
        return any(
            row["status"] == "deleted"
            and since <= row["deleted_at"].replace(tzinfo=UTC).timestamp() <= until
            for row in self._site.rows.rows("image_locations", image_id)
        )

    def _is_excused(self, first: Request, again: Request) -> bool:
        absences = [
            span
            for agent in self._site.agents
            if agent.name == first.who
            for span in agent.absences
        ]
        if _overlap(absences, first.at - 1, again.at):
            return True
        # The claim expired while its agent was stopped inside a store call, which then went on.
        if any(
            stopped < first.at and 0 <= again.at - resumed < _RESUMED_SECONDS
            for agent in self._site.agents
            if agent.name == again.who
            for stopped, resumed in agent.absences
        ):
            return True
        # Nobody could write down that it was deleted, until the claim ran out.
        takeover = again.at - first.at > CLAIM_TIMEOUT / 2
        return takeover and _overlap(self.faults.outages, first.at - 2, again.at)

    # -- at the end

    def outstanding(self) -> list[str]:
        """Return the images that are due, or will be, and not scrubbed."""
        return self._site.rows.outstanding()

    def judge_end(self) -> dict[str, int]:
        """Judge what is left when all is quiet; returns how many images ended how."""
        counts: dict[str, int] = defaultdict(int)
        for image_id, story in self._stories.items():
            counts[self._end_of(image_id, story)] += 1
        for agent in self._site.agents:
            log = agent.log
            for text in DEFECTS:
                if text in log:
                    line = next(line for line in log.splitlines() if text in line)
                    self.violated("", f"{agent.name} says: {line}")
        return dict(counts)

    def _end_of(self, image_id: str, story: Story) -> str:
        if story.abandoned:
            return "given up by Glance or the run"
        found = self._site.rows.rows("images", image_id)
        if not found:
            if not story.deeds:
                return "not born"
            if not story.purged:
                self.violated(image_id, "its rows are gone though nobody purged it")
            return "purged"
        status = str(found[0]["status"])
        locations = self._site.rows.rows("image_locations", image_id)
        for row in locations:
            # What was taken off the live image was scrubbed for itself, and no restore brings it.
            taken_off = story.taken_off is not None and row["meta_data"] == json.dumps(
                {"store": story.life.stores[1]}
            )
            of_image = "deleted" if taken_off else status
            self._judge_location(image_id, of_image, row["status"], row["value"])
        last = story.last
        expected = {
            Act.CREATE: "active",
            Act.RESTORE: "active",
            Act.HOLD: "pending_delete",
            Act.DELETE: "deleted",
            Act.RELEASE: "deleted",
        }
        if last is not None and status != expected[last.act]:
            self.violated(image_id, f"it is {status} after {last.act.value}")
        if status == "deleted" and any(row["status"] != "deleted" for row in locations):
            self.violated(image_id, "it is deleted, its locations are not")
        return {"pending_delete": "held", "deleted": "scrubbed"}.get(status, status)

    def _judge_location(self, image_id: str, status: str, of_location: str, url: str) -> None:
        has = self._has_data(url)
        if of_location == "deleted" and has:
            self.violated(image_id, f"a location is deleted, its data is not: {_scheme(url)}")
        kept = of_location != "deleted" and status != "deleted"
        if kept and not has and not self._only_scrubber(image_id):
            self.violated(image_id, f"it is {status} and its data is gone")

    def _only_scrubber(self, image_id: str) -> bool:
        return {
            r.who for r in self._site.objects.requests if _image_of(r.key) == image_id and r.deleted
        } == {SCRUBBER}


def _overlap(spans: Iterable[tuple[float, float]], since: float, until: float) -> bool:
    return any(began <= until and ended >= since for began, ended in spans)


def _key(url: str) -> str:
    """The object store's name for an object."""
    bucket, _, key = urlparse(url).path.strip("/").partition("/")
    return key if bucket == BUCKET else f"{bucket}/{key}"


def _image_of(key: str) -> str:
    return key.rpartition("/")[2]


def _scheme(url: str) -> str:
    return url.partition(":")[0]
