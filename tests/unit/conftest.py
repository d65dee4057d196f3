# SPDX-License-Identifier: Apache-2.0
"""What unit tests need."""

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import settings
from oslo_config import cfg
from oslo_log import log

from evscrub.config import options

# How long an example takes says how busy the machine is, nothing about the code.
settings.register_profile("evscrub", deadline=None)
# For a further Python: what depends on the interpreter shows in few examples as well.
settings.register_profile("few", deadline=None, max_examples=10)
settings.load_profile("evscrub")


@pytest.fixture
def global_configuration() -> Iterator[None]:
    """Leave the global configuration, and the level of the log, as they were found."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)
    log.set_defaults(default_log_levels=log.get_default_log_levels())
    cfg.CONF.reset()
    for group, opts in options.GROUPS.items():
        with suppress(cfg.NoSuchGroupError):  # a test that is refused registers none
            cfg.CONF.unregister_opts(opts, None if group == "DEFAULT" else group)
