# SPDX-License-Identifier: Apache-2.0
"""Stores of type file and http, and rbd and cinder on fakes of their libraries."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from tests.functional import store_servers
from tests.functional.agents import wait_for
from tests.functional.store_servers import (
    URL_KEY,
    URL_USER,
    FakeLibraries,
    Location,
    Site,
    SiteFactory,
)

new_site = store_servers.new_site

PENDING = ("pending_delete", {"pending_delete"})


def seed_files(site: Site, count: int) -> dict[str, Path]:
    """Create deleted images in a single file store; return the paths of their data by id."""
    names = [str(uuid.uuid4()) for _ in range(count)]
    images = [[Location(None, site.file(name))] for name in names]
    paths = [site.path(name) for name in names]
    return dict(zip(site.images.add_many(images), paths, strict=True))


class TestFile:
    def test_missing_directory_at_start_parks_images(self, new_site: SiteFactory) -> None:
        site = new_site()
        images = seed_files(site, 30)
        directory = site.config.data_directory()
        away = directory.rename(directory.with_name("away"))
        with site.agent() as agent:
            agent.wait_for_log(f"Store file cannot be used: its directory {directory} does not")
            site.wait_swept(agent)
            assert site.images.statuses() == {"pending_delete": 30}
            assert not directory.exists()  # nothing is in the way of the right one
            away.rename(directory)
            agent.reload()
            site.wait_scrubbed(images)
        assert not any(path.exists() for path in images.values())

    def test_directory_that_disappears_pauses_the_store(self, new_site: SiteFactory) -> None:
        site = new_site()
        directory = site.config.data_directory()
        with site.agent() as agent:
            away = directory.rename(directory.with_name("away"))
            images = site.images.add_many(
                [[Location(None, f"file://{directory}/{n}")] for n in range(30)]
            )
            agent.wait_for_log("Store file is paused: its directory is missing")
            site.wait_swept(agent)
            assert site.images.statuses() == {"pending_delete": 30}
            away.rename(directory)
            agent.options["scrubber"]["acknowledged_stores"] = "file"
            agent.reload()
            site.wait_scrubbed(images)

    @pytest.mark.parametrize(
        ("stray", "reason"),
        [
            (False, "its directory is empty"),
            (True, "20 images are not there"),
        ],
    )
    def test_emptied_directory_pauses_the_store(
        self,
        stray: bool,
        reason: str,
        new_site: SiteFactory,
    ) -> None:
        """An empty directory looks as if the file system is not mounted."""
        site = new_site()
        images = seed_files(site, 60)
        directory = site.config.data_directory()
        with site.agent({"rate": 0.001}) as agent:
            away = directory.rename(directory.with_name("away"))
            directory.mkdir()
            if stray:
                (directory / "stray").touch()
            gone = site.images.statuses()["deleted"]  # the first one may have been in time
            agent.options["scrubber"]["rate"] = 0
            agent.reload()
            agent.wait_for_log(f"Store file is paused: {reason}")
            site.wait_swept(agent)
            assert site.images.statuses()["pending_delete"] >= 60 - gone - 1
            shutil.rmtree(directory)
            away.rename(directory)
            agent.reload()
            site.wait_scrubbed(images)
        assert not any(path.exists() for path in images.values())

    def test_refused_deletes_are_retried(self, new_site: SiteFactory) -> None:
        site = new_site()
        images = seed_files(site, 2)
        stuck, path = next(iter(images.items()))
        path.unlink()
        path.mkdir()  # cannot be unlinked, not even by root
        with site.agent() as agent:
            site.wait_scrubbed([image_id for image_id in images if image_id != stuck])
            site.wait_swept(agent)
            wait_for("release", lambda: site.images.at_rest() == {stuck})
            path.rmdir()
            path.write_bytes(b"data")
            site.wait_scrubbed([stuck])
        assert not path.exists()


def test_http_locations_are_finished_and_counted(new_site: SiteFactory) -> None:
    site = new_site({"web": "http", "files": "file"})
    url = f"http://{URL_USER}:{URL_KEY}@127.0.0.1:9/image"
    images = site.images.add_many([[Location("web", f"{url}{n}")] for n in range(3)])
    with site.agent() as agent:
        site.wait_scrubbed(images)

        def lines() -> list[str]:
            metrics = site.status(agent, "metrics").splitlines()
            return [line for line in metrics if 'outcome="not_ours"' in line]

        # Each image is counted a moment after its row is written.
        wait_for("the count", lambda: "".join(lines()).endswith((" 3", " 3.0")))
        (line,) = lines()
        assert 'store="web"' in line
        for page in ("", "status"):
            site.status(agent, page)


def test_driver_that_does_not_load_affects_no_other_store(
    libraries: FakeLibraries, tmp_path: Path, new_site: SiteFactory
) -> None:
    """Its images are parked until the missing module is installed and SIGHUP is sent."""
    # All of them, for each brings the others.
    away = [path.rename(path.with_suffix(".away")) for path in (tmp_path / "libraries").iterdir()]
    site = new_site({"volumes": "cinder", "files": "file"}, volumes=CINDER)
    waiting = [volume("aa"), volume("ab")]
    images = [site.images.add(Location("volumes", f"cinder://volumes/{one}")) for one in waiting]
    other = site.images.add(Location("files", site.file("other", "files")))
    with site.agent() as agent:
        agent.wait_for_log("Store volumes cannot be used: its driver needs the Python module")
        site.wait_scrubbed([other])
        agent.wait_for_log("2 images are not scrubbed from store volumes (store not loaded)")
        wait_for("release", lambda: site.images.at_rest() == set(images))
        assert [site.images.status(image_id) for image_id in images] == [PENDING] * 2
        for path in away:
            path.rename(path.with_suffix(".py"))
        agent.reload()
        site.wait_scrubbed(images)
        agent.wait_for_log("Loaded stores: volumes; retrying 2 images")
        assert agent.log.count(" ERROR evscrub") == 1
    assert sorted(libraries.asked()) == sorted(waiting)


def rbd_url(name: str, pool: str = "images") -> str:
    return f"rbd://fsid/{pool}/{name}/snap"


class TestRbd:
    def test_each_answer_has_its_effect(
        self, libraries: FakeLibraries, new_site: SiteFactory
    ) -> None:
        site = new_site({"ceph": "rbd"})
        images = {
            name: site.images.add(Location("ceph", rbd_url(name)))
            for name in ("fine", "missing", "snapshots", "busy", "watched", "trashbusy")
        }
        with site.agent() as agent:
            site.wait_scrubbed([images[name] for name in ("fine", "missing", "snapshots")])
            agent.wait_for_log("not scrubbed from store ceph (in use)")
            wait_for(
                "all in use",
                lambda: site.status(agent, "troubles").count('"state": "in use"') == 3,
            )
            site.wait_swept(agent, 5)
            for name in ("busy", "watched", "trashbusy"):
                assert site.images.status(images[name]) == PENDING
            assert "ceph does not work" not in agent.log
        asked = libraries.asked()
        assert asked.count("fine") == 1
        assert "trash:snapshots" in asked
        # In use is no error, and waits for half an hour, whatever the sweep finds meanwhile.
        assert asked.count("watched") == asked.count("trashbusy") == 1

    def test_failing_cluster_is_only_probed(
        self, libraries: FakeLibraries, new_site: SiteFactory
    ) -> None:
        site = new_site({"ceph": "rbd", "files": "file"})
        broken = [site.images.add(Location("ceph", rbd_url(f"broken{n}"))) for n in range(50)]
        nopool = site.images.add(Location("ceph", rbd_url("fine", "nopool")))
        other = site.images.add(Location("files", site.file("other", "files")))
        with site.agent() as agent:
            agent.wait_for_log("Store ceph does not work")
            site.wait_scrubbed([other])
            site.wait_swept(agent, 3)
            # One that waited for its turn, or was the probe, is claimed for a moment.
            wait_for(
                "release",
                lambda: site.images.at_rest() >= {*broken, nopool},
            )
            # The first at a time, and some probes.
            assert len(libraries.asked()) <= 5 + 16 + 20


CINDER = {
    "cinder_store_user_name": "glance",
    "cinder_store_password": "configured-secret",
    "cinder_store_project_name": "service",
    "cinder_store_auth_address": "http://127.0.0.1:9/v3",
}


def volume(start: str) -> str:
    return start + str(uuid.uuid4())[len(start) :]


class TestCinder:
    def test_each_answer_has_its_effect(
        self, libraries: FakeLibraries, new_site: SiteFactory
    ) -> None:
        site = new_site({"volumes": "cinder"}, volumes=CINDER)
        fine, missing, limited = volume("aa"), volume("40"), volume("0f")
        images = {
            name: site.images.add(Location("volumes", f"cinder://volumes/{name}"))
            for name in (fine, missing, limited)
        }
        parked = site.images.add(Location("volumes", "cinder://volumes/not-a-volume"))
        attached = site.images.add_many(
            [[Location("volumes", f"cinder://volumes/{volume('b5')}")] for _ in range(8)]
        )
        with site.agent() as agent:
            site.wait_scrubbed([images[fine], images[missing]])
            agent.wait_for_log("images are not scrubbed from store volumes (in use); one of them")
            agent.wait_for_log(f"Image {parked} is not scrubbed from store volumes (bad url)")
            wait_for("a second try", lambda: libraries.asked().count(limited) > 1)
        assert libraries.asked().count(fine) == 1
        wait_for("release", lambda: images[limited] in site.images.at_rest())
        assert all(site.images.status(image_id) == PENDING for image_id in (parked, *attached))
        assert "does not work" not in agent.log

    def test_failing_service_is_only_probed(
        self, libraries: FakeLibraries, new_site: SiteFactory
    ) -> None:
        site = new_site({"volumes": "cinder"}, volumes=CINDER)
        images = site.images.add_many(
            [[Location("volumes", f"cinder://volumes/{volume('50')}")] for _ in range(50)]
        )
        with site.agent() as agent:
            agent.wait_for_log("Store volumes does not work (backend)")
            site.wait_swept(agent, 3)
            wait_for("release", lambda: site.images.at_rest() == set(images))
        assert len(libraries.asked()) <= 5 + 16 + 20
