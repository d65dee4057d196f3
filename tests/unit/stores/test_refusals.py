# SPDX-License-Identifier: Apache-2.0
"""What is told of stores that refuse a delete."""

from pathlib import Path

import pytest
from glance_store import exceptions as store_exceptions

from evscrub.domain.verdict import Verdict, judge
from evscrub.stores.refusals import explain
from tests.unit.domain.test_verdict import CASES, URL, client_error, foreign, swift_error


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("scheme", "error", "reason", "who"),
    [
        ("s3+https", client_error(403, "AccessDenied"), "refused", "s3_store_access_key"),
        ("s3", client_error(401, "InvalidToken"), "permission_denied", "s3_store_access_key"),
        ("swift+https", swift_error(403), "refused", "swift_store_user"),
        ("rbd", foreign("rbd", "PermissionError", errno=1), "permission_denied", "rbd_store_user"),
        (
            "rbd",
            raised_from(
                store_exceptions.BackendException(),
                foreign("rados", "PermissionDeniedError", errno=13),
            ),
            "permission_denied",
            "rbd_store_user",
        ),
        ("odd", swift_error(401), "permission_denied", "the user of this configuration"),
    ],
)
def test_refusal_names_the_user_to_check(
    scheme: str, error: Exception, reason: str, who: str
) -> None:
    verdict = explain(error, scheme, None)
    assert verdict is not None
    assert verdict.reason == reason
    assert who in verdict.hint
    assert "secret" not in verdict.why
    assert verdict.detail == type(error).__name__
    assert not verdict.tells_overload


@pytest.mark.parametrize(
    ("scheme", "error"),
    [(case[0], case[1]) for case in CASES if case[3] not in {"refused", "permission_denied"}],
)
def test_other_exceptions_are_not_refusals(scheme: str, error: Exception) -> None:
    assert explain(error, scheme, None) is None


def test_forbidden_without_an_os_error_is_not_a_refusal() -> None:
    assert explain(store_exceptions.Forbidden(URL), "file", Path("/x/y")) is None


def test_overload_is_only_what_a_lower_rate_may_help() -> None:
    told = {
        verdict.reason
        for verdict in (judge(case[1], case[0]) for case in CASES)
        if verdict.tells_overload
    }
    assert told == {
        "throttled",
        "timeout",
        "unavailable",
        "connection",
        "client",
        "backend",
        "forbidden",
    }


def test_why_is_the_reason_with_its_hint() -> None:
    verdict = judge(client_error(503, "SlowDown"), "s3")
    assert verdict.why == "throttled"
    assert Verdict(verdict.outcome, "io_error", "", "a_b").why == "io error: a_b"
