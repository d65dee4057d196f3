import pytest
import requests
import swiftclient

"""Answers of stores that are odd, and what they are called."""

from evscrub.verdict import judge


@pytest.mark.parametrize(
    "error,reason",
    [
        (swiftclient.ClientException("x", http_status=498), "throttled"),
        (be.ReadTimeoutError(endpoint_url="x"), "timeout"),
        (be.ConnectTimeoutError(endpoint_url="x"), "timeout"),
        (requests.ReadTimeout("x"), "timeout"),
    ],
)
def test_reason(error, reason):
    assert judge(error, "s3").reason == reason


@pytest.mark.parametrize("response", [{"Error": "text"}, {"ResponseMetadata": "x"}])
def test_odd(response):
    error = Exception()
    error.response = response
    judge(error, "s3")
