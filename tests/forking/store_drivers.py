# SPDX-License-Identifier: Apache-2.0
"""Imports the drivers of glance_store, as each program does to learn their options."""

import logging

import glance_store
from oslo_config import cfg

logging.disable()  # it warns of those whose client libraries are not installed
glance_store.register_opts(cfg.ConfigOpts())
logging.disable(logging.NOTSET)
