# SPDX-License-Identifier: Apache-2.0
"""Read the tunable options into plain values for the parts of an agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction

from oslo_config import cfg

from evscrub.domain.address import MAX_PORT, Address
from evscrub.domain.address import parse as parse_address
from evscrub.domain.decisions import Policy
from evscrub.domain.retry_policy import Delays


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the scrubber.

    :param policy: when data may be deleted.
    :param concurrency: images scrubbed at the same time, at least 1.
    :param rate: delete requests a second over all stores; 0 is no limit.
    :param burst: delete requests that may be sent at once after idle time, at least 1.
    :param batch_size: images claimed in one transaction, at least 1.
    :param delays: delays of retries.
    :param horizon_seconds: images that are due later than this are not queued.
    :param store_concurrency: images scrubbed at the same time, by store.
    :param store_rate: delete requests a second, by store; 0 is no limit.
    :param owner_rate: images a second for each owner; 0 is no limit.
    :param not_found_limit: missing images after which a store without a witness is paused; 0 is no
        limit and no check.
    :param acknowledged_stores: stores whose missing data is taken as deleted.
    :param trusts_few_missing: see :class:`evscrub.domain.proof.Missing`.
    :param shared_concurrency: whether a group of agents shares the limits of concurrency too.
    """

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
    trusts_few_missing: bool = True
    shared_concurrency: bool = False

    @property
    def rate_options(self) -> tuple[str, ...]:
        """The options that limit a rate."""
        rates = {
            "rate": self.rate,
            "store_rate": any(self.store_rate.values()),
            "owner_rate": self.owner_rate,
        }
        return tuple(option for option, limit in rates.items() if limit)

    @property
    def is_shared(self) -> bool:
        """Whether there is a limit that a group of agents shares."""
        return self.shared_concurrency or bool(self.rate_options)

    def of_share(self, part: Fraction) -> "Settings":
        """Return the settings for a part of the limits.

        One image at a time and a burst of one request are the least, whatever the part.

        :param part: above 0, at most 1.
        """
        most = (lambda limit: max(1, int(limit * part))) if self.shared_concurrency else int
        share = float(part)
        return replace(
            self,
            rate=self.rate * share,
            burst=max(1.0, self.burst * share),
            owner_rate=self.owner_rate * share,
            store_rate={store: rate * share for store, rate in self.store_rate.items()},
            concurrency=most(self.concurrency),
            store_concurrency={
                store: most(limit) for store, limit in self.store_concurrency.items()
            },
        )

    def allowed(self, store: str) -> tuple[int, float]:
        """Return how many images at a time and how many deletes a second a store may get.

        :returns: the two limits; the second is 0 for no limit.
        """
        concurrency = min(self.concurrency, self.store_concurrency.get(store, self.concurrency))
        return concurrency, self.store_rate.get(store, 0.0)

    def not_found_limit_of(self, store: str) -> int:
        """Return after how many missing images in a row a store is paused; 0 for never."""
        return 0 if store in self.acknowledged_stores else self.not_found_limit


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Settings of the sweep.

    :param policy: when data may be deleted.
    :param interval: seconds between sweeps of recent changes.
    :param full_interval: seconds between sweeps of the whole registry.
    """

    policy: Policy
    interval: float
    full_interval: float

    @property
    def horizon_seconds(self) -> float:
        """Time within which an image must be due to be queued; a full sweep finds later ones."""
        return 2 * self.full_interval


def scrubber_settings(conf: cfg.ConfigOpts) -> Settings:
    """Return the settings of the scrubber."""
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
        shared_concurrency=options.shared_concurrency,
    )


def sweep_settings(conf: cfg.ConfigOpts) -> SweepSettings:
    """Return the settings of the sweep."""
    return SweepSettings(
        policy=_policy(conf),
        interval=conf.sweep.interval,
        full_interval=conf.sweep.full_interval,
    )


def unset_delay(conf: cfg.ConfigOpts) -> str | None:
    """Return a warning if no file sets ``scrub_time`` while ``delayed_delete`` is on.

    :returns: None if there is nothing to warn about.
    """
    place = conf.get_location("scrub_time")
    if not conf.delayed_delete or place is None or place.location is not cfg.Locations.opt_default:
        return None
    return (
        "scrub_time is set nowhere while delayed_delete is on: with the default of 0 data is"
        " deleted right after a DELETE, and no image can be restored. Set [DEFAULT] scrub_time in"
        " evscrub.conf, to 0 if that is intended; if glance-scrubber.conf sets it, add that file to"
        " glance_config_files"
    )


def _policy(conf: cfg.ConfigOpts) -> Policy:
    return Policy(
        scrub_time=timedelta(seconds=conf.scrub_time),
        claim_timeout=timedelta(seconds=conf.scrubber.claim_timeout),
        orphans=conf.sweep.orphans,
    )


def status_address(conf: cfg.ConfigOpts) -> Address | None:
    """Return where this configuration's agent listens for status requests.

    :returns: ``[status] listen`` with ``port_offset`` added to its port; None for no listener.
    :raises ValueError: the sum is not a port.
    """
    address = parse_address(conf.status.listen)
    if address is None or not address.port:  # port 0 is any free port
        return address
    port = address.port + conf.status.port_offset
    if port > MAX_PORT:
        raise ValueError(
            f"[status] port_offset is {conf.status.port_offset}, which added to the port of"
            f" [status] listen, {address.port}, exceeds {MAX_PORT}: set a smaller number"
        )
    return address._replace(port=port)
