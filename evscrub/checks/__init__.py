# SPDX-License-Identifier: Apache-2.0
"""What ``evscrub check`` looks at: whether the agent can do its work here.

A module for each side: Glance's options, the bus, the registry, the stores. Each check is a
function that takes a :class:`Subject` and returns :class:`~evscrub.checks.report.Findings`; what it
learns for those after it, it leaves in the subject. Nothing is changed, neither in the registry nor
on the bus nor in a store, and nothing that is said holds a credential or a location's URL.
"""

from collections.abc import Callable

from evscrub.checks import bus, glance, registry, stores
from evscrub.checks.report import Findings, NotCheckedError, Report
from evscrub.checks.subject import Subject

#: In the order they run in, and are shown in.
CHECKS: tuple[tuple[str, Callable[[Subject], Findings]], ...] = (
    ("Delayed delete", glance.delayed_delete),
    ("Notifications", glance.notifications),
    ("Message bus", bus.brokers),
    ("Exchange and queues", bus.queues),
    ("Database", registry.connection),
    ("Schema", registry.schema),
    ("Privileges", registry.privileges),
    ("Clock", registry.clock),
    ("Stores", stores.stores),
    ("Locations", stores.locations),
    ("Foreign locations", stores.foreign),
    ("scrub_time and db purge", glance.purge_age),
    ("Backlog", registry.backlog),
    ("Damaged images", registry.damage),
)


def run(subject: Subject) -> Report:
    """Carry out every check."""
    report: Report = []
    for name, check in CHECKS:
        try:
            findings = check(subject)
        except NotCheckedError as error:
            findings = Findings()
            findings.warn(f"Not checked: {error}.")
        report.append((name, findings))
    return report
