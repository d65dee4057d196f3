# SPDX-License-Identifier: Apache-2.0
"""What an operator tunes, read from the configuration into values that the parts are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from oslo_config import cfg

from evscrub.domain.decisions import Policy
from evscrub.domain.retry_policy import Delays


@dataclass(frozen=True, slots=True)
class Settings:
    """The scrubber's settings; times in seconds, rates a second with 0 for no limit."""

    policy: Policy
    concurrency: int
    rate: float
    burst: float
    batch_size: int
    delays: Delays
    horizon_seconds: float
    store_concurrency: Mapping[str, int] = field(default_factory=dict)
    store_rate: Mapping[str, float] = field(default_factory=dict)
    owner_rate: float = 0.0
    not_found_limit: int = 0
    acknowledged_stores: frozenset[str] = frozenset()

    def allowed(self, store: str) -> tuple[int, float]:
        """How many deletes at a time, and how many a second, a store may get."""
        concurrency = min(self.concurrency, self.store_concurrency.get(store, self.concurrency))
        return concurrency, self.store_rate.get(store, 0.0)

    def not_found_limit_of(self, store: str) -> int:
        """How many "not found" in a row a store is believed before it is paused, 0 for any."""
        return 0 if store in self.acknowledged_stores else self.not_found_limit


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """The sweep's settings; intervals in seconds."""

    policy: Policy
    interval: float
    full_interval: float

    @property
    def horizon_seconds(self) -> float:
        """How far ahead images are put into the queue: until a full sweep finds them anyway."""
        return 2 * self.full_interval


def scrubber_settings(conf: cfg.ConfigOpts) -> Settings:
    """Read the scrubber's part of the configuration."""
    options = conf.scrubber
    return Settings(
        policy=_policy(conf),
        concurrency=options.concurrency,
        rate=options.rate,
        burst=options.burst,
        batch_size=options.batch_size,
        delays=Delays(
            initial=options.retry_initial,
            longest=options.retry_max,
            in_use=options.in_use_delay,
            parked=options.parked_delay,
        ),
        horizon_seconds=sweep_settings(conf).horizon_seconds,
        store_concurrency=options.store_concurrency,
        store_rate=options.store_rate,
        owner_rate=options.owner_rate,
        not_found_limit=options.not_found_limit,
        acknowledged_stores=frozenset(options.acknowledged_stores),
    )


def sweep_settings(conf: cfg.ConfigOpts) -> SweepSettings:
    """Read the sweep's part of the configuration."""
    return SweepSettings(
        policy=_policy(conf),
        interval=conf.sweep.interval,
        full_interval=conf.sweep.full_interval,
    )


def unset_delay(conf: cfg.ConfigOpts) -> str | None:
    """Say what it means that ``scrub_time`` is set nowhere while ``delayed_delete`` is on.

    :returns: None where that is not so.
    """
    place = conf.get_location("scrub_time")
    if not conf.delayed_delete or place is None or place.location is not cfg.Locations.opt_default:
        return None
    return (
        "scrub_time is set nowhere while delayed_delete is on: by its default of 0 data is deleted"
        " at once after a DELETE, and no image can be restored. Set [DEFAULT] scrub_time in"
        " evscrub.conf, to 0 if that is meant; if glance-scrubber.conf has it, name that file in"
        " glance_config_files too"
    )


def _policy(conf: cfg.ConfigOpts) -> Policy:
    return Policy(
        scrub_time=timedelta(seconds=conf.scrub_time),
        claim_timeout=timedelta(seconds=conf.scrubber.claim_timeout),
        orphans=conf.sweep.orphans,
    )
