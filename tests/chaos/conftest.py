# SPDX-License-Identifier: Apache-2.0
"""SIGTERM ends these tests as Ctrl-C does, so that the servers are stopped."""

from tests.functional.conftest import pytest_configure

__all__ = ["pytest_configure"]
