# SPDX-License-Identifier: Apache-2.0
"""Keep image ids in memory until they are due, and deal them to lanes, owners in turn.

:class:`~evscrub.queueing.delay_queue.DelayQueue` is the interface;
:mod:`~evscrub.queueing.waiting` keeps images that are not due, :mod:`~evscrub.queueing.turns` those
that are ready, and :mod:`~evscrub.queueing.image_key` packs their ids.
"""
