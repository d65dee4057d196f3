# SPDX-License-Identifier: Apache-2.0
"""Print whether an image's data is in its stores, ``there`` or ``gone``; for exercise.sh.

Looks in the stores, through glance_store, for all locations that the registry has for the image,
deleted or not. No location is printed.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

import argparse
import sys

import glance_store
import sqlalchemy as sa

from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.registry.database import Database
from evscrub.registry.rows import LOCATION_COLUMNS, location_row
from evscrub.registry.tables import image_locations
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
    with Database(conf).reading() as connection:
        rows = list(connection.execute(query))
    if not rows:
        print(f"{arguments.image} has no location in the registry", file=sys.stderr)
        return 1
    there = 0
    for row in rows:
        target = stores.resolve(location_row(row))
        try:
            if conf.enabled_backends:
                glance_store.get_size_from_uri_and_backend(target.url, target.store)
            else:
                glance_store.get_size_from_backend(target.url)
        except glance_store.NotFound:
            continue
        there += 1
    print("there" if there else "gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
