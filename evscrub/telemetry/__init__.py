# SPDX-License-Identifier: Apache-2.0
"""Log, count and announce what an agent does, without credentials."""
