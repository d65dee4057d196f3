# SPDX-License-Identifier: Apache-2.0
"""Findings of the checks, shown in the format of oslo.upgradecheck."""

import json
import warnings
from dataclasses import dataclass, field

from oslo_upgradecheck.upgradecheck import Code, Result, UpgradeCommands

TITLE = "evscrub check"


class NotCheckedError(Exception):
    """Raised by a check that cannot run, because another failed; the message says why."""


@dataclass
class Findings:
    """Collect what a check found; its result is the worst of it, or success without any."""

    code: Code = Code.SUCCESS
    _texts: list[tuple[Code, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a remark about something in order."""
        self._add(Code.SUCCESS, text)

    def warn(self, text: str) -> None:
        """Add something that an operator should look at."""
        self._add(Code.WARNING, text)

    def fail(self, text: str) -> None:
        """Add a problem that keeps agents from working, with what to change and where."""
        self._add(Code.FAILURE, text)

    @property
    def details(self) -> str | None:
        """All texts, worst first; None without any."""
        worst_first = sorted(self._texts, key=lambda found: -found[0])
        return " ".join(text for _, text in worst_first) or None

    def _add(self, code: Code, text: str) -> None:
        self.code = max(self.code, code)
        self._texts.append((code, text))


Report = list[tuple[str, Findings]]


def show(report: Report) -> None:
    """Print a report as a table."""

    class Commands(UpgradeCommands):
        display_title = TITLE
        _upgrade_checks = tuple(
            (name, lambda _self, found=findings: Result(found.code, found.details))
            for name, findings in report
        )

    with warnings.catch_warnings():
        # oslo.upgradecheck draws its table with a constant that prettytable renamed.
        warnings.simplefilter("ignore", DeprecationWarning)
        Commands().check()


def to_json(report: Report) -> str:
    """Return a report as JSON in oslo.upgradecheck's format."""
    checks = [
        {"check": name, "result": int(findings.code), "details": findings.details}
        for name, findings in report
    ]
    return json.dumps({"name": TITLE, "checks": checks}, indent=2)


def worst(report: Report) -> Code:
    """Return the worst result, which is the exit code."""
    return max((findings.code for _, findings in report), default=Code.SUCCESS)
