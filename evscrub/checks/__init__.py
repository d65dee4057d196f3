# SPDX-License-Identifier: Apache-2.0
"""The checks of ``evscrub check``: whether an agent can work here.

There is a module each for Glance's options, the bus, the coordinator, the registry, the stores and
the agents. A check is a function that takes a :class:`Subject`, stores there what later checks
need, and returns :class:`~evscrub.checks.report.Findings`. Checks change nothing in the registry,
on the bus, at the coordinator or in a store, and no finding contains a credential or the URL of a
location.
"""

from collections.abc import Callable, Iterable

from evscrub.checks import agent, bus, coordination, glance, registry, stores
from evscrub.checks.report import Findings, NotCheckedError, Report
from evscrub.checks.subject import Subject
from evscrub.registry.database import UNAVAILABLE
from evscrub.telemetry.redact import redact

#: Name of the first entry of a report, about the configuration files.
CONFIGURATION = "Configuration"

#: The checks in the order in which they run and are shown.
CHECKS: tuple[tuple[str, Callable[[Subject], Findings]], ...] = (
    ("Delayed delete", glance.delayed_delete),
    ("Notifications", glance.notifications),
    ("Message bus", bus.brokers),
    ("Exchange and queues", bus.queues),
    ("Unread queues", bus.unread),
    ("Coordination", coordination.coordination),
    ("Database", registry.connection),
    ("Schema", registry.schema),
    ("Privileges", registry.privileges),
    ("Clock", registry.clock),
    ("Clocks of database nodes", registry.node_clocks),
    ("Stores", stores.stores),
    ("Locations", stores.locations),
    ("Active images", stores.witnesses),
    ("Foreign locations", stores.foreign),
    ("scrub_time and db purge", glance.purge_age),
    ("Backlog", registry.backlog),
    ("Damaged images", registry.damage),
    ("Agents", agent.agents),
)


def run(subject: Subject) -> Report:
    """Run all checks; one that cannot run is reported as not checked."""
    files = Findings()
    files.note(f"Read: {', '.join(subject.conf.config_file) or 'no file'}.")
    report: Report = [(CONFIGURATION, files)]
    for name, check in CHECKS:
        try:
            findings = check(subject)
        except NotCheckedError as error:
            findings = Findings()
            findings.warn(f"Not checked: {error}.")
        except UNAVAILABLE as error:
            findings = Findings()
            findings.fail(registry.unusable(subject, error))
            subject.lose()
        report.append((name, findings))
    return report


def refused(problems: Iterable[str]) -> Report:
    """Return the report on an invalid configuration, with which no check can run.

    :param problems: the errors in it, a sentence each.
    """
    findings = Findings()
    for problem in problems:
        findings.fail(redact(problem) + ("" if problem.endswith("?") else "."))
    return [(CONFIGURATION, findings)]
