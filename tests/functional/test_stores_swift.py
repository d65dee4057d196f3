# SPDX-License-Identifier: Apache-2.0
"""The swift store through glance_store's driver, with OpenStack's Swift."""

from __future__ import annotations

import uuid

from tests.functional import store_servers
from tests.functional.agents import wait_for
from tests.functional.store_servers import (
    BUCKET,
    URL_KEY,
    Location,
    Site,
    SiteFactory,
    StoreServer,
)

new_site = store_servers.new_site

STORES = {"objects": "swift"}


def new(server: StoreServer, new_site: SiteFactory) -> Site:
    site: Site = new_site(
        STORES,
        objects={
            "swift_store_auth_address": f"{server.url}/v3/",
            "swift_store_user": "test:tester",
            "swift_store_key": "configured-secret",
            "swift_store_container": BUCKET,
        },
    )
    return site


def url(server: StoreServer, name: str) -> str:
    """Return a location with user and key, as Glance writes it without references."""
    return f"swift+http://test%3Atester:{URL_KEY}@{server.address}/v3/{BUCKET}/{name}"


def test_existing_data_is_deleted_and_missing_data_is_finished(
    swift: StoreServer, new_site: SiteFactory
) -> None:
    site = new(swift, new_site)
    paths = [f"/{BUCKET}/{number}" for number in range(6)]
    swift.put([*paths[:4], f"/{BUCKET}/kept"])
    images = [site.images.add(Location("objects", url(swift, str(n)))) for n in range(6)]
    with site.agent(DEFAULT={"default_log_levels": ""}):
        site.wait_scrubbed(images)
    assert not any(swift.has(path) for path in paths)
    assert swift.has(f"/{BUCKET}/kept")


def test_deletes_one_after_another_share_a_token(swift: StoreServer, new_site: SiteFactory) -> None:
    site = new(swift, new_site)
    names = [str(uuid.uuid4()) for _ in range(5)]
    swift.put([f"/{BUCKET}/{name}" for name in names])
    images = [site.images.add(Location("objects", url(swift, name))) for name in names]
    before = len(swift.requests())
    with site.agent(scrubber={"concurrency": 1}):
        site.wait_scrubbed(images)
    asked = swift.requests(before)
    assert sum(request.method == "DELETE" for request in asked) == 5
    assert sum(request.path == "/v3/auth/tokens" for request in asked) == 1


def test_segments_of_a_large_object_are_deleted_with_it(
    swift: StoreServer, new_site: SiteFactory
) -> None:
    site = new(swift, new_site)
    segments = [f"/{BUCKET}/large-{number:05}" for number in range(3)]
    swift.put(segments)
    swift.put([f"/{BUCKET}/large"], **{"X-Object-Manifest": f"{BUCKET}/large-"})
    image_id = site.images.add(Location("objects", url(swift, "large")))
    with site.agent():
        site.wait_scrubbed([image_id])
    assert not any(swift.has(path) for path in [*segments, f"/{BUCKET}/large"])


def test_segment_of_another_large_object_stays(swift: StoreServer, new_site: SiteFactory) -> None:
    site = new(swift, new_site)
    name = str(uuid.uuid4())
    segments = [f"/{BUCKET}/{name}-{number:05}" for number in range(2)]
    swift.put(segments)
    swift.put([f"/{BUCKET}/{name}"], **{"X-Object-Manifest": f"{BUCKET}/{name}-"})
    alias = site.images.add(Location("objects", url(swift, f"{name}-00001")))
    with site.agent() as agent:
        agent.wait_for_log(f"Image {alias} is not scrubbed from store objects (bad url)")
    assert all(swift.has(path) for path in segments)


def test_refused_credentials_count_against_the_store(
    swift: StoreServer, new_site: SiteFactory
) -> None:
    site = new(swift, new_site)
    swift.put([f"/{BUCKET}/{number}" for number in range(8)])
    images = site.images.add_many(
        [[Location("objects", url(swift, str(number)))] for number in range(8)]
    )
    swift.behave(refuse=403)
    before = len(swift.requests())
    with site.agent() as agent:
        agent.wait_for_log("Store objects does not work")
        wait_for("release", lambda: site.images.at_rest() == set(images))
        # One fails for each, and some more when they are tried again, before the breaker opens.
        assert len(swift.requests()) - before <= 2 * (8 + 5)
        swift.behave()
        site.wait_scrubbed(images)
        agent.wait_for_log("Store objects works again")


def test_throttled_deletes_are_waited_out(swift: StoreServer, new_site: SiteFactory) -> None:
    """Swiftclient retries 5 times, for half a minute, before the driver gets the error."""
    site = new(swift, new_site)
    path = f"/{BUCKET}/throttled"
    swift.put([path])
    image_id = site.images.add(Location("objects", url(swift, "throttled")))
    swift.behave(refuse=503, refuse_methods=["DELETE"])
    before = len(swift.requests())
    with site.agent():
        wait_for(
            "two refusals",
            lambda: sum(r.status == 503 for r in swift.requests(before)) >= 2,
        )
        assert swift.has(path)
        swift.behave()
        site.wait_scrubbed([image_id])
    assert not swift.has(path)
