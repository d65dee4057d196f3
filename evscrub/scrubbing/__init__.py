# SPDX-License-Identifier: Apache-2.0
"""Scrubs images: claims them, deletes their data, and settles the result in the registry.

:mod:`~evscrub.scrubbing.scrubber` takes due images from the queue,
:mod:`~evscrub.scrubbing.claimer` claims them, each store's :mod:`~evscrub.scrubbing.lane` holds
those that wait for it, :mod:`~evscrub.scrubbing.workers` delete, and
:mod:`~evscrub.scrubbing.settler` settles. A :class:`~evscrub.scrubbing.job.Work` is one image on
this way.
"""
