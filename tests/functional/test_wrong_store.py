# SPDX-License-Identifier: Apache-2.0
"""Wrong stores report images' data as missing, and nothing is settled."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional import store_servers
from tests.functional.agents import wait_for
from tests.functional.store_servers import (
    BUCKET,
    Location,
    Site,
    SiteFactory,
    StoreServer,
    s3_options,
    s3_url,
)
from tests.functional.test_stores_kinds import rbd_url
from tests.functional.test_stores_s3 import STORES as S3_STORES
from tests.functional.test_stores_swift import new, url

new_site = store_servers.new_site


@dataclass
class Store:
    """A store with a live image.

    :param seed: stores the data of a number of images and returns their locations.
    :param has: returns whether a location's data exists.
    :param go_wrong: replaces the store with another one.
    :param mend: restores the right store.
    :param said: the text in the agent's log.
    """

    site: Site
    seed: Callable[[int], list[Location]]
    has: Callable[[Location], bool]
    go_wrong: Callable[[], object]
    mend: Callable[[], object]
    said: str = "is paused: image {live} is active, and its 4 bytes are not there"


def check(store: Store, count: int) -> None:
    """Let images fall due while the store is wrong, then restore the right store."""
    images = store.site.images
    (kept,) = store.seed(1)
    live = images.add(kept._replace(status="active"), status="active")
    locations = store.seed(count)
    ids = images.add_many([[location] for location in locations])
    store.go_wrong()
    with store.site.agent({"retry_initial": 0.5, "retry_max": 2}) as agent:
        agent.wait_for_log(store.said.format(live=live))
        store.site.wait_swept(agent)
        wait_for("release", lambda: images.at_rest() == set(ids))
        assert images.statuses() == {"pending_delete": count, "active": 1}
        store.mend()
        agent.reload()
        store.site.wait_scrubbed(ids)
        assert "had no data" not in agent.log
    assert not any(map(store.has, locations))
    assert store.has(kept)


def in_directory(site: Site, wrong: Callable[[Path], object]) -> Store:
    directory = site.config.data_directory()
    away = directory.with_name("away")

    def go_wrong() -> None:
        directory.rename(away)
        wrong(directory)

    def mend() -> None:
        shutil.rmtree(directory)
        away.rename(directory)

    return Store(
        site,
        lambda count: [Location(None, site.file(str(uuid.uuid4()))) for _ in range(count)],
        lambda location: Path(location.url.removeprefix("file://")).exists(),
        go_wrong,
        mend,
    )


def with_other_files(directory: Path) -> None:
    directory.mkdir()
    for number in range(3):
        (directory / str(number)).write_bytes(b"data")


@pytest.mark.parametrize("count", [1, 5, 500])
def test_another_file_system_is_mounted(new_site: SiteFactory, count: int) -> None:
    check(in_directory(new_site(), with_other_files), count)


def test_no_file_system_is_mounted(new_site: SiteFactory) -> None:
    store = in_directory(new_site(), Path.mkdir)
    store.said = "is paused: its directory is empty"
    check(store, 5)


def test_uploads_since_a_lazy_unmount_prove_nothing(new_site: SiteFactory) -> None:
    """The mount point has them alone, and Glance still serves what it had open."""
    site = new_site()
    store = in_directory(site, with_other_files)
    (kept,) = store.seed(1)
    live = site.images.add(kept._replace(status="active"), status="active")
    locations = store.seed(25)
    ids = site.images.add_many([[location] for location in locations])
    store.go_wrong()
    uploads = store.seed(6)
    for upload in uploads[:3]:
        site.images.add(upload._replace(status="active"), status="active")
    site.images.add_many([[upload] for upload in uploads[3:]], age=30)
    with site.agent({"retry_initial": 0.5, "retry_max": 2}) as agent:
        agent.wait_for_log(
            f"is paused: 20 images are not there, and neither is image {live}, which is active"
        )
        site.wait_swept(agent)
        assert "had no data" not in agent.log
        assert not any(map(site.images.is_scrubbed, ids))
        store.mend()
        agent.reload()
        site.wait_scrubbed(ids)
        missed = [line for line in agent.log.splitlines() if "had no data of" in line]
        assert not any(image_id in line for line in missed for image_id in ids)
    assert not any(map(store.has, locations))
    assert store.has(kept)


def in_objects(site: Site, server: StoreServer, locate: Callable[[str], str]) -> Store:
    """Return an object store; the wrong one has the container without the objects."""
    names: list[str] = []

    def seed(count: int) -> list[Location]:
        new_names = [str(uuid.uuid4()) for _ in range(count)]
        server.put([f"/{BUCKET}/{name}" for name in new_names])
        names.extend(new_names)
        return [Location("objects", locate(name)) for name in new_names]

    return Store(
        site,
        seed,
        lambda location: server.has(f"/{BUCKET}/{location.url.rpartition('/')[2]}"),
        lambda: server.remove_all([f"/{BUCKET}/{name}" for name in names]),
        lambda: server.put([f"/{BUCKET}/{name}" for name in names]),
    )


@pytest.mark.parametrize("count", [1, 5])
def test_another_bucket_with_the_same_name(
    moto: StoreServer,
    new_site: SiteFactory,
    count: int,
) -> None:
    moto.behave()
    moto.make(f"/{BUCKET}")
    site = new_site(S3_STORES, objects=s3_options(moto))
    check(in_objects(site, moto, lambda name: s3_url(moto, name)), count)


def test_another_endpoint_with_the_same_bucket(
    moto: StoreServer,
    new_site: SiteFactory,
) -> None:
    """The agent is configured with it, so a restart is needed to repair that."""
    moto.behave()
    moto.make(f"/{BUCKET}")
    with StoreServer("moto") as other:
        other.make(f"/{BUCKET}")
        site = new_site(S3_STORES, objects=s3_options(moto))
        store = in_objects(site, moto, lambda name: s3_url(moto, name))
        (kept,) = store.seed(1)
        live = site.images.add(kept._replace(status="active"), status="active")
        locations = store.seed(5)
        ids = site.images.add_many([[location] for location in locations])
        with site.agent(objects=s3_options(other)) as agent:
            agent.wait_for_log(store.said.format(live=live))
            site.wait_swept(agent)
            wait_for("release", lambda: site.images.at_rest() == set(ids))
            assert site.images.statuses() == {"pending_delete": 5, "active": 1}
    with site.agent():
        site.wait_scrubbed(ids)
    assert store.has(kept)


def test_another_container_with_the_same_name(
    swift: StoreServer,
    new_site: SiteFactory,
) -> None:
    check(in_objects(new(swift, new_site), swift, lambda name: url(swift, name)), 5)


def test_another_pool_with_the_same_name(
    libraries: store_servers.FakeLibraries,
    new_site: SiteFactory,
) -> None:
    site = new_site({"ceph": "rbd"})
    store = Store(
        site,
        lambda count: [Location("ceph", rbd_url(str(uuid.uuid4()))) for _ in range(count)],
        lambda location: location.url.split("/")[-2] not in libraries.asked(),
        libraries.wrong_pool.touch,
        libraries.wrong_pool.unlink,
    )
    check(store, 5)


def test_right_store_that_lost_three_images(new_site: SiteFactory) -> None:
    site = new_site()
    store = in_directory(site, with_other_files)
    (kept,) = store.seed(1)
    site.images.add(kept._replace(status="active"), status="active")
    locations = store.seed(6)
    for location in locations[:3]:
        Path(location.url.removeprefix("file://")).unlink()
    ids = site.images.add_many([[location] for location in locations])
    with site.agent() as agent:
        site.wait_scrubbed(ids, deadline=60)
        for image_id in ids[:3]:
            agent.wait_for_log(f"{image_id} (deleted ")
        told = [line for line in agent.log.splitlines() if "had no data of" in line]
        assert all(sum(image_id in line for line in told) == 1 for image_id in ids[:3])
        assert not any(image_id in line for line in told for image_id in ids[3:])
        assert 'evscrub_proofs_total{result="right",store="file"}' in site.status(agent, "metrics")
