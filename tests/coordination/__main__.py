# SPDX-License-Identifier: Apache-2.0
"""Prove that agents of a group keep one rate together, whatever befalls them.

The agents, the registry, the bus and the coordinator are real, and an S3 server counts the deletes
as they come in. For each case a line says at which rate the agents scrubbed, and by how much the
busiest window of time, of whatever length, had more deletes than `burst + rate * t`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests import sharing
from tests.coordination.cases import CASES, LIMITS, NEED_HOSTS, NEED_SERVER
from tests.coordination.run import Outcome, Run
from tests.coordination.site import Limits, Site
from tests.servers import COORDINATORS, CoordinatorServer, RabbitMQ

FILES, NONE = "file", "none"
BACKENDS = (*COORDINATORS, FILES, NONE)
_HEAD = (
    f"{'backend':10} {'case':20} {'agents':>6} {'asked':>7} {'rate':>7} {'off':>7} {'above':>7}"
    f" {'allowed':>7} {'in 1 s':>6} {'load':>5}"
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.coordination", description=__doc__)
    parser.add_argument(
        "--backend",
        nargs="+",
        choices=BACKENDS,
        default=[*COORDINATORS, FILES],
        help="what keeps the group; with none, agents know nothing of each other",
    )
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--seconds", type=float, default=60.0, help="at the full rate, by case")
    parser.add_argument("--rate", type=float, default=50.0, help="deletes a second, together")
    parser.add_argument(
        "--burst",
        type=float,
        default=10.0,
        help="deletes at once, together; an agent whose part is near 1 loses the turns that it is"
        " late for",
    )
    parser.add_argument("--membership-timeout", type=int, default=10, metavar="SECONDS")
    parser.add_argument(
        "--slack",
        type=float,
        default=0.25,
        metavar="SECONDS",
        help="how much longer one delete may take from its turn to the server than another,"
        " besides what is measured of that",
    )
    parser.add_argument("--no-bus", action="store_true", help="agents do not see each other there")
    parser.add_argument("--keep", type=Path, help="a folder to leave logs in")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases one after another; returns 1 if one was violated."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are stopped
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="evscrub-coordination-", dir=options.keep))
    sharing.open_to_workers()
    outcomes = []
    try:
        print(_HEAD, flush=True)
        for backend in options.backend:
            for case in options.case:
                if backend == FILES and case in NEED_SERVER | NEED_HOSTS:
                    continue
                if backend == NONE and case in NEED_SERVER:
                    continue
                outcome = run(backend, case, directory / backend / case, options)
                print(line(backend, outcome), flush=True)
                outcomes.append(outcome)
    finally:
        sharing.close()
        if options.keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    return int(any(outcome.violations for outcome in outcomes))


def run(backend: str, case: str, directory: Path, options: argparse.Namespace) -> Outcome:
    """Run one case.

    :param backend: one of `BACKENDS`.
    :param case: a key of `CASES`.
    :param directory: where logs go; it is made.
    :param options: as :func:`parse` returns them.
    """
    directory.mkdir(parents=True)
    rate, burst = LIMITS.get(case, (options.rate, options.burst))
    bus = "" if options.no_bus else sharing.shared(RabbitMQ).new_vhost().url
    with _coordinator(backend) as server:
        limits = Limits(rate, burst, _group(backend, server, directory, options))
        with Site(directory, limits, bus) as site:
            under_way = Run(
                case,
                site,
                server,
                seconds=options.seconds,
                membership_timeout=options.membership_timeout,
                slack_seconds=options.slack,
            )
            CASES[case](under_way)
            (directory / "requests.json").write_text(json.dumps(site.requests()))
            return under_way.end()


def _coordinator(backend: str) -> AbstractContextManager[CoordinatorServer | None]:
    return COORDINATORS[backend]() if backend in COORDINATORS else nullcontext()


def _group(
    backend: str, server: CoordinatorServer | None, directory: Path, options: argparse.Namespace
) -> Mapping[str, object]:
    """Return the options of the group [coordination]."""
    if backend == NONE:
        return {}
    url = f"file://{directory}/group" if server is None else server.url
    return {"backend_url": url, "membership_timeout": options.membership_timeout}


def line(backend: str, outcome: Outcome) -> str:
    """Return what a case found, for people."""
    off = 100 * (outcome.rate / outcome.asked - 1)
    found = (
        f"{backend:10} {outcome.case:20} {outcome.agents:6} {outcome.asked:7.2f}"
        f" {outcome.rate:7.2f} {off:+6.2f}% {outcome.above:7.2f} {outcome.tolerance:7.2f}"
        f" {outcome.second:6} {outcome.load:5.1f}"
    )
    events = [f"{'':10} {event}" for event in outcome.events]
    return "\n".join([found, *events, *(f"VIOLATED   {one}" for one in outcome.violations)])


if __name__ == "__main__":
    os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")
    sys.exit(main())
