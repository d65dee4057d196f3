# SPDX-License-Identifier: Apache-2.0
"""Real servers and clients for the demo and for the tests."""
