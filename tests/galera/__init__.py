# SPDX-License-Identifier: Apache-2.0
"""Agents on the nodes of a Galera cluster; the option `--galera-long` adds the long cases."""
