# SPDX-License-Identifier: Apache-2.0
"""Witnesses: which live images are remembered, and which are found."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from evscrub.domain.decisions import LocationRow
from evscrub.domain.location_urls import place_key
from evscrub.domain.verdict import STORE_NOT_LOADED, StoreNotUsableError
from evscrub.registry.live_images import LiveImages
from evscrub.registry.samples import Samples
from evscrub.registry.tables import images
from evscrub.scrubbing.witness_finder import WitnessFinder
from evscrub.stores.backends import Target
from tests.unit.registry.test_shared_urls import Registry


class TestSamples:
    def test_oldest_and_newest_are_kept_with_some_of_any_age(self) -> None:
        samples = Samples(random.Random(1).randrange)
        for number in range(10_000):
            samples.add("a", number)
        ids = samples.of("a")
        assert ids[:4] == [0, 1, 2, 3]
        assert ids[8:] == [9996, 9997, 9998, 9999]
        assert ids == sorted(ids)
        assert ids[4] < 5000

    @pytest.mark.parametrize("count", [0, 1, 3, 5, 8])
    def test_all_of_a_few_are_kept(self, count: int) -> None:
        samples = Samples(random.Random(1).randrange)
        for number in range(count):
            samples.add("a", number)
        assert samples.of("a") == list(range(count))

    def test_many_small_parts_do_not_crowd_out_a_large_one(self) -> None:
        samples = Samples(random.Random(1).randrange)
        for number in range(3):
            samples.add("glance", number)
        for number in range(3, 3000):
            samples.add(f"foreign{number}", number)
        assert samples.of("glance")
        assert len(samples._samples) <= 256


class Site:
    """A registry with a witness finder."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.shared = self.registry.verdicts()
        database: Any = SimpleNamespace(reading=self.registry.engine.begin)
        self.unusable = ""
        read = LiveImages(database).read
        self.finder = WitnessFinder(self.shared.live_ids, read, self.resolve)

    def resolve(self, row: LocationRow) -> Target:
        if row.store == self.unusable:
            raise StoreNotUsableError(STORE_NOT_LOADED, "hint")
        return Target(row.store or "fast", row.value, "s3", endpoint=place_key(row.value))

    def add(
        self, value: str, state: str = "live", *, size: int = 7, owner: str = "o", **fields: object
    ) -> int:
        number = self.registry.add(value, state)
        self.registry.set(number, state, **fields)
        with self.registry.engine.begin() as connection:
            connection.execute(
                sa.update(images)
                .where(images.c.id == f"image-{number}")
                .values(size=size, owner=owner)
            )
        return number

    def find(self, store: str, part: str) -> list[int]:
        row = LocationRow(10**6, "s3://k:s@other/b/x", "fast", "pending_delete", True, None, None)
        self.shared.among([row])  # as at the claim of what is missing now
        return [
            int(witness.image_id.removeprefix("image-"))
            for witness in self.finder.find(store, part)
        ]


@pytest.fixture
def site() -> Site:
    return Site()


def test_finds_the_two_oldest_one_in_the_middle_and_the_newest(site: Site) -> None:
    numbers = [site.add(f"s3://k:s@host/glance/{n}") for n in range(20)]
    *oldest, middle, newest = site.find("fast", "s3/glance")
    assert (oldest, newest) == (numbers[:2], numbers[-1])
    assert middle in numbers[4:-4]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_finds_all_of_a_few(site: Site, count: int) -> None:
    numbers = [site.add(f"s3://k:s@host/glance/{n}") for n in range(count)]
    assert site.find("fast", "s3/glance") == numbers


@pytest.mark.parametrize("own", [0, 2, 6, 8])
def test_the_next_of_another_owner_is_found_in_place_of_the_second(site: Site, own: int) -> None:
    numbers = [site.add(f"s3://k:s@host/glance/{n}") for n in range(9)]
    with site.registry.engine.begin() as connection:
        one = images.c.id == f"image-{numbers[own]}"
        connection.execute(sa.update(images).where(one).values(owner="another"))
    found = site.find("fast", "s3/glance")
    assert numbers[own or 1] in found
    assert (numbers[1] in found) == (own == 0)
    assert (found[0], found[-1]) == (numbers[0], numbers[-1])


def test_spelling_of_a_url_does_not_create_a_part(site: Site) -> None:
    number = site.add("s3://odd/glance/1?x")
    assert site.find("fast", "s3/glance") == [number]
    assert site.find("fast", "odd/glance") == []


@pytest.mark.parametrize("state", ["pending", "claimed", "settled", "removed"])
def test_finds_only_live_images(site: Site, state: str) -> None:
    number = site.add("s3://k:s@host/glance/1")
    assert site.find("fast", "s3/glance") == [number]
    site.registry.set(number, state)
    assert site.find("fast", "s3/glance") == []
    site.registry.set(number)
    assert site.find("fast", "s3/glance") == [number]


def test_skips_images_without_data(site: Site) -> None:
    site.add("s3://k:s@host/glance/1", size=0)
    assert site.find("fast", "s3/glance") == []


def test_finds_witnesses_of_the_part_and_store_only(site: Site) -> None:
    one = site.add("s3://k:s@host/glance/1")
    other = site.add("s3://k:s@host/other/1", meta_data='{"store": "slow"}')
    assert site.find("fast", "s3/glance") == [one]
    assert site.find("slow", "s3/glance") == []
    assert site.find("slow", "s3/other") == [other]
    assert site.find("fast", "s3/nothing") == []


def test_finds_later_images(site: Site) -> None:
    assert site.find("fast", "s3/glance") == []
    number = site.add("s3://k:s@host/glance/1")
    assert site.find("fast", "s3/glance") == [number]


def test_skips_images_of_unusable_stores(site: Site) -> None:
    site.add("s3://k:s@host/glance/1", meta_data='{"store": "gone"}')
    site.unusable = "gone"
    assert site.find("gone", "s3/glance") == []


def test_reads_images_by_id(site: Site) -> None:
    for number in range(50):
        site.add(f"s3://k:s@host/glance/{number}")
    site.find("fast", "s3/glance")
    del site.registry.statements[:]
    site.finder.find("fast", "s3/glance")
    (statement,) = site.registry.statements
    assert "image_locations.id IN" in statement
