# SPDX-License-Identifier: Apache-2.0
"""Keep images: ``evscrub restore``, ``evscrub hold`` and ``evscrub release``."""

import argparse
import sys
from collections.abc import Callable

from evscrub.config import loader
from evscrub.domain.hold_rules import RefusedError
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.errors import explain
from evscrub.registry.holds import Holds
from evscrub.telemetry import output

_ANSWER_SECONDS = 20
_DONE = {"restore": "restored", "hold": "held", "release": "released"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "May be used while agents run. Exit codes: 0 success for all images, 1 an image was"
        " refused, with the reason, 2 wrong usage or configuration, or the database does not"
        " answer."
    )
    loader.add_arguments(parser)
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="the image's id, in upper or lower case"
    )


def main(arguments: argparse.Namespace) -> int:
    conf, _ = loader.load_for(arguments)
    try:
        # Short: each query reads the rows of one image by their keys.
        database = Database(conf, answer_seconds=_ANSWER_SECONDS)
        database.probe()
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    holds = Holds(database)
    command: str = arguments.command
    action: Callable[[str], list[str] | None] = getattr(holds, command)
    code = 0
    for given in arguments.images:
        image_id = given
        try:
            image_id = holds.find(given)
            notes = action(image_id)
        except RefusedError as error:
            code = 1
            with output.reader_may_leave():
                print(f"{image_id}: not {_DONE[command]}: {error}", file=sys.stderr)
        except UNAVAILABLE as error:
            raise loader.ConfigError(f"the registry cannot be used: {explain(error)}") from None
        else:
            with output.reader_may_leave():
                print(f"{image_id}: {_DONE[command]}")
                for note in notes or ():
                    print(f"{image_id}: but {note}", file=sys.stderr)
    return code
