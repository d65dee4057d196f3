# SPDX-License-Identifier: Apache-2.0
"""Imports the drivers of glance_store, as each program does to learn their options."""

import glance_store
from oslo_config import cfg

glance_store.register_opts(cfg.ConfigOpts())
