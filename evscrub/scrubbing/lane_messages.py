# SPDX-License-Identifier: Apache-2.0
"""Logs state changes of lanes; everything in between is only counted."""

from oslo_log import log as logging

from evscrub.domain.evidence import Scope
from evscrub.flow_control.health import Change, Event
from evscrub.scrubbing.lane import Lane

LOG = logging.getLogger(__name__)


def tell(lane: Lane, change: Change) -> None:
    """Log a change of a lane's state."""
    if change.scope is Scope.OWNER:
        _tell_of_owner(lane, change)
        return
    match change.event:
        case Event.SLOWED:
            LOG.info(
                "Store %s is overloaded: slowed to %d at a time and %.1f a second",
                lane.name,
                lane.pace.concurrent,
                lane.pace.rate,
            )
        case Event.RECOVERED:
            LOG.info("Store %s is at its full pace again", lane.name)
        case Event.OPENED:
            LOG.warning(
                "Store %s does not work (%s): its images wait, and it is probed periodically",
                lane.name,
                change.reason,
            )
        case Event.REFUSING:
            LOG.warning(
                "Store %s refuses one image after another (%s): they are tried one at a time."
                " May evscrub's user delete there?",
                lane.name,
                change.reason,
            )
        case Event.CLOSED:
            LOG.info("Store %s works again", lane.name)
        case Event.IDLE:
            LOG.info("Store %s has no image left that failed: it counts as working", lane.name)
        case Event.PAUSED:
            LOG.error(
                "Store %s is paused: %s. Is its file system mounted, is its bucket, container or"
                " pool the right one? Nothing more is deleted in it, and these images stay pending."
                " Repair it and send the agents SIGHUP; if the data is really gone, add %s to"
                " [scrubber] acknowledged_stores first",
                lane.name,
                change.reason,
                lane.name,
            )


def _tell_of_owner(lane: Lane, change: Change) -> None:
    """Log a change that concerns one owner's images."""
    match change.event:
        case Event.OPENED:
            LOG.warning(
                "Store %s fails for images of project %s (%s): they wait, and one is tried"
                " periodically; other projects' images go on",
                lane.name,
                change.owner,
                change.reason,
            )
        case Event.REFUSING:
            LOG.warning(
                "Store %s refuses one image of project %s after another (%s): they are tried one"
                " at a time; other projects' images go on",
                lane.name,
                change.owner,
                change.reason,
            )
        case Event.CLOSED:
            LOG.info("Store %s works again for images of project %s", lane.name, change.owner)
        case Event.IDLE:
            LOG.info(
                "Store %s has no image of project %s left that failed: it counts as working",
                lane.name,
                change.owner,
            )
