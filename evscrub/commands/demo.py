# SPDX-License-Identifier: Apache-2.0
"""Run the demo: ``evscrub demo``.

Exit codes: 0 all checks passed, 1 one failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import sys
from importlib.util import find_spec

from evscrub.commands.arguments import whole_number
from evscrub.demo.images import MIN_IMAGES
from evscrub.telemetry import output

#: Modules that the extra ``demo`` installs.
_NEEDED = ("glance", "httpx", "rich", "cheroot")
_IMAGES = (MIN_IMAGES, 5000)
_SCRUB_TIME = (0, 3600)
_DEFAULT_SCRUB_TIME = 5
#: Long enough to paste a command before the data is gone.
_KEPT_SCRUB_TIME = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Demonstrate evscrub in under a minute: a real Glance in a temporary folder, images"
        " uploaded and deleted through its API, and a real agent that scrubs them. At the end, the"
        " demo checks disk, database and downloads. It touches nothing outside the folder, and"
        " removes the folder."
    )
    parser.epilog = (
        "Exit codes: 0 all checks passed, 1 a check failed, 2 wrong usage, 130 interrupted, or the"
        " reader of the output went away."
    )
    parser.add_argument(
        "--images",
        type=whole_number(*_IMAGES),
        default=60,
        metavar="N",
        help="number of images to upload, four in five of which are deleted (default: 60)",
    )
    parser.add_argument(
        "--scrub-time",
        type=whole_number(*_SCRUB_TIME),
        metavar="S",
        help=f"seconds to keep a deleted image's data (default: {_DEFAULT_SCRUB_TIME}, and"
        f" {_KEPT_SCRUB_TIME} after the demo with --keep)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave everything running at the end, until Ctrl-C; the exit code is then that of the"
        " checks",
    )
    parser.add_argument(
        "--transport-url",
        metavar="URL",
        help="a RabbitMQ instead of a bus in memory, as rabbit://USER:PASSWORD@HOST:PORT/VHOST;"
        " the demo creates its own exchange and queue there and removes them",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a database server instead of SQLite, as mysql+pymysql://USER:PASSWORD@HOST/NAME;"
        " the database must be empty, and the demo drops the tables that it creates",
    )


def main(arguments: argparse.Namespace) -> int:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"evscrub demo: needs {', '.join(missing)}: pip install 'evscrub[demo]'",
            file=sys.stderr,
        )
        return 2
    scrub_time, keep = scrub_times(arguments)
    try:
        # Imported here because it needs the modules checked above, and takes a second.
        from evscrub.demo.run import Options, run  # noqa: PLC0415 - see above

        code = run(
            Options(
                images=arguments.images,
                scrub_time=scrub_time,
                keep=keep,
                transport_url=arguments.transport_url,
                database_url=arguments.database,
            )
        )
    except KeyboardInterrupt:  # before there is anything to clean up
        code = 130
    # Exit without waiting for threads of oslo.messaging and Glance, which outlive their work.
    output.silence()
    os._exit(code)


def scrub_times(arguments: argparse.Namespace) -> tuple[int, int | None]:
    """Return how many seconds deleted images are kept in the demo, and after it with ``--keep``."""
    given: int | None = arguments.scrub_time
    in_demo, after = (_DEFAULT_SCRUB_TIME, _KEPT_SCRUB_TIME) if given is None else (given, given)
    return in_demo, after if arguments.keep else None
