# SPDX-License-Identifier: Apache-2.0
"""Intake: how many events a second come through RabbitMQ into the queue."""

from __future__ import annotations

from tests.bench.kit.bus import connect, utc_now
from tests.bench.kit.lab import Lab
from tests.bench.kit.processes import Peer
from tests.bench.kit.results import Bars, Metric, Ratio, Report
from tests.bench.kit.scale import Scale, tell
from tests.bench.kit.seed import Batch

_DEADLINE_SECONDS = 600.0
NOOP = "no-op listener, batches"
_PEERS = {"evscrub": "evscrub", NOOP: "batches", "no-op listener, single": "single"}


def run(lab: Lab, scale: Scale) -> Report:
    report = Report(
        "intake",
        "Intake: events a second off a full queue of RabbitMQ",
        metrics=(
            Metric("rate", "events/s"),
            Metric("cpu", "CPU us/event"),
            Metric("broker", "broker CPU us/event"),
        ),
        ratios=(Ratio("rate", NOOP, "x no-op"), Ratio("cpu", NOOP, "CPU x no-op")),
        charts=[Bars("rate", "Events taken in a second")],
        notes=[
            (
                "evscrub is the whole agent, its sweep included; the events are checked and wait"
                " in its queue, for they are due in an hour"
            ),
            "the no-op listeners are oslo.messaging's own, with the same batches and prefetch",
        ],
    )
    site = lab.site(lab.databases[0])
    site.lay()
    messages = scale.count(50_000, 3_000)
    case = f"{messages:,} events"
    path = site.agent_config({"DEFAULT": {"scrub_time": 3600}})
    broker = lab.rabbitmq.pid
    for turn in scale.turns:
        for peer, kind in _PEERS.items():
            tell(f"round {turn + 1}: {peer}")
            with connect(lab.rabbitmq) as bus:
                bus.fill(Batch(messages).numbers, utc_now())
            arguments = ("--config-file", path, "--kind", kind, "--messages", messages)
            with Peer("intake", arguments, site.directory / "intake.log") as process:
                span = process.measure(_DEADLINE_SECONDS, [broker] if broker else [])
            count = span.values["messages"]
            report.add(
                case,
                peer,
                rate=count / span.seconds,
                cpu=span.cpu_seconds / count * 1e6,
                broker=span.server_cpu_seconds / count * 1e6,
            )
    share = report.ratio(case, "evscrub", report.ratios[0]) or 0.0
    report.goals = [f"at least 90 % of a listener that does nothing: {share * 100:.0f} %"]
    return report
