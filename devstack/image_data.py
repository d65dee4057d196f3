# SPDX-License-Identifier: Apache-2.0
"""Print whether an image's data is in its stores, ``there`` or ``gone``; for exercise.sh.

Looks in the stores, through glance_store, for all locations that the registry has for the image,
deleted or not. No location is printed.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

import argparse
import sys

import sqlalchemy as sa

from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.domain.proof import Presence
from evscrub.registry.database import Database
from evscrub.registry.rows import LOCATION_COLUMNS, location_row
from evscrub.registry.tables import image_locations, images
from evscrub.stores.backends import Stores


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Print whether an image's data is there or gone.")
    add_config_arguments(parser)
    parser.add_argument("image", help="the image's id")
    arguments = parser.parse_args()
    conf, _ = loader.load_for(arguments)
    stores = Stores(conf)
    query = sa.select(*LOCATION_COLUMNS).where(image_locations.c.image_id == arguments.image)
    of_image = sa.select(images.c.size).where(images.c.id == arguments.image)
    with Database(conf).reading() as connection:
        rows = list(connection.execute(query))
        size_bytes = connection.execute(of_image).scalar() or 0
    if not rows:
        print(f"{arguments.image} has no location in the registry", file=sys.stderr)
        return 1
    targets = [stores.resolve(location_row(row)) for row in rows]
    # Some drivers report no missing object but a size of 0.
    is_gone = all(stores.look_for(target, size_bytes) is Presence.ABSENT for target in targets)
    print("gone" if is_gone else "there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
