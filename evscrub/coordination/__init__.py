# SPDX-License-Identifier: Apache-2.0
"""The group of agents that share one set of rates, kept by tooz.

:mod:`~evscrub.coordination.shares` decides which share of the rates an agent uses and is pure,
:mod:`~evscrub.coordination.coordinator` talks to the coordinator, and
:mod:`~evscrub.coordination.member` runs both in a thread.
"""
