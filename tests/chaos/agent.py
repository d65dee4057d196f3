# SPDX-License-Identifier: Apache-2.0
"""Runs evscrub with a clock that is off: `python -m tests.chaos.agent SECONDS COMMAND...`.

For tests only. Python's `time.time` is replaced before anything of evscrub is imported; the clocks
since boot stay, as they would on a host whose wall clock is wrong.
"""

import sys
import time


def set_clock_off(seconds: float) -> None:
    """Set the wall clock ahead, for what is imported afterwards."""
    wall = time.time
    time.time = lambda: wall() + seconds


def main() -> int:
    """Set the clock off and run the command line."""
    set_clock_off(float(sys.argv[1]))
    from evscrub import cli  # noqa: PLC0415 - it takes the clock when it is imported

    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
