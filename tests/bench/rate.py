# SPDX-License-Identifier: Apache-2.0
"""Rate: whether the agent keeps to the deletes a second that it is asked for."""

from __future__ import annotations

import json

from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Lines, Metric, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch
from tests.rates import most_above

_GRACE_SECONDS = 120.0
#: Deletes a second, burst, and for how many seconds. With a burst of 1, whatever time the event
#: loop is late by is lost to the rate; one of 50 ms' worth makes that up.
_WHOLE = (
    (0.5, 1, 60.0),
    (10.0, 1, 30.0),
    (200.0, 1, 20.0),
    (200.0, 10, 20.0),
    (2_000.0, 1, 10.0),
    (2_000.0, 100, 10.0),
)
_QUICK = ((10.0, 1, 2.0), (200.0, 10, 2.0))


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "rate",
        "Rate: deletes a second, asked for and measured",
        metrics=(
            Metric("asked", "asked for", 1),
            Metric("rate", "measured", 2),
            Metric("error", "off by %", 2),
            Metric("above", "above burst + rate * t", 2),
            Metric("above_ms", "in ms"),
        ),
        notes=[
            "the whole agent on MariaDB; the store is a stand-in that notes when it is called",
            (
                "measured from the first delete to the last; the last two columns are the most by"
                " which any window of time had more deletes than burst and rate allow, and that"
                " in time at this rate, of which some is the worker thread's way to the"
                " processor, after its turn"
            ),
        ],
    )
    site = lab.site(lab.databases[0])
    curves = {}
    found = []
    for rate, burst, seconds in _QUICK if scale.quick else _WHOLE:
        case = f"{rate:g}/s, burst {burst}"
        tell(f"{case}, for {seconds:.0f} s")
        times = _times(site, rate, burst, max(2, round(rate * seconds) + burst), seconds)
        # The burst goes at once; from there it is the rate.
        measured = (len(times) - burst) / (times[-1] - times[burst - 1])
        error = (measured / rate - 1) * 100
        above = most_above(times, rate, burst)
        report.add(
            case,
            "evscrub",
            asked=rate,
            rate=measured,
            error=error,
            above=above,
            above_ms=above / rate * 1000,
        )
        found.append(f"{case}: {error:+.2f} %, {above:+.2f}")
        curves[case] = [
            (at - times[0] + 1 / rate, (number + 1) / rate) for number, at in enumerate(times)
        ]
    line = [(0.05, 0.05), (60.0, 60.0)]
    report.charts = [
        Lines(
            "Deletes done, in seconds' worth of the rate asked for",
            "seconds",
            "deletes / rate",
            {**curves, "exactly as asked": line},
            x_logarithmic=True,
            y_logarithmic=True,
            ideal="exactly as asked",
        )
    ]
    report.goals = [
        (
            "within 2 % over a long window, and never above burst + rate * t (0 or less in the last"
            f" column but one): {'; '.join(found)}"
        )
    ]
    return report


def _times(site: Site, rate: float, burst: int, images: int, seconds: float) -> list[float]:
    site.lay(Batch(images), files=False)
    path = site.agent_config(
        {"DEFAULT": {"scrub_time": 0}, "scrubber": {"rate": rate, "burst": burst}}
    )
    log = site.directory / "times.json"
    arguments = ("--config-file", path, "--images", images, "--delete-seconds", 0, "--times", log)
    with Peer("agent", arguments, site.directory / "agent.log") as peer:
        for said in ("begin", "first", "end", "left"):
            peer.hears(said, 3 * seconds + _GRACE_SECONDS)
    times: list[float] = json.loads(log.read_text())
    return times
