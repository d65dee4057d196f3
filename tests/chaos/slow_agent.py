# SPDX-License-Identifier: Apache-2.0
"""Runs evscrub on a file store that is slow: `python -m tests.chaos.slow_agent SECONDS LOG ...`.

For measuring only. The driver's delete first sleeps, then notes in LOG who deletes what and when:
a store that takes long and costs this machine nothing.
"""

import os
import sys
import time

from glance_store._drivers import filesystem

from evscrub import cli


def main() -> int:
    """Slow the driver down and run the command line."""
    seconds = float(sys.argv[1])
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    delete = filesystem.Store.delete

    def slow(self: filesystem.Store, location: object, context: object = None) -> None:
        time.sleep(seconds)
        path = location.store_location.path  # type: ignore[attr-defined] # glance_store is untyped
        os.write(log, f"{time.time():.4f} {os.getpid()} {path}\n".encode())
        delete(self, location, context)

    filesystem.Store.delete = slow
    return cli.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
