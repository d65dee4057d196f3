# SPDX-License-Identifier: Apache-2.0
"""What benchmarks find: samples, their medians and ratios, and what is to be drawn of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of figures.

    :param key: its name in samples.
    :param digits: behind the point.
    """

    key: str
    title: str
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Ratio:
    """A column that compares with one peer.

    :param metric: key of what is compared.
    :param peer: what the others are divided by.
    """

    metric: str
    peer: str
    title: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one peer."""

    case: str
    peer: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart of one metric, a bar for each peer, a panel for each case."""

    metric: str
    title: str


@dataclass(frozen=True, slots=True)
class Lines:
    """A chart of curves.

    :param ideal: the name of the curve that is what could be had at best, if any.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Curve]
    x_logarithmic: bool = False
    y_logarithmic: bool = False
    ideal: str | None = None


@dataclass
class Report:
    """All that one benchmark found."""

    name: str
    title: str
    metrics: Sequence[Metric]
    ratios: Sequence[Ratio] = ()
    samples: list[Sample] = field(default_factory=list)
    goals: list[str] = field(default_factory=list)
    """Each goal with what was measured."""
    notes: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Longer findings, such as query plans, by title."""
    charts: list[Bars | Lines] = field(default_factory=list)

    def add(self, case: str, peer: str, **values: float) -> None:
        """Take in a run."""
        self.samples.append(Sample(case, peer, values))

    @property
    def cases(self) -> list[str]:
        """In the order of their coming."""
        return list(dict.fromkeys(sample.case for sample in self.samples))

    def peers(self, case: str) -> list[str]:
        """Those of a case, in the order of their coming."""
        return list(dict.fromkeys(each.peer for each in self.samples if each.case == case))

    def values(self, case: str, peer: str, metric: str) -> list[float]:
        """What all rounds gave."""
        return [
            sample.values[metric]
            for sample in self.samples
            if sample.case == case and sample.peer == peer and metric in sample.values
        ]

    def median(self, case: str, peer: str, metric: str) -> float | None:
        """The median of the rounds, None where it was not measured."""
        values = self.values(case, peer, metric)
        return statistics.median(values) if values else None

    def ratio(self, case: str, peer: str, ratio: Ratio) -> float | None:
        """How a peer's median compares with that of the ratio's peer."""
        value = self.median(case, peer, ratio.metric)
        base = self.median(case, ratio.peer, ratio.metric)
        return value / base if value is not None and base else None

    def as_json(self) -> dict[str, object]:
        """Everything, medians included."""
        return {
            **asdict(self),
            "medians": [
                {
                    "case": case,
                    "peer": peer,
                    **{each.key: self.median(case, peer, each.key) for each in self.metrics},
                    **{each.title: self.ratio(case, peer, each) for each in self.ratios},
                }
                for case in self.cases
                for peer in self.peers(case)
            ],
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all are not above, with 0 < share <= 1."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
