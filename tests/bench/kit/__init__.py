# SPDX-License-Identifier: Apache-2.0
"""What all benchmarks share: servers and data, processes, results, tables and plots."""
