# SPDX-License-Identifier: Apache-2.0
"""Answers of stores that are odd, and what they are called."""

from __future__ import annotations

import pytest
import requests
import swiftclient
from botocore import exceptions as botocore_exceptions

from evscrub.domain.verdict import judge


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (swiftclient.ClientException("x", http_status=498), "throttled"),
        (botocore_exceptions.ReadTimeoutError(endpoint_url="x"), "timeout"),
        (botocore_exceptions.ConnectTimeoutError(endpoint_url="x"), "timeout"),
        (requests.ReadTimeout("x"), "timeout"),
    ],
)
def test_reason(error: Exception, reason: str) -> None:
    assert judge(error, "s3").reason == reason


@pytest.mark.parametrize("response", [{"Error": "text"}, {"ResponseMetadata": "x"}])
def test_a_response_of_another_shape(response: dict[str, str]) -> None:
    error = Exception()
    error.response = response  # type: ignore[attr-defined] # as botocore's have it
    assert judge(error, "s3").reason == "unexpected"
