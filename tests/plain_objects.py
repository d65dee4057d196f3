# SPDX-License-Identifier: Apache-2.0
"""Objects of an s3 store whose URLs are in the clear."""

from evscrub.domain.decisions import LocationRow
from evscrub.domain.location_urls import index_key, key_and_place
from evscrub.domain.object_identity import Identity, Relation, StoreConfig, identify, relate

_CONFIG = StoreConfig("fast", "s3", backend="host")


class PlainObjects:
    """What tells objects apart in place of the stores of a Glance."""

    def index_key(self, value: str) -> str:
        return index_key(value)

    def key_and_place(self, value: str) -> tuple[str, str]:
        return key_and_place(value)

    def identify(self, row: LocationRow) -> Identity:
        return identify(_CONFIG, row.value)

    def relate(self, one: Identity, other: Identity) -> Relation:
        return relate(one, other, frozenset(), lambda one, other: one == other)
