# SPDX-License-Identifier: Apache-2.0
"""What ``evscrub check`` looks at: whether the agent can do its work here.

A module for each side: Glance's options, the bus, the registry, the stores, the agents. Each check
is a function that takes a :class:`Subject` and returns :class:`~evscrub.checks.report.Findings`;
what it learns for those after it, it leaves in the subject. Nothing is changed, neither in the
registry nor on the bus nor in a store, and nothing that is said holds a credential or a location's
URL.
"""

from collections.abc import Callable, Iterable

from evscrub.checks import agent, bus, glance, registry, stores
from evscrub.checks.report import Findings, NotCheckedError, Report
from evscrub.checks.subject import Subject
from evscrub.registry.database import UNAVAILABLE
from evscrub.telemetry.redact import redact

#: What comes before all of them: the files themselves.
CONFIGURATION = "Configuration"

#: In the order they run in, and are shown in.
CHECKS: tuple[tuple[str, Callable[[Subject], Findings]], ...] = (
    ("Delayed delete", glance.delayed_delete),
    ("Notifications", glance.notifications),
    ("Message bus", bus.brokers),
    ("Exchange and queues", bus.queues),
    ("Unread queues", bus.unread),
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
    """Carry out every check."""
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
    """Report a configuration that cannot be read, beside which nothing else can be looked at.

    :param problems: what is wrong with it, a sentence each.
    """
    findings = Findings()
    for problem in problems:
        findings.fail(redact(problem) + ("" if problem.endswith("?") else "."))
    return [(CONFIGURATION, findings)]
