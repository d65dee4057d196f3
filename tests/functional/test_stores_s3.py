# SPDX-License-Identifier: Apache-2.0
"""The s3 store through glance_store's driver, with moto's S3 and one in memory."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pytest

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

STORES = {"objects": "s3"}


@pytest.fixture
def bucket(moto: StoreServer) -> Iterator[StoreServer]:
    """Return moto's S3 with the bucket."""
    moto.behave()
    moto.make(f"/{BUCKET}")
    yield moto
    moto.behave()


def seed(site: Site, server: StoreServer, count: int, owner: str = "owner") -> dict[str, str]:
    """Create deleted images of an owner with their objects; return the paths by id."""
    names = [f"{owner}-{uuid.uuid4()}" for _ in range(count)]
    paths = [f"/{BUCKET}/{name}" for name in names]
    server.put(paths)
    images = [[Location("objects", s3_url(server, name))] for name in names]
    return dict(zip(site.images.add_many(images, owner=owner), paths, strict=True))


class TestOnMoto:
    def test_existing_data_is_deleted_and_missing_data_is_finished(
        self, bucket: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(bucket))
        images = seed(site, bucket, 8)
        missing = list(images)[:2]
        for image_id in missing:
            bucket.remove(images[image_id])
        kept = f"/{BUCKET}/kept"
        bucket.put([kept])
        with site.agent(DEFAULT={"default_log_levels": ""}):
            site.wait_scrubbed(images)
        assert not any(bucket.has(path) for path in images.values())
        assert bucket.has(kept)
        bucket.remove(kept)

    @pytest.mark.parametrize("status", [503, 429, 500])
    def test_throttling_is_waited_out(
        self, bucket: StoreServer, new_site: SiteFactory, status: int
    ) -> None:
        site = new_site(STORES, objects=s3_options(bucket))
        images = seed(site, bucket, 12)
        bucket.behave(refuse=status)
        before = len(bucket.requests())
        with site.agent() as agent:
            agent.wait_for_log("Store objects does not work")
            assert all(bucket.has(path) for path in images.values())
            # What is not in work is nobody's.
            wait_for("release", lambda: site.images.at_rest() == set(images))
            # Five failed, which opens the breaker; they may be gone, so no restore is to get them.
            assert site.images.statuses()["deleted"] >= 5
            refused = len(bucket.requests()) - before
            bucket.behave()
            site.wait_scrubbed(images)
            agent.wait_for_log("Store objects works again")
        assert refused <= 12 + 15  # each image at most once, and some probes
        assert not any(bucket.has(path) for path in images.values())

    def test_deletes_refused_after_a_successful_head(
        self, bucket: StoreServer, new_site: SiteFactory
    ) -> None:
        """The driver checks that the object exists, and passes on the error of the delete."""
        site = new_site(STORES, objects=s3_options(bucket))
        images = seed(site, bucket, 3)
        bucket.behave(refuse=403, refuse_methods=["DELETE"])
        with site.agent({"retry_initial": 0.1}) as agent:
            agent.wait_for_log("not scrubbed from store objects (refused)")
            assert all(bucket.has(path) for path in images.values())
            assert "does not work" not in agent.log
            bucket.behave()
            site.wait_scrubbed(images)

    def test_missing_bucket_pauses_the_store_until_acknowledged(
        self, bucket: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(bucket))
        images = seed(site, bucket, 60)
        for path in images.values():
            bucket.remove(path)
        bucket.remove(f"/{BUCKET}")
        # Slow answers, so that many are under way when the fuse blows.
        bucket.behave(seconds=0.3)
        before = len(bucket.requests())
        with site.agent({"not_found_limit": 10, "concurrency": 16}) as agent:
            agent.wait_for_log("Store objects is paused: 10 images are not there")
            alarm = next(line for line in agent.log.splitlines() if "is paused" in line)
            assert "ERROR" in alarm
            assert "acknowledged_stores" in alarm
            assert "SIGHUP" in alarm
            site.wait_swept(agent, 5)
            # A row that was believed would have been settled by now.
            assert site.images.statuses() == {"pending_delete": 60}
            # A driver looks for the bucket and the object before a delete.
            assert len(bucket.requests()) - before <= 2 * 60 + 2 * 16
            assert agent.log.count("is paused") == 1
            agent.options["scrubber"]["acknowledged_stores"] = "objects"
            agent.reload()
            site.wait_scrubbed(images)

    def test_repaired_store_resumes_after_a_reload(
        self, bucket: StoreServer, new_site: SiteFactory
    ) -> None:
        site = new_site(STORES, objects=s3_options(bucket))
        images = seed(site, bucket, 12)
        for path in images.values():
            bucket.remove(path)
        bucket.remove(f"/{BUCKET}")
        with site.agent({"not_found_limit": 5}) as agent:
            agent.wait_for_log("Store objects is paused")
            bucket.make(f"/{BUCKET}")
            bucket.put(list(images.values()))
            agent.reload()
            site.wait_scrubbed(images)
        assert not any(bucket.has(path) for path in images.values())


