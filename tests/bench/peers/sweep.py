# SPDX-License-Identifier: Apache-2.0
"""One sweep's reading, page by page as evscrub reads, and nothing done about what it finds.

Says "begin" and "end" with the images found and by how much resident memory grew.
"""

from __future__ import annotations

import argparse
import gc
from datetime import timedelta

import evscrub.cli  # noqa: F401 - chooses oslo.service's backend before anything imports it

# isort: split
from evscrub.config import loader
from evscrub.config.settings import sweep_settings
from evscrub.registry.database import Database
from evscrub.registry.pages import Pages, Window
from tests.bench.peers.pending import rss_bytes
from tests.bench.peers.saying import limit, say, wait_for_go

_START_AT = "80000000-0000-4000-8000-000000000000"
_RECENT = timedelta(minutes=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--recent", action="store_true", help="only what changed lately")
    parser.add_argument("--limit", type=int, default=900, help="seconds until it ends itself")
    arguments = parser.parse_args()
    limit(arguments.limit)
    conf, _ = loader.load([arguments.config_file])
    settings = sweep_settings(conf)
    pages = Pages(Database(conf), conf.sweep.batch_size)
    now = pages.now()
    gc.collect()
    before = rss_bytes()
    wait_for_go()
    say("begin")
    horizon = timedelta(seconds=settings.horizon_seconds)
    window = Window(
        deleted_before=now - settings.policy.scrub_time + horizon,
        stale_before=now - settings.policy.claim_timeout,
        start_at="" if arguments.recent else _START_AT,
        changed_since=now - _RECENT if arguments.recent else None,
    )
    found = most = 0
    for page in pages.read(window):
        found += len(page)
        most = max(most, rss_bytes())
    say("end", found=found, grown=max(0, most - before))


if __name__ == "__main__":
    main()
