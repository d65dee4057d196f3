# SPDX-License-Identifier: Apache-2.0
"""Lives the lives of images: users and operators at work, whatever else goes wrong."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

import httpx

from evscrub.domain.hold_rules import RefusedError
from evscrub.registry.database import UNAVAILABLE
from tests.chaos.plan import SCRUB_TIME, Act, Life, Plan
from tests.chaos.site import Site
from tests.chaos.store import COPIES
from tests.chaos.story import Deed, Story

T = TypeVar("T")

DATA = b"the data of an image"
#: A location that was taken off a live image is scrubbed ten minutes and the delay afterwards.
_ORPHAN_AGO = SCRUB_TIME + 610.0
_RETRY_SECONDS = 0.3
_TROUBLE = (*UNAVAILABLE, httpx.HTTPError)
#: Before it falls due, that glance-scrubber may not have an image in hand that is kept.
_MARGIN = 2.5


class GivenUpError(Exception):
    """The run ends and something still does not work."""


class PostponedError(Exception):
    """Not now: the file store is away."""


class Publisher:
    """Sends events in a thread of its own: a broker that is away holds up nobody."""

    def __init__(self, site: Site) -> None:
        self._notifier = site.notifier
        self._waiting: queue.PriorityQueue[tuple[float, int, object]] = queue.PriorityQueue()
        self._count = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    def send(self, payload: object, *, after: float = 0.0) -> None:
        """Send an image.delete in some seconds."""
        with self._lock:
            self._count += 1
            self._waiting.put((time.time() + after, self._count, payload))

    def deleted(self, image_id: str, owner: str, deleted_at: datetime, **how: float) -> None:
        """Send what Glance sends after a DELETE."""
        payload = {
            "id": image_id,
            "owner": owner,
            "status": "pending_delete",
            "deleted": True,
            "deleted_at": deleted_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "size": len(DATA),
        }
        self.send(payload, **how)

    def _run(self) -> None:
        while True:
            at, number, payload = self._waiting.get()
            pause = at - time.time()
            if pause > 0:
                self._waiting.put((at, number, payload))
                time.sleep(min(pause, 0.1))
                continue
            try:
                self._notifier.info({}, "image.delete", payload)
            except Exception:  # noqa: BLE001 - an event that is lost is one of the faults
                continue


class World:
    """All images of a run.

    :param deadline: seconds since the epoch; what does not work by then is given up.
    """

    def __init__(self, site: Site, plan: Plan, deadline: float) -> None:
        self.stories = {life.image_id: Story(life) for life in plan.lives}
        self._site = site
        self._plan = plan
        self._deadline = deadline
        self._publisher = Publisher(site)
        self._acts: dict[Act, Callable[[Story], Deed]] = {
            Act.CREATE: self._create,
            Act.DELETE: self._delete,
            Act.RESTORE: lambda story: self._keep(story, Act.RESTORE),
            Act.HOLD: lambda story: self._keep(story, Act.HOLD),
            Act.RELEASE: lambda story: self._keep(story, Act.RELEASE),
            Act.PURGE: self._purge,
            Act.TAKE_OFF: self._take_off,
            Act.FORGE: self._forge,
        }

    def live(self, began: float, go_on: Callable[[], bool]) -> None:
        """Live all lives; returns when they are over or `go_on` says no.

        :param began: the run's start, seconds since the epoch.
        """
        coming = [
            (began + life.born, number, life, 0) for number, life in enumerate(self._plan.lives)
        ]
        heapq.heapify(coming)
        running: dict[Future[bool], tuple[int, Life, int]] = {}
        malformed = began
        with ThreadPoolExecutor(8) as pool:
            while (coming or running) and go_on():
                now = time.time()
                if now > malformed:
                    self._send_malformed()
                    malformed = now + 2.0
                while coming and coming[0][0] <= now and len(running) < 16:
                    _, number, life, index = heapq.heappop(coming)
                    running[pool.submit(self._step, life, index)] = number, life, index
                for future in [future for future in running if future.done()]:
                    number, life, index = running.pop(future)
                    try:
                        goes_on = future.result()
                    except PostponedError:
                        heapq.heappush(coming, (time.time() + _RETRY_SECONDS, number, life, index))
                        continue
                    if goes_on and index < len(life.steps):
                        at = time.time() + life.steps[index].after
                        heapq.heappush(coming, (at, number, life, index + 1))
                time.sleep(0.02)

    def _step(self, life: Life, index: int) -> bool:
        """Do the next thing in a life; returns whether the life goes on."""
        story = self.stories[life.image_id]
        act = life.steps[index - 1].act if index else Act.CREATE
        story.busy_since = time.time()
        try:
            deed = self._acts[act](story)
        except GivenUpError as error:
            story.abandoned = f"{act.value}: {error}"
            return False
        story.deeds.append(deed)
        story.busy_since = None
        return not (story.purged or story.abandoned)

    def _try(self, what: Callable[[], T]) -> T:
        """Do something until nothing is in its way."""
        while True:
            try:
                return what()
            except _TROUBLE as error:
                if time.time() > self._deadline:
                    raise GivenUpError(type(error).__name__) from error
                time.sleep(_RETRY_SECONDS)

    # -- acts

    def _create(self, story: Story) -> Deed:
        life, begun = story.life, time.time()
        if life.by_api:
            self._try(lambda: self._create_by_api(life))
            return Deed(begun, time.time(), Act.CREATE, done=True)
        locations = []
        for store, key in (("objects", life.image_id), ("copies", f"{COPIES}/{life.image_id}")):
            if store in life.stores:
                self._site.objects.put(key, DATA)
                locations.append((store, self._site.objects.url(key)))
        if "files" in life.stores:
            path = self._site.files / life.image_id
            if not self._site.mount.acquire(timeout=0.05):
                raise PostponedError
            try:
                path.write_bytes(DATA)
            finally:
                self._site.mount.release()
            locations.append(("files", f"file://{path}"))

        def add() -> None:
            if not self._site.rows.rows("images", life.image_id):
                self._site.rows.add(
                    *locations,
                    image_id=life.image_id,
                    owner=life.owner,
                    size=len(DATA),
                    visibility=life.visibility,
                    properties={"a": "b"},
                    tags=["t"],
                )

        self._try(add)
        return Deed(begun, time.time(), Act.CREATE, done=True)

    def _create_by_api(self, life: Life) -> None:
        client = self._site.client
        if not self._site.rows.rows("images", life.image_id):
            client.create(
                "image",
                owner=life.owner,
                visibility=life.visibility,
                image_id=life.image_id,
                tags=["t"],
            )
        status = client.get(life.image_id)["status"]
        if status == "queued":
            client.upload(life.image_id, DATA, store="objects")
        elif status != "active":
            # Glance itself lost it in the middle of the upload.
            raise GivenUpError(f"Glance left it {status}")

    def _delete(self, story: Story) -> Deed:
        life, begun = story.life, time.time()
        self._try(lambda: self._delete_once(life))
        row = self._try(lambda: self._site.rows.rows("images", life.image_id))
        if not row:
            story.purged = True
            return Deed(begun, time.time(), Act.DELETE, done=False, note="its rows are gone")
        deleted_at: datetime = row[0]["deleted_at"]
        due = deleted_at.replace(tzinfo=UTC).timestamp() + SCRUB_TIME
        deed = Deed(begun, time.time(), Act.DELETE, done=True, due=due)
        if not life.by_api and life.event != "dropped":
            for _ in range(2 if life.event == "doubled" else 1):
                after = 5.0 if life.event == "delayed" else 0.0
                self._publisher.deleted(life.image_id, life.owner, deleted_at, after=after)
        return deed

    def _delete_once(self, life: Life) -> None:
        """Delete an image, and see to it that it is deleted indeed."""
        rows = self._site.rows
        if not life.by_api:
            rows.delete(life.image_id)
            return
        found = rows.rows("images", life.image_id)
        if not found or found[0]["deleted"]:
            return  # an answer was lost, not the DELETE
        try:
            self._site.client.delete(life.image_id)
        except httpx.HTTPStatusError:
            if not rows.image(life.image_id)["deleted"]:
                # What broke off in the middle is mended by a restore.
                with suppress(RefusedError):
                    self._site.holds.restore(life.image_id)
                raise

    def _keep(self, story: Story, act: Act) -> Deed:
        life, begun = story.life, time.time()
        unseen = life.visibility == "community"
        if (
            act is not Act.RELEASE
            and not unseen
            and (story.due or 0) < begun + _MARGIN
            and (story.last is None or story.last.act is not Act.HOLD)
        ):
            return Deed(begun, begun, act, done=False, note="too late beside glance-scrubber")
        why = ""

        def keep() -> None:
            nonlocal why
            try:
                getattr(self._site.holds, act.value)(life.image_id)
            except RefusedError as error:
                why = str(error)

        self._try(keep)
        rows = self._try(lambda: self._site.rows.rows("images", life.image_id))
        if not rows:
            story.purged = True
            return Deed(begun, time.time(), act, done=False, note="its rows are gone")
        row, due = rows[0], None
        # A commit whose answer was lost is tried again, and refused then: what counts is there.
        done = {
            Act.RESTORE: row["status"] == "active" and not row["deleted"],
            Act.HOLD: row["status"] == "pending_delete" and row["deleted_at"] is None,
            Act.RELEASE: not why,
        }[act]
        if act is Act.RELEASE and row["deleted_at"] is not None:
            done, due = True, row["deleted_at"].replace(tzinfo=UTC).timestamp() + SCRUB_TIME
        return Deed(begun, time.time(), act, done=done, note=why, due=due)

    def _purge(self, story: Story) -> Deed:
        begun = time.time()
        self._try(lambda: self._site.rows.purge(story.life.image_id))
        story.purged = not self._try(lambda: self._site.rows.rows("images", story.life.image_id))
        return Deed(begun, time.time(), Act.PURGE, done=story.purged)

    def _take_off(self, story: Story) -> Deed:
        begun = time.time()
        story.taken_off = begun
        self._try(
            lambda: self._site.rows.take_off(
                story.life.image_id, story.life.stores[1], ago=_ORPHAN_AGO
            )
        )
        return Deed(begun, time.time(), Act.TAKE_OFF, done=True)

    def _forge(self, story: Story) -> Deed:
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        self._publisher.deleted(story.life.image_id, "somebody", long_ago)
        return Deed(time.time(), time.time(), Act.FORGE, done=True)

    def _send_malformed(self) -> None:
        payloads = (
            {"id": ["x"], "status": "pending_delete"},
            "text",
            None,
            {"id": "x" * 500, "status": "pending_delete", "deleted_at": "2020-01-01T00:00:00Z"},
            {"id": "00000000-0000-0000-0000-000000000000", "status": "pending_delete"},
        )
        for payload in payloads:
            self._publisher.send(payload)
