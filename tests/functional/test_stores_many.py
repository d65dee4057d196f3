# SPDX-License-Identifier: Apache-2.0
"""Several stores, limits and their tuning, encrypted locations, and orphans."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from glance.common import crypt

from tests.functional import store_servers
from tests.functional.agents import wait_for
from tests.functional.store_servers import (
    BUCKET,
    Location,
    Request,
    Site,
    SiteFactory,
    StoreServer,
    s3_options,
    s3_url,
)

new_site, memory_s3 = store_servers.new_site, store_servers.memory_s3

STORES = {"files": "file", "objects": "s3", "more": "file"}
KEY = "0123456789abcdef0123456789abcdef"
PENDING = ("pending_delete", {"pending_delete"})
#: A location taken off a live image is scrubbed so long after, and scrub_time, which is 0 here.
GRACE_SECONDS = 600


@pytest.fixture
def objects(memory_s3: StoreServer) -> Iterator[StoreServer]:
    """Return an S3 server that answers immediately."""
    yield memory_s3
    memory_s3.behave()


def in_objects(server: StoreServer, count: int) -> list[list[Location]]:
    """Create objects; return a list of locations for each."""
    names = [str(uuid.uuid4()) for _ in range(count)]
    server.put([f"/{BUCKET}/{name}" for name in names])
    return [[Location("objects", s3_url(server, name))] for name in names]


def in_files(site: Site, count: int) -> list[list[Location]]:
    """Write files; return a list of locations for each."""
    return [[Location("files", site.file(str(uuid.uuid4()), "files"))] for _ in range(count)]


class TestSeveralStores:
    def test_only_the_failed_location_is_retried(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(objects))
        ((third,),) = in_objects(objects, 1)
        first, last = site.file("first", "files"), site.file("last", "more")
        image_id = site.images.add(Location("files", first), third, Location("more", last))
        objects.behave(refuse=503)
        before = len(objects.requests())
        with site.agent():
            expected = {first: "deleted", third.url: "pending_delete", last: "deleted"}
            wait_for("the others", lambda: site.images.locations(image_id) == expected)
            assert not site.path("first", "files").exists()
            assert not site.path("last", "more").exists()
            # What was deleted is not asked for again: a file there now is another one's.
            site.file("first", "files")
            wait_for("a second try", lambda: len(objects.requests()) >= before + 2)
            wait_for("release", lambda: site.images.at_rest() == {image_id})
            objects.behave()
            site.wait_scrubbed([image_id])
            assert site.path("first", "files").exists()

    def test_hanging_store_does_not_delay_the_others(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(objects))
        objects.behave(hang=True)
        hanging = site.images.add_many(in_objects(objects, 40))
        with site.agent({"concurrency": 8}) as agent:
            agent.wait_for_log("Sweep (full)")
            # The hanging store has what it can get by now.
            site.wait_swept(agent, 2)
            # Sooner than its requests time out, after which there would be place for others.
            site.wait_scrubbed(site.images.add_many(in_files(site, 40)), deadline=40)
            assert not any(site.images.is_scrubbed(image_id) for image_id in hanging)
            objects.behave()
            site.wait_scrubbed(hanging)

    def test_failing_store_does_not_delay_the_others(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(objects))
        objects.behave(refuse=500)
        failing = site.images.add_many(in_objects(objects, 40))
        files = site.images.add_many(in_files(site, 40))
        with site.agent() as agent:
            site.wait_scrubbed(files)
            agent.wait_for_log("Store objects does not work")
            wait_for("release", lambda: site.images.at_rest() == set(failing))

    def test_data_in_a_disabled_store_is_never_taken_as_gone(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site({"files": "file"})
        # No two have one URL: what shares its data with another that is pending may be finished.
        (named,), (nameless,), (second,) = in_objects(objects, 3)
        path = site.path("x", "files")
        url = site.file("x", "files")
        parked = [
            site.images.add(named),
            site.images.add(Location("elsewhere", url)),
            site.images.add(Location("elsewhere", f"file://{path.parent}/never-there")),
            site.images.add(Location(None, nameless.url)),
        ]
        mixed = site.images.add(Location("files", site.file("y", "files")), second)
        other = site.images.add(*in_files(site, 1)[0])
        with site.agent() as agent:
            site.wait_scrubbed([other])
            agent.wait_for_log("not scrubbed (store not enabled)")
            site.wait_swept(agent)
            wait_for("release", lambda: site.images.at_rest() >= {*parked, mixed})
            for image_id in parked:
                assert site.images.status(image_id) == PENDING
            # Told once, however many they are and however often they were found.
            assert agent.log.count("not scrubbed (store not enabled)") == 1
            assert sorted(site.images.locations(mixed).values()) == ["deleted", "pending_delete"]
            assert agent.process is not None
            assert agent.process.poll() is None
        assert path.exists()
        assert not site.path("y", "files").exists()


class TestEncrypted:
    def encrypted(self, url: str) -> str:
        return str(crypt.urlsafe_encrypt(KEY, url, 64))

    def test_encrypted_locations_with_the_right_key(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, KEY, objects=s3_options(objects))
        plain, (secret,) = in_files(site, 1)[0], in_objects(objects, 1)[0]
        images = [
            site.images.add(*plain),
            site.images.add(Location("objects", self.encrypted(secret.url))),
        ]
        with site.agent():
            site.wait_scrubbed(images)
        assert "/" + secret.url.split("/", 3)[3] not in objects.left()

    def test_encrypted_locations_with_another_key(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, KEY[::-1], objects=s3_options(objects))
        (secret,) = in_objects(objects, 1)[0]
        image_id = site.images.add(Location("objects", self.encrypted(secret.url)))
        other = site.images.add(*in_files(site, 1)[0])
        with site.agent() as agent:
            agent.wait_for_log(f"Image {image_id} is not scrubbed from store objects")
            assert "undecipherable" in agent.log
            site.wait_swept(agent)
            # Any data may be that of a location that cannot be read.
            assert site.images.status(image_id) == site.images.status(other) == PENDING
        assert "/" + secret.url.split("/", 3)[3] in objects.left()


class TestOrphans:
    def test_orphan_is_scrubbed_after_its_grace_period(self, new_site: SiteFactory) -> None:
        site = new_site({"files": "file"})
        kept, removed, recent, kept_too = (
            site.file(name, "files") for name in ("kept", "removed", "recent", "kept_too")
        )
        old = site.images.add(
            Location("files", kept, "active"),
            Location("files", removed),
            status="active",
            age=GRACE_SECONDS + 30,
        )
        young = site.images.add(
            Location("files", kept_too, "active"),
            Location("files", recent),
            status="active",
            age=GRACE_SECONDS - 120,
        )
        with site.agent() as agent:
            wait_for(
                "scrubbing",
                lambda: site.images.locations(old) == {kept: "active", removed: "deleted"},
            )
            site.wait_swept(agent)
            assert site.images.locations(young)[recent] == "pending_delete"
        assert site.images.statuses() == {"active": 2}
        there = {path.name for path in site.path("", "files").iterdir()}
        assert there == {"kept", "kept_too", "recent"}

    def test_orphans_stay_if_disabled(self, new_site: SiteFactory) -> None:
        site = new_site({"files": "file"})
        removed = site.file("removed", "files")
        image_id = site.images.add(
            Location("files", site.file("kept", "files"), "active"),
            Location("files", removed),
            status="active",
            age=10 * GRACE_SECONDS,
        )
        with site.agent(sweep={"orphans": "false"}) as agent:
            site.wait_scrubbed([site.images.add(*in_files(site, 1)[0])])
            site.wait_swept(agent)
        assert site.images.locations(image_id)[removed] == "pending_delete"
        assert site.path("removed", "files").exists()

    def test_live_image_without_a_live_location_is_reported_and_not_touched(
        self, new_site: SiteFactory
    ) -> None:
        """``glance-scrubber --restore`` leaves such an image."""
        site = new_site({"files": "file"})
        url = site.file("data", "files")
        image_id = site.images.add(Location("files", url), status="active", age=10 * GRACE_SECONDS)
        with site.agent() as agent:
            agent.wait_for_log(f"Image {image_id} is damaged and left alone")
            site.wait_swept(agent)
            assert agent.log.count(f"Image {image_id} is damaged") == 1
        assert site.images.locations(image_id) == {url: "pending_delete"}
        assert site.images.statuses() == {"active": 1}
        assert site.path("data", "files").exists()

    @pytest.mark.parametrize("key", [None, KEY])
    def test_data_shared_with_a_live_image_stays(
        self, new_site: SiteFactory, key: str | None
    ) -> None:
        site = new_site({"files": "file"}, key)
        url = site.file("data", "files")

        def written() -> str:
            return url if key is None else str(crypt.urlsafe_encrypt(key, url, 64))

        site.images.add(Location("files", written(), "active"), status="active")
        deleted = site.images.add(Location("files", written()))
        orphan = site.images.add(
            Location("files", site.file("own", "files"), "active"),
            Location("files", written()),
            status="active",
            age=10 * GRACE_SECONDS,
        )
        with site.agent():
            site.wait_scrubbed([deleted])
            wait_for(
                "the orphan",
                lambda: sorted(site.images.locations(orphan).values()) == ["active", "deleted"],
            )
        assert site.path("data", "files").exists()

    def test_data_shared_with_a_pending_image_is_deleted_with_the_last(
        self, new_site: SiteFactory
    ) -> None:
        site = new_site({"files": "file"})
        location = Location("files", site.file("data", "files"))
        first = site.images.add(location)
        last = site.images.add(location, age=-3600)
        with site.agent():
            site.wait_scrubbed([first])
        assert site.path("data", "files").exists()
        site.images.fall_due(last)
        with site.agent():
            site.wait_scrubbed([last])
        assert not site.path("data", "files").exists()


def deletes(requests: Sequence[Request]) -> list[float]:
    """Return the times of deletes."""
    return [request.at for request in requests if request.method == "DELETE"]


def most_at_once(requests: Sequence[Request], seconds: float) -> int:
    """Return the largest number of concurrent requests, each of which took `seconds`."""
    ends = [(request.at, 1) for request in requests]
    ends += [(request.at + seconds, -1) for request in requests]
    most = now = 0
    for _, change in sorted(ends):
        now += change
        most = max(most, now)
    return most


def check_windows(times: Sequence[float], rate: float, slack: float = 3.0) -> None:
    """Check that no time window has more deletes than the rate and a burst of one allow.

    :param slack: seconds that a request may be on its way: on a busy machine those of some
        seconds arrive together.
    """
    for first in range(0, len(times), 5):
        for last in range(first, len(times), 5):
            most = 1 + rate * (times[last] - times[first] + slack)
            assert last - first + 1 <= most, (times[first], times[last])


class TestLimits:
    def test_store_concurrency(self, objects: StoreServer, new_site: SiteFactory) -> None:
        site = new_site(STORES, objects=s3_options(objects))
        objects.behave(seconds=0.2)
        before = len(objects.requests())
        images = site.images.add_many([*in_objects(objects, 12), *in_files(site, 20)])
        with site.agent({"store_concurrency": "objects:2,object:1"}) as agent:
            agent.wait_for_log("store_concurrency names object, which is not a store of this agent")
            site.wait_scrubbed(images)
        assert most_at_once(objects.requests(before), 0.19) == 2

    def test_store_rate_and_concurrency_changed_under_load(
        self, objects: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(objects))
        images = site.images.add_many(in_objects(objects, 300))
        before = len(objects.requests())
        quiet = {"debug": "false"}  # so that the rates are far below what an agent can do

        def came() -> list[float]:
            return deletes(objects.requests(before))

        def enough(wanted: int) -> bool:
            return len(came()) >= wanted

        with site.agent({"store_rate": "objects:1"}, DEFAULT=quiet) as agent:
            files = site.images.add_many(in_files(site, 20))
            wait_for("some at 1/s", partial(enough, 6))
            site.wait_scrubbed(files)
            measures = {1: came()}
            for rate, count in ((8, 24), (2, 16)):
                agent.options["scrubber"]["store_rate"] = f"objects:{rate}"
                agent.reload()
                # Beside what was under way by then.
                seen = len(came()) + 5
                wait_for(f"some at {rate}/s", partial(enough, seen + count))
                measures[rate] = came()[seen:]
            agent.options["scrubber"].update(store_rate="objects:0", store_concurrency="objects:1")
            agent.reload()
            site.wait_scrubbed(images)
        for rate, times in measures.items():
            check_windows(times, rate)
        with pytest.raises(AssertionError):
            check_windows(measures[8], 1)
