# SPDX-License-Identifier: Apache-2.0
"""What limits requests to a store: rates, concurrency that adapts, and circuit breakers.

Pure: time is passed in.
"""
