# SPDX-License-Identifier: Apache-2.0
"""Live images beside: what they add to the cost of each image that is scrubbed."""

from __future__ import annotations

from tests.bench.kit.lab import Lab, Site
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Metric, Ratio, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_DEADLINE_SECONDS = 900.0
ALONE = "evscrub, none beside"


def run(lab: Lab, scale: Scale) -> Report:
    images, live = scale.count(20_000, 500), scale.count(1_000_000, 500)
    beside = f"evscrub, {live:,} beside"
    report = Report(
        "live_images",
        f"Live images beside: the second half of {images:,} images, file store",
        metrics=(Metric("rate", "images/s"), Metric("cpu", "CPU us/image")),
        ratios=(Ratio("cpu", ALONE, "CPU x alone"),),
        notes=[
            (
                "time runs from when half of the images are scrubbed: the index of shared data is"
                " there, and the sweep has ended"
            ),
        ],
    )
    for database in lab.databases:
        site = lab.site(database)
        site.expect_many()
        path = site.agent_config({"DEFAULT": {"scrub_time": 0}})
        arguments = ("--config-file", path, "--images", images)
        for peer, already in ((ALONE, 0), (beside, live)):
            tell(f"{database}: filling the registry with {already:,} live images")
            site.lay(Batch(already, live=True))
            for turn in scale.turns:
                tell(f"{database}, round {turn + 1}: {peer}")
                site.add(Batch(images, 1 + already + turn * images))
                site.wait_for_rest()
                report.add(database, peer, **_second_half(site, arguments, images // 2))
        dearer = report.ratio(database, beside, report.ratios[0]) or 0.0
        report.goals.append(f"{database}: at most 1.1 times the CPU: {dearer:.2f}")
    return report


def _second_half(site: Site, arguments: tuple[object, ...], images: int) -> dict[str, float]:
    with Peer("agent", arguments, site.directory / "agent.log") as peer:
        span = peer.measure(_DEADLINE_SECONDS, site.servers, second_half=True)
    if site.pending() or any(site.data.iterdir()):
        raise AssertionError("the agent left rows or files")
    return {"rate": images / span.seconds, "cpu": span.cpu_seconds / images * 1e6}
