# SPDX-License-Identifier: Apache-2.0
"""Agents of one group on a store that counts; see `python -m tests.coordination --help`."""

from oslo_service import backend as oslo_backend

# oslo.messaging loads a backend of oslo.service, by default the one on eventlet.
oslo_backend.register_backend_default_hook(lambda: oslo_backend.BackendType.THREADING)
