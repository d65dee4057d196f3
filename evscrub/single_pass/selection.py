# SPDX-License-Identifier: Apache-2.0
"""Select the images of a pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evscrub.domain.image_report import Listed
from evscrub.registry.inventory import Inventory
from evscrub.single_pass.portions import Portion


@dataclass(frozen=True, slots=True)
class Selection:
    """The images that a pass is limited to.

    :param owner: only images of this owner.
    :param store: only images with a pending location in this store.
    :param image_ids: only these images; empty for all.
    :param limit: at most this many images; None for any number.
    """

    owner: str | None = None
    store: str | None = None
    image_ids: Sequence[str] = ()
    limit: int | None = None

    def read(self, inventory: Inventory) -> Iterator[Listed]:
        """Yield the images, whatever their store."""
        yield from inventory.read(owner=self.owner, only=self.image_ids or None)

    def takes(self, found: Sequence[Portion]) -> bool:
        """Return whether an image with these portions is selected by its stores."""
        return self.store is None or any(portion.store == self.store for portion in found)
