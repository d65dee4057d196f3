# SPDX-License-Identifier: Apache-2.0
"""No credential of a URL reaches the log."""

from __future__ import annotations

import logging

import pytest

from evscrub.redact import RedactingFilter, install, redact


@pytest.mark.parametrize(
    "text",
    [
        "s3+https://user:hidden@host/bucket/key",
        "at swift+http://account%3Auser:hidden@host:5000/v3",
        "host s3_host=user:hidden@localhost:9000, bucket=b",
        "('mysql+pymysql://user:hidden@db/glance',)",
    ],
)
def test_credentials_are_replaced(text: str) -> None:
    assert "hidden" not in redact(text)
    assert "***@" in redact(text)


@pytest.mark.parametrize("text", ["file:///var/lib/glance/x", "10:20 a@b", "image 1: done"])
def test_the_rest_is_left(text: str) -> None:
    assert redact(text) == text


def test_filter_rewrites_arguments_and_traceback() -> None:
    try:
        int("s3://user:hidden@host")
    except ValueError as error:
        trouble = (ValueError, error, error.__traceback__)
    record = logging.LogRecord(
        "x", logging.INFO, "f", 1, "at %s", ("s3://user:hidden@host/key",), trouble
    )
    assert RedactingFilter().filter(record)
    shown = logging.Formatter().format(record)
    assert "hidden" not in shown
    assert "***@host/key" in shown


def test_handlers_that_come_later_are_found_and_none_twice() -> None:
    logger, handler = logging.getLogger("evscrub.tests.redact"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        install()
        install()
        assert [type(known) for known in handler.filters] == [RedactingFilter]
    finally:
        logger.removeHandler(handler)
        for known in logging.getLogger().handlers:
            known.filters = [f for f in known.filters if not isinstance(f, RedactingFilter)]
