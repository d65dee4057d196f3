# SPDX-License-Identifier: Apache-2.0
"""``evscrub agent``."""

import argparse
import os
import sys
from functools import partial

import anyio
from oslo_log import log
from oslo_reports import guru_meditation_report as gmr
from oslo_reports import opts as gmr_opts

from evscrub import config, redact, version
from evscrub.agent import Agent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    conf, own = config.load_for(arguments)
    log.set_defaults(default_log_levels=[*log.get_default_log_levels(), "glance_store=WARNING"])
    log.setup(own, "evscrub")
    redact.install()
    gmr_opts.set_defaults(conf)
    gmr.TextGuruMeditation.setup_autorun(version, conf=conf)
    agent = Agent(conf, own)
    anyio.run(partial(_run, agent))
    # oslo.messaging's threads may hang on a broker that is away, and a store call that outlived
    # drain_timeout on its store: neither is to keep the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _run(agent: Agent) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.handle_signals)
        await agent.run()
        tasks.cancel_scope.cancel()
