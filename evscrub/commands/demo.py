# SPDX-License-Identifier: Apache-2.0
"""``evscrub demo``.

Exit codes: 0 all was as it should be, 1 it was not, 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import sys
from importlib.util import find_spec

from evscrub.demo.images import MIN_IMAGES
from evscrub.telemetry import output

#: What the extra ``demo`` installs, as imported.
_NEEDED = ("glance", "httpx", "rich", "cheroot")
_IMAGES = (MIN_IMAGES, 5000)
_SCRUB_TIME = (0, 3600)
_DEFAULT_SCRUB_TIME = 5
#: Long enough to paste and read a command before the data is gone.
_KEPT_SCRUB_TIME = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show evscrub at work, in under a minute: a real Glance in a temporary folder, images"
        " uploaded and deleted through its API, and a real agent that scrubs them. At the end"
        " disk, database and downloads are checked. Nothing outside the folder is touched, and"
        " nothing is left."
    )
    parser.epilog = (
        "Exit codes: 0 all was as it should be, 1 it was not, 2 wrong usage, 130"
        " interrupted, or nobody reads what is printed any more."
    )
    parser.add_argument(
        "--images",
        type=lambda text: _number(text, *_IMAGES),
        default=60,
        metavar="N",
        help="images to upload; four in five of them are deleted (default: 60)",
    )
    parser.add_argument(
        "--scrub-time",
        type=lambda text: _number(text, *_SCRUB_TIME),
        metavar="S",
        help=f"seconds that a deleted image's data is kept (default: {_DEFAULT_SCRUB_TIME}, and"
        f" {_KEPT_SCRUB_TIME} in what follows the demo with --keep)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave all running at the end, to play with until Ctrl-C; the exit code then is that"
        " of the check",
    )
    parser.add_argument(
        "--transport-url",
        metavar="URL",
        help="a RabbitMQ instead of a bus in memory, as rabbit://USER:PASSWORD@HOST:PORT/VHOST;"
        " an exchange and a queue of the demo's own are made there and go with it",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a database server instead of SQLite, as mysql+pymysql://USER:PASSWORD@HOST/NAME;"
        " the database must be empty, and the tables made in it are dropped at the end",
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
        # Imported here: it needs what was looked for above, and takes a second.
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
    except KeyboardInterrupt:  # so early that there is nothing to clean up
        code = 130
    # Threads of oslo.messaging's and Glance's outlive their work: they are not to keep the process.
    output.silence()
    os._exit(code)


def scrub_times(arguments: argparse.Namespace) -> tuple[int, int | None]:
    """Return the seconds that deleted images are kept: in the demo, and after it, where that is."""
    given: int | None = arguments.scrub_time
    in_demo, after = (_DEFAULT_SCRUB_TIME, _KEPT_SCRUB_TIME) if given is None else (given, given)
    return in_demo, after if arguments.keep else None


def _number(text: str, lowest: int, highest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not lowest <= number <= highest:
        raise argparse.ArgumentTypeError(f"must be from {lowest} to {highest}")
    return number
