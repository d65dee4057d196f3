# SPDX-License-Identifier: Apache-2.0
"""What all unit tests need."""

import importlib
import warnings

from hypothesis import settings
from oslo_service import backend

# Warnings are errors here, but not those of OpenStack's libraries about each other.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # Before anything imports oslo.messaging: it would pick eventlet otherwise.
    backend.init_backend(backend.BackendType.THREADING)
    for name in ("oslo_messaging", "swiftclient"):
        importlib.import_module(name)

# How long an example takes says how busy the machine is, nothing about the code.
settings.register_profile("evscrub", deadline=None)
settings.load_profile("evscrub")
