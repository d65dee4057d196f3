# SPDX-License-Identifier: Apache-2.0
"""Images that a file store cannot delete among others that it can, with a real agent."""

from __future__ import annotations

import uuid

from tests.functional import store_servers
from tests.functional.agents import wait_for
from tests.functional.store_servers import Location, Site, SiteFactory

new_site = store_servers.new_site


def add(site: Site, owner: str, count: int, *, stuck: bool) -> list[str]:
    """Create deleted images of an owner; stuck ones have a directory in place of the file."""
    locations = []
    for _ in range(count):
        name = str(uuid.uuid4())
        url = site.file(name)
        if stuck:
            site.path(name).unlink()
            (site.path(name) / "x").mkdir(parents=True)
        locations.append([Location(None, url)])
    return site.images.add_many(locations, owner=owner)


def test_deletable_images_are_not_delayed(new_site: SiteFactory) -> None:
    site = new_site()
    owners = [f"owner{number}" for number in range(30)]
    stuck = [image for owner in owners for image in add(site, owner, 1, stuck=True)]
    good = [image for owner in owners[:12] for image in add(site, owner, 1, stuck=False)]
    with site.agent() as agent:
        site.wait_scrubbed(good, deadline=60)
        agent.wait_for_log("not scrubbed from store file (not a file)")
        late = add(site, "owner29", 5, stuck=False)
        site.wait_scrubbed(late, deadline=60)
        assert "does not work" not in agent.log
        assert "overloaded" not in agent.log
    assert not any(site.images.is_scrubbed(image_id) for image_id in stuck)


def test_claims_taken_over_in_a_wrong_directory_pause_the_store(new_site: SiteFactory) -> None:
    site = new_site()
    site.file("something-else")
    claimed = []
    for owner in ("a", "b", "c"):
        urls = [f"file://{site.path(str(uuid.uuid4()))}" for _ in range(100)]
        images = [[Location(None, url)] for url in urls]
        claimed += site.images.add_many(images, owner=owner, status="deleted", age=3600)
    with site.agent() as agent:
        agent.wait_for_log("Store file is paused: 20 images are not there")
        wait_for("release", lambda: site.images.at_rest() == set(claimed))
        site.wait_swept(agent)
    assert not any(site.images.is_scrubbed(image_id) for image_id in claimed)
