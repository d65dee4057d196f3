# SPDX-License-Identifier: Apache-2.0
"""Decides how many images of a lane to claim ahead of its workers. Pure."""

from math import ceil

from evscrub.queueing.turns import OwnerKey, owner_key
from evscrub.scrubbing.lane import Lane

#: Work to claim ahead of the workers, in seconds, so that they do not wait for the database.
_AHEAD_SECONDS = 0.25
#: Further seconds of work for each second that a claim takes: the next begins when half is left.
_AHEAD_PER_CLAIM_SECOND = 2
#: Concurrent claims: one computes while the other waits for the database.
_CLAIMS = 2


def claim_size(lane: Lane, now: float, batch_size: int, rate: float) -> int:
    """Return how many images to claim now; 0 if enough are claimed.

    :param now: seconds since boot.
    :param batch_size: maximum for one transaction.
    :param rate: rate limit of all stores together, deletes per second; 0 for no limit.
    """
    claiming = lane.claiming.images
    probes = lane.breaker.lets_through(now, len(lane.backlog) + claiming + lane.probing)
    if probes is not None:
        return min(probes, lane.free_slots)
    if lane.claiming.count == _CLAIMS:
        return 0
    # Images of owners without a free slot do not count, or they would hold back the others.
    ahead = len(lane.backlog) + claiming - sum(map(lane.backlog.count, lane.held_up()))
    wanted = _wanted(lane, ahead, batch_size)
    rates = [limit for limit in (rate, lane.pace.rate) if limit]
    if rates:
        # Images that would only wait for the rate are left to other agents and owners.
        turns = max(1, int(min(rates) * _ahead_seconds(lane)))
        wanted = min(wanted, turns - ahead - lane.waiting)
    wanted -= ahead
    if wanted <= ahead and wanted < batch_size:
        return 0
    return min(batch_size, wanted if rates else ceil(wanted / lane.claiming.yielded))


def claim_limits(
    lane: Lane, now: float, batch_size: int, *, probe_owners: bool = True
) -> dict[OwnerKey, int]:
    """Return how many images of each limited owner may be claimed now; others are not limited.

    :param now: seconds since boot.
    :param batch_size: maximum for one transaction.
    :param probe_owners: whether an owner whose breaker is not closed may be probed.
    """
    limits: dict[OwnerKey, int] = {}
    for owner in lane.held_up():
        ahead = lane.backlog.count(owner) + lane.claiming.images_of(owner)
        more = _wanted(lane, 0, batch_size) - ahead
        limits[owner_key(owner)] = more if more > ahead else 0  # in bulk rather than one by one
    for owner, breaker in lane.health.shut.items():
        probes = breaker.lets_through(now, lane.probing_of(owner)) if probe_owners else 0
        limits[owner_key(owner)] = probes or 0
    return limits


def _wanted(lane: Lane, ahead: int, batch_size: int) -> int:
    """Return the target number of images claimed ahead of the workers."""
    free = max(0, lane.free_slots - ahead)
    seconds = _ahead_seconds(lane)
    measured = min(2 * batch_size, int(lane.pace.per_second * seconds))
    # The measured rate is also low because few images were due. This one is of a single worker, if
    # each delete takes as long as the fastest of late.
    at_best = min(batch_size, int(seconds / lane.delete_seconds)) if lane.is_fast else 0
    return max(free, measured, at_best)


def _ahead_seconds(lane: Lane) -> float:
    """Return how much work to claim ahead of the workers, in seconds."""
    return _AHEAD_SECONDS + _AHEAD_PER_CLAIM_SECOND * lane.claiming.seconds
