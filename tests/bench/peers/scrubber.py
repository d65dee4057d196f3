# SPDX-License-Identifier: Apache-2.0
"""Glance's own scrubber, the real one, one pass.

Says "begin" right before its `run`, imports and set-up not counted, and "end" when the last image
of the pass is done. With ``--pages N`` it only reads, as far as N pages of its scan.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from glance import scrubber
from glance.cmd import scrubber as command

from tests.bench.peers.saying import limit, say, wait_for_go
from tests.bench.peers.slow_store import SlowStore

Scrubber = Any


def _work(original: Callable[[Scrubber], None], store: SlowStore, instance: Scrubber) -> None:
    say("begin")
    began = time.monotonic()
    jobs: dict[str, list[object]] = {}
    get_jobs = instance._get_delete_jobs

    def read() -> dict[str, list[object]]:
        jobs.update(get_jobs())
        return jobs

    instance._get_delete_jobs = read
    original(instance)
    scanned = time.monotonic() - began
    instance.executor.shutdown(wait=True)
    busy = store.busy_seconds if store.ended else 0.0
    say("end", images=len(jobs), scan_seconds=scanned, busy=busy)


def _scan(pages: int, instance: Scrubber) -> None:
    """Read some pages, keeping what it keeps."""
    wait_for_go()
    say("begin", rss=_rss())
    images = instance.db_queue._get_all_images()
    count = sum(1 for _ in itertools.islice(images, pages * scrubber.REASONABLE_DB_PAGE_SIZE))
    say("end", images=count, rss=_rss())


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delete-seconds", type=float, help="a store stand-in that sleeps")
    parser.add_argument("--pages", type=int, help="only read so many pages")
    parser.add_argument("--limit", type=int, default=900, help="seconds until it ends itself")
    arguments, rest = parser.parse_known_args()
    limit(arguments.limit)
    store = SlowStore(arguments.delete_seconds or 0.0)
    run = partial(_work, scrubber.Scrubber.run, store)
    if arguments.pages:
        run = partial(_scan, arguments.pages)

    def instead(instance: Scrubber) -> None:
        run(instance)

    scrubber.Scrubber.run = instead
    if arguments.delete_seconds is not None:
        command.glance_store.delete_from_backend = store.standing_in(None)
    sys.argv = ["glance-scrubber", *rest]
    command.main()


if __name__ == "__main__":
    main()
