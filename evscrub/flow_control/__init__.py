# SPDX-License-Identifier: Apache-2.0
"""Limits on requests to a store: rate limits, adaptive limits and circuit breakers.

All but :mod:`~evscrub.flow_control.rate_limit` and :mod:`~evscrub.flow_control.share` are pure:
time is passed in.
"""
