# SPDX-License-Identifier: Apache-2.0
"""The in-memory queue in which image ids wait until they are due."""
