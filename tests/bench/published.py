# SPDX-License-Identifier: Apache-2.0
"""The figures in ``etc/docs/benchmarks.rst``, and their charts.

``python -m tests.bench.published etc/docs/images`` draws the charts; it needs the extra ``bench``.
Replace the figures by those of a run of ``python -m tests.bench`` on a quiet machine, together with
the page and its date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.bench.kit.results import Bars, Lines, Metric, Report

#: Images scrubbed a second from a file store, by database and peer.
THROUGHPUT: Mapping[str, Mapping[str, float]] = {
    "MariaDB": {
        "evscrub, from a sweep": 1282,
        "evscrub, from events": 578,
        "glance-scrubber, pool 1": 32,
        "glance-scrubber, pool 8": 38,
        "one thread, same SQL": 3455,
    },
    "PostgreSQL": {
        "evscrub, from a sweep": 1242,
        "evscrub, from events": 692,
        "glance-scrubber, pool 1": 40,
        "glance-scrubber, pool 8": 52,
        "one thread, same SQL": 3573,
    },
}
#: Seconds that a delete takes in the store that is bound by its latency.
DELETE_SECONDS = 0.05
#: What share of ``concurrency / DELETE_SECONDS`` one agent reaches, by concurrency.
SHARES: Mapping[int, float] = {1: 0.97, 8: 0.95, 64: 0.81, 256: 0.24}


def reports() -> list[Report]:
    """Return the published figures as the benchmarks report them."""
    throughput = Report(
        "throughput",
        "Throughput",
        metrics=(Metric("rate", "images/s"),),
        charts=[Bars("rate", "Images scrubbed a second, file store")],
    )
    for database, rates in THROUGHPUT.items():
        for peer, rate in rates.items():
            throughput.add(database, peer, rate=rate)
    ideal = "concurrency / 50 ms"
    latency = Report(
        "latency",
        "Latency-bound store",
        metrics=(),
        charts=[
            Lines(
                "One agent, a store that takes 50 ms a delete",
                "deletes at a time",
                "deletes a second",
                {
                    "evscrub": [
                        (count, share * count / DELETE_SECONDS) for count, share in SHARES.items()
                    ],
                    ideal: [(count, count / DELETE_SECONDS) for count in SHARES],
                },
                x_logarithmic=True,
                y_logarithmic=True,
                ideal=ideal,
            )
        ],
    )
    return [throughput, latency]


def main(arguments: list[str] | None = None) -> int:
    """Draw the charts into the folder that is the only argument."""
    from tests.bench.kit.plots import draw  # noqa: PLC0415 - matplotlib is for this alone

    (directory,) = sys.argv[1:] if arguments is None else arguments
    for report in reports():
        draw(report, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
