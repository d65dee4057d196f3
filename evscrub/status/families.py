# SPDX-License-Identifier: Apache-2.0
"""Helpers that create metric families with evscrub's prefix."""

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from evscrub.telemetry.histogram import HistogramStatistics

_PREFIX = "evscrub_"
#: Label of images without a location in a usable store.
_NO_STORE = "(none)"


def store_label(name: str | None) -> str:
    """Return the label of a store; of no store if the name is empty or None."""
    return name or _NO_STORE


def gauge(name: str, help_text: str, value: float | None) -> Metric:
    """Return a gauge; without a sample if the value is None."""
    family = GaugeMetricFamily(_PREFIX + name, help_text)
    if value is not None:
        family.add_metric((), value)
    return family


def counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, help_text, value)


def labeled(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    help_text: str,
    labels: Iterable[str],
    values: Mapping[tuple[str, ...], float],
) -> Metric:
    metric = family(_PREFIX + name, help_text, labels=list(labels))
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric


def histogram(name: str, help_text: str, durations: HistogramStatistics) -> Metric:
    sums = list(accumulate(durations.counts))
    bounds = [*(str(bound) for bound in durations.bounds), "+Inf"]
    return HistogramMetricFamily(
        _PREFIX + name,
        help_text,
        buckets=list(zip(bounds, sums, strict=True)),
        sum_value=durations.total_seconds,
    )