class Flood(NamedTuple):
    """How big the flood is.

    :param images: images of the one owner.
    :param rate: requests a second that the server accepts.
    :param first: seconds in which the agent may find out the server's limit.
    :param most_refused: share of the later requests that may be refused.
    """

    images: int
    rate: float
    first: float
    most_refused: float


#: The shape is that of the full one, at a sixteenth of its length. Where many tests run at a time,
#: the server is stopped for moments and refuses what has come meanwhile: up to 12 % were seen, 44 %
#: if the agent does not slow down. The full one runs alone.
FLOOD = (
    Flood(300, 50, 5, 0.2) if "EVSCRUB_FULL_FLOOD" not in os.environ else Flood(5000, 50, 10, 0.05)
)


def test_flood_of_one_owner(memory_s3: StoreServer, new_site: SiteFactory) -> None:
    """One owner deletes thousands of images, fifty others one each, while the server throttles."""
    site = new_site(STORES, objects=s3_options(memory_s3))
    flood = seed(site, memory_s3, FLOOD.images, owner="flood")
    others = {
        image_id: path
        for number in range(50)
        for image_id, path in seed(site, memory_s3, 1, owner=f"other{number}").items()
    }
    memory_s3.behave(rate=FLOOD.rate)
    before = len(memory_s3.requests())
    began = time.monotonic()
    with site.agent({"retry_initial": 1, "retry_max": 10}, DEFAULT={"debug": False}) as agent:
        site.wait_deleted(FLOOD.images + 50, 60 + 6 * FLOOD.images / FLOOD.rate)
        took = time.monotonic() - began
        requests = memory_s3.requests(before)
        lines = agent.log.splitlines()
    assert not memory_s3.left() & (set(flood.values()) | set(others.values()))
    # When each was first asked for: the server refuses some again and again, whoever owns them.
    paths = {*flood.values(), *others.values()}
    asked = list(dict.fromkeys(request.path for request in requests if request.path in paths))
    last = max(asked.index(path) for path in others.values())
    later = [request for request in requests if request.at > requests[0].at + FLOOD.first]
    refused = share_refused(later)
    report = (
        f"{len(flood)}+50 images at {FLOOD.rate}/s: {took:.0f} s, {len(requests)} requests,"
        f" {share_refused(requests):.1%} refused, {refused:.1%} after {FLOOD.first} s;"
        f" last of the others {last + 1}th of {len(asked)}; {len(lines)} lines logged"
    )
    print(report)
    assert last < len(asked) / 2, report
    assert refused < FLOOD.most_refused, report
    # evscrub's own lines are about states; the libraries' are a few at start and each refusal's.
    own = [line for line in lines if " evscrub." in line]
    assert len(own) < 60, "\n".join(own)
    refusals = sum(request.status == 503 for request in requests)
    assert len(lines) - len(own) <= 20 + 2 * refusals, report


def share_refused(requests: list[Request]) -> float:
    """Return the share of refused requests."""
    return sum(request.status == 503 for request in requests) / max(1, len(requests))
