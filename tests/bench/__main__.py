# SPDX-License-Identifier: Apache-2.0
"""Run benchmarks: ``python -m tests.bench``.

It starts its own servers, runs every peer on the same data in turn, several rounds, prints a table
of medians and ratios for each benchmark, and stops everything it started. ``--json`` saves what was
found, and ``--compare`` shows what has changed since.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path

from tests.bench.kit.compare import compare, load
from tests.bench.kit.lab import DATABASES, Lab
from tests.bench.kit.results import Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.tables import render

#: Modules of this package, each with ``run(lab, scale)``, in the order that they run in.
BENCHMARKS = (
    "delay_queue",
    "throughput",
    "live_images",
    "latency",
    "lateness",
    "rate",
    "intake",
    "big_registry",
    "parked",
    "idle",
    "commands",
    "scale_out",
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of each, in seconds")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiply the numbers of images by this"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument(
        "--compare", type=_saved, metavar="FILE", help="compare with what --json wrote there"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw charts there, as SVG")
    return parser.parse_args(arguments)


def _saved(path: str) -> list[Report]:
    try:
        return load(Path(path))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # So that the servers are stopped when this is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = Scale(options.quick, options.scale, options.rounds)
    machine = describe_machine()
    sys.stdout.write(f"{machine}\n\n")
    reports: list[Report] = []
    failed = []
    with Lab(tuple(options.databases)) as lab:
        for name in options.only:
            began = time.monotonic()
            tell(name)
            try:
                report = importlib.import_module(f"tests.bench.{name}").run(lab, scale)
            except Exception as error:  # noqa: BLE001 - the others are to run all the same
                tell(f"{name} failed: {type(error).__name__}: {error}")
                failed.append(name)
                continue
            tell(f"{name}: {time.monotonic() - began:.0f} s")
            reports.append(report)
            sys.stdout.write(render(report) + "\n")
            sys.stdout.flush()
            if options.json:  # after each, so that what was measured stays when one hangs
                found = {"machine": machine, "reports": [each.as_json() for each in reports]}
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.compare:
        sys.stdout.write(compare(options.compare, reports))
    if options.plots:
        from tests.bench.kit.plots import draw  # noqa: PLC0415 - matplotlib is for this alone

        for report in reports:
            draw(report, options.plots)
    return 1 if failed else 0


def describe_machine() -> str:
    """Say what this ran on, and how busy that was with other things."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()},"
        f" Python {platform.python_version()}; load average at start {load:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
