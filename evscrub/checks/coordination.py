# SPDX-License-Identifier: Apache-2.0
"""Check how agents share their limits: through a coordinator, or each by itself."""

import os
import secrets
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

from evscrub.checks.report import Findings
from evscrub.checks.subject import Subject
from evscrub.config.settings import scrubber_settings
from evscrub.coordination.capabilities import shares
from evscrub.coordination.coordinator import Coordinator, CoordinatorAwayError
from evscrub.coordination.member import GroupSettings, group_settings
from evscrub.domain.quoting import printable, shorten
from evscrub.domain.words import count
from evscrub.intake import amqp
from evscrub.intake.consumer_count import count_agents

_SECONDS = 5.0
_SHOWN = 12
#: A member of tooz' file driver makes this file in the driver's directory.
_FILE_LOCK = ".driver_lock"

_Members = Mapping[str, Fraction | None]


def coordination(subject: Subject) -> Findings:
    """Check the coordinator, and that all agents that consume from the bus are its members."""
    found = Findings()
    consumers = _consumers(subject)
    try:
        group = group_settings(subject.conf)
        if group is None:
            _check_alone(found, subject, consumers)
            return found
        coordinator = Coordinator(
            group.url,
            group.group,
            f"evscrub-check:{os.getpid()}:{secrets.token_hex(4)}",
            group.membership_seconds,
            group.request_seconds,
        )
    except ValueError as error:
        found.fail(f"{error}.")
        return found
    _check_options(found, subject, group)
    try:
        members = {} if _is_unused_directory(group.url) else _members(coordinator)
    except CoordinatorAwayError as error:
        found.fail(
            f"The coordinator does not answer: {error}. Agents keep the share that they have, and"
            " those that start share by the bus's consumers. Check the coordinator, and"
            " [coordination] backend_url with its user and password."
        )
        return found
    _check_members(found, group, members)
    _check_consumers(found, subject, len(members), consumers)
    return found


def _check_alone(found: Findings, subject: Subject, consumers: int | None) -> None:
    options = scrubber_settings(subject.conf).rate_options
    limits = f"{' and '.join(options)} {'holds' if len(options) == 1 else 'hold'}"
    if subject.conf.scrubber.shared_concurrency:
        found.warn(
            "[scrubber] shared_concurrency has no effect without [coordination] backend_url: set"
            " that too, for all agents."
        )
    said = "Each agent by itself: [coordination] backend_url is not set"
    if not options:
        found.note(f"{said}, and no rate is limited.")
    elif consumers is None:
        found.note(
            f"{said}: {limits} for each agent. How many agents consume from the bus is not known."
        )
    elif consumers <= 1:
        found.note(f"{said}. {count(consumers, 'agent consumes', 'agents consume')} from the bus.")
    else:
        found.warn(
            f"{said}, and {consumers} agents consume from the bus: {limits} for each of them,"
            f" so the stores get up to {consumers} times as much. Set [coordination]"
            " backend_url for all agents, so that the limits hold for all of them together; or"
            f" divide the limits by {consumers}, and again whenever an agent is added or removed."
        )


def _check_options(found: Findings, subject: Subject, group: GroupSettings) -> None:
    if not scrubber_settings(subject.conf).is_shared:
        found.note("[scrubber] sets no limit that the agents could share.")
    try:
        bus_tells = bool(amqp.configured(subject.conf).brokers)
    except ValueError:
        return  # another check fails
    if not bus_tells and not group.expected:
        found.warn(
            "The bus is not RabbitMQ and does not tell how many agents there are: an agent that"
            " starts while the coordinator is away scrubs nothing. Set [coordination]"
            " expected_members to the number of agents."
        )


def _is_unused_directory(url: str) -> bool:
    """Return whether no member has used the file driver's directory.

    The driver would make its files there, for this user instead of the agents'.
    """
    pieces = urlsplit(url)
    return pieces.scheme == "file" and not (Path(pieces.path) / _FILE_LOCK).exists()


def _members(coordinator: Coordinator) -> _Members:
    """Return the members' shares.

    :raises CoordinatorAwayError: the coordinator did not answer within 5 seconds.
    """
    answer: list[_Members | CoordinatorAwayError] = []

    def ask() -> None:
        try:
            answer.append(shares(coordinator.look()))
        except CoordinatorAwayError as error:
            answer.append(error)
        coordinator.leave()

    # A client may wait for longer than its timeout, and look up a host's name for as long as it
    # likes.
    thread = threading.Thread(target=ask, name="coordinator", daemon=True)
    thread.start()
    thread.join(_SECONDS)
    match answer:
        case [CoordinatorAwayError() as error, *_]:
            raise error
        case [Mapping() as members, *_]:
            return members
    raise CoordinatorAwayError(f"not within {_SECONDS:.0f} s")


def _check_members(found: Findings, group: GroupSettings, members: _Members) -> None:
    shown = [
        f"{printable(shorten(name))} {'of an unknown share' if share is None else share}"
        for name, share in list(members.items())[:_SHOWN]
    ]
    more = f" and {len(members) - _SHOWN} more" if len(members) > _SHOWN else ""
    said = f": {', '.join(shown)}{more}" if members else ""
    found.note(f"The group {group.group} has {count(len(members), 'member')}{said}.")
    if None in members.values():
        found.warn(
            f"A member of the group {group.group} publishes no share that this release can read,"
            " so the others use none beside it: look for an agent of another release, or another"
            " program that uses the group."
        )
    if 0 < group.expected < len(members):
        found.warn(
            f"[coordination] expected_members is {group.expected}, and the group has"
            f" {len(members)} members: an agent that cannot reach the coordinator may then use too"
            f" much. Set it to {len(members)}, or to 0 with RabbitMQ."
        )


def _check_consumers(
    found: Findings, subject: Subject, members: int, consumers: int | None
) -> None:
    if consumers is None:
        found.note("How many agents consume from the bus is not known.")
    elif members < consumers:
        queues = " and ".join(amqp.consumers_of_an_agent(subject.conf.listener))
        found.warn(
            f"{count(consumers, 'agent consumes', 'agents consume')} from the bus, but the group"
            f" has {count(members, 'member')}. Likely causes: an agent without [coordination]"
            " backend_url or of an earlier release, whose limits then come on top; an agent with"
            " another [coordination] name; one that cannot reach the coordinator, as its log tells;"
            f" or another service that consumes {queues}. The members divide the limits by"
            f" {consumers}."
        )
    else:
        found.note(f"{count(consumers, 'agent consumes', 'agents consume')} from the bus.")


def _consumers(subject: Subject) -> int | None:
    """Return how many agents consume from the bus; None if it does not tell."""
    if subject.broker is None:
        return None
    try:
        with amqp.connection(subject.broker) as connection:
            return count_agents(connection, amqp.consumers_of_an_agent(subject.conf.listener))
    except amqp.ERRORS:
        return None
