# SPDX-License-Identifier: Apache-2.0
"""The options, and the files and variables that set them.

:mod:`~evscrub.config.options` defines them, :mod:`~evscrub.config.loader` reads them,
:mod:`~evscrub.config.check` refuses what is wrong, and :mod:`~evscrub.config.settings` hands them
to the parts of an agent as plain values.
"""
