# SPDX-License-Identifier: Apache-2.0
"""Run an agent: ``evscrub agent``."""

import argparse
import gc
import os
import signal
from functools import partial

import anyio
from oslo_log import log
from oslo_reports import guru_meditation_report as gmr
from oslo_reports import opts as gmr_opts

from evscrub import version
from evscrub.agent import Agent
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.telemetry import log_redaction, output
from evscrub.telemetry.service_manager import ServiceManager

LOG = log.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run an agent beside Glance, in the foreground: it finds deleted images on the bus and in"
        " the registry, and deletes their data when they are due. Any number of agents may run."
        " SIGTERM and SIGINT end it when the deletes under way are done; SIGHUP applies changed"
        " options."
    )
    parser.epilog = (
        "Exit codes: 0 ended by a signal, 1 failed unexpectedly, 2 wrong usage, 69 the database"
        " cannot be used at start, 78 the configuration is wrong. A service manager should restart"
        " the agent after 1 and 69, and not after 2 and 78."
    )
    add_config_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    # SIGHUP would end a process without a handler; Agent.handle_signals unblocks it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    conf, own = loader.load_for(arguments)
    loader.start_logging(own)
    log_redaction.install()
    gmr_opts.set_defaults(conf)
    gmr.TextGuruMeditation.setup_autorun(version, conf=conf)
    agent = Agent(conf, own)
    collect_seldom()
    code = 0
    try:
        anyio.run(partial(_run, agent))
    except Exception:
        LOG.exception("The agent failed unexpectedly and exits")
        code = 1
    # Exit without waiting for threads: oslo.messaging's may hang on a broker that is away, and a
    # store call may outlive drain_timeout.
    output.silence()
    os._exit(code)


def collect_seldom() -> None:
    """Have Python look for unreachable objects less often, and not in what there is by now.

    With its defaults it looks after each 700 new objects, and now and then at all that there are:
    under load that is 4 % of the time, in pauses of up to 90 ms.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def _run(agent: Agent) -> None:
    manager = ServiceManager()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.handle_signals)
        tasks.start_soon(manager.watch)
        async with anyio.create_task_group() as running:
            await running.start(agent.run)
            manager.tell("READY=1", f"MAINPID={os.getpid()}")
        manager.tell("STOPPING=1")
        tasks.cancel_scope.cancel()
