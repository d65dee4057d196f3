# SPDX-License-Identifier: Apache-2.0
"""The main cases beside other releases of Glance: only `tests/run.sh releases` runs them."""
