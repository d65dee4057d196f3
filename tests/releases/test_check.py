# SPDX-License-Identifier: Apache-2.0
"""``evscrub check``: it finds nothing where all is well, and the one thing that is wrong."""

from tests.functional.test_check import (
    FAILURE,
    Deployment,
    deployment,
    test_correct_deployment_passes_all_checks,
)

__all__ = ["deployment", "test_correct_deployment_passes_all_checks"]


def test_notifications_are_off(deployment: Deployment) -> None:
    """Glance's driver is noop: that one check fails, and says it."""
    checked = deployment.check(("driver = messagingv2", "driver = noop"))
    assert (checked.code, checked.bad()) == (FAILURE, ["Notifications"])
    assert "driver is noop" in checked.details("Notifications")
