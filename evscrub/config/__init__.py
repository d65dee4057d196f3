# SPDX-License-Identifier: Apache-2.0
"""Options, and the files and environment variables that set them.

:mod:`~evscrub.config.options` defines the options, :mod:`~evscrub.config.loader` reads their
values, :mod:`~evscrub.config.check` rejects wrong ones, and :mod:`~evscrub.config.settings` gives
them to the parts of an agent as plain values.
"""
