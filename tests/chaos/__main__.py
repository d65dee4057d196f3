# SPDX-License-Identifier: Apache-2.0
"""Long runs: `python -m tests.chaos --seed 7 --database mariadb --minutes 10`."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run
from tests.chaos.site import DATABASES
from tests.servers import COORDINATORS


def main() -> int:
    """Run the seeds one after another; returns 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, counted up")
    parser.add_argument("--database", choices=sorted(DATABASES), default="mariadb")
    parser.add_argument("--minutes", type=float, default=1.0, help="of faults, for each seed")
    parser.add_argument(
        "--coordination",
        choices=COORDINATORS,
        default="",
        help="let the agents keep one rate together, by a group that is kept there, while members"
        " and the coordinator fail and the store counts",
    )
    parser.add_argument("--keep", type=Path, help="a folder to leave logs in")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are stopped
    code = 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="evscrub-chaos-", dir=arguments.keep))
        try:
            report = run(
                seed,
                arguments.database,
                arguments.minutes * 60,
                directory,
                arguments.coordination,
            )
        finally:
            if arguments.keep is None:
                shutil.rmtree(directory, ignore_errors=True)
        print(report, flush=True)
        code |= bool(report.violations)
    return code


if __name__ == "__main__":
    sys.exit(main())
