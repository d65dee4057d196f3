# SPDX-License-Identifier: Apache-2.0
"""Vendor, product and version, in the form that oslo.reports expects."""

from importlib.metadata import version


def vendor_string() -> str:
    return "evscrub"


def product_string() -> str:
    return "evscrub"


def version_string_with_package() -> str:
    return version("evscrub")


def name_and_version() -> str:
    return f"evscrub {version_string_with_package()}"
