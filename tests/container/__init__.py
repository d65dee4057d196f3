# SPDX-License-Identifier: Apache-2.0
"""The container image, built and run: only `tests/run.sh container` does it."""
