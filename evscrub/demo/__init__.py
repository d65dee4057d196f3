# SPDX-License-Identifier: Apache-2.0
"""The demo of ``evscrub demo``: a real Glance, images that are deleted, and an agent.

:mod:`~evscrub.demo.run` runs it, :mod:`~evscrub.demo.stage` sets up Glance and the configuration,
:mod:`~evscrub.demo.play` uploads and deletes images, :mod:`~evscrub.demo.show` displays progress,
and :mod:`~evscrub.demo.check` verifies the result.
"""
