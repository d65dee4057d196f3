# SPDX-License-Identifier: Apache-2.0
"""Scrubs images: claims them, deletes their data, and settles the result in the registry.

:mod:`~evscrub.scrubbing.scrubber` runs the loop, and :mod:`~evscrub.scrubbing.scheduler` decides
what it starts. The steps of one image are in :mod:`~evscrub.scrubbing.pipeline`:
:mod:`~evscrub.scrubbing.claimer` claims it, the :mod:`~evscrub.scrubbing.lane` of its store holds
it until a worker is free, :mod:`~evscrub.scrubbing.deleter` deletes its data, and
:mod:`~evscrub.scrubbing.settler` settles. A :class:`~evscrub.scrubbing.job.Job` is one claimed
image.
"""
