# SPDX-License-Identifier: Apache-2.0
"""Scrub what is due once, or rehearse that: ``evscrub sweep [--dry-run]``."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping

import anyio
from oslo_config import cfg

from evscrub.commands import agent_reports, sweep_progress, sweep_rehearsal, table_output
from evscrub.commands.arguments import name, natural
from evscrub.commands.sweep_output import LONG_TABLE, TABLE
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.config.settings import unset_delay
from evscrub.domain.hold_rules import RefusedError
from evscrub.domain.image_report import AgentReports
from evscrub.domain.refusals import UnavailableError, UsageError
from evscrub.domain.words import count, in_units
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.errors import explain
from evscrub.registry.gateway import RegistryAwayError
from evscrub.registry.holds import Holds
from evscrub.scrubbing.scrubber import Scrubber
from evscrub.single_pass.account import Account
from evscrub.single_pass.portions import Fate
from evscrub.single_pass.run import Progress, SinglePass
from evscrub.single_pass.selection import Selection
from evscrub.status.view import lines
from evscrub.stores.loading import is_about_loading
from evscrub.stores.names import StoreNames, store_names
from evscrub.telemetry import log_redaction, output, quiet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Scrub what is due once and exit, as glance-scrubber does without --daemon: by the same"
        " claims, limits and checks as an agent, beside agents and other passes. It ends when"
        " nothing is left that it could scrub now; see --wait. --dry-run changes nothing: it says"
        " what would go, what would not, and why."
    )
    parser.epilog = (
        "Exit codes: 0 nothing due is left, 1 something due is left, an image was not found, or a"
        " signal ended the pass, 2 wrong usage, 69 the database does not answer, 78 the"
        " configuration is wrong. SIGTERM and SIGINT finish running deletes and release the rest."
        " With -f json, csv, yaml or value, what is left is written in that format."
    )
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only report")
    parser.add_argument("--owner", type=name, help="only images of this owner, a project's id")
    parser.add_argument(
        "--store",
        type=name,
        help="only images with a pending location in this store; their locations in other stores"
        " go too",
    )
    parser.add_argument(
        "--limit", type=natural, metavar="N", help="at most this many images, 0 or more"
    )
    parser.add_argument(
        "--image",
        dest="images",
        action="extend",
        nargs="+",
        type=name,
        default=[],
        metavar="ID",
        help="only these images, if they are due",
    )
    parser.add_argument(
        "--wait",
        type=natural,
        default=60,
        metavar="SECONDS",
        help="how long to wait without any progress for retries of failed deletes, for a store that"
        " does not work, and for images that another process has claimed, in seconds; a call to a"
        " store that hangs is waited for longer (default: 60)",
    )
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="show no progress, which is a line a minute without a terminal, and no summary if"
        " nothing due is left",
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help="with --dry-run: one line for each location, instead of sums by store, owner and"
        " reason",
    )
    agent_reports.add_argument(
        parser, "which stores are paused and, with --dry-run, which images are parked or in use"
    )
    table_output.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    if arguments.long and not arguments.dry_run:
        raise UsageError("--long is for --dry-run")
    conf, own = loader.load_for(arguments)
    try:
        (LONG_TABLE if arguments.long else TABLE).choose(arguments.columns)
        database = Database(conf)
        database.probe()
        agents = arguments.agent or agent_reports.default_agents(conf)
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    names = store_names(conf)
    if arguments.store is not None and arguments.store not in names.names:
        raise UsageError(
            f"--store: no store {arguments.store} is enabled here; enabled stores:"
            f" {', '.join(names.names)}"
        )
    try:
        found, missing = _find(Holds(database), arguments.images)
        if arguments.images and not found:
            return 1
        selection = Selection(arguments.owner, arguments.store, found, arguments.limit)
        if arguments.dry_run:
            # A log file is not created, and what libraries log is not printed.
            logging.getLogger().addHandler(logging.NullHandler())
            reported = agent_reports.ask(agents) or AgentReports()
            return max(
                sweep_rehearsal.rehearse(conf, database, selection, reported, arguments),
                int(missing),
            )
    except UNAVAILABLE as error:
        raise UnavailableError(f"the registry cannot be used: {explain(error)}") from None
    database.dispose()
    reported = agent_reports.ask(agents, say=lambda _: None) or AgentReports()
    paused = {store: reported.stores[store] for store in reported.paused}
    _start_logging(own)
    code = max(_scrub(conf, selection, names, paused, arguments), int(missing))
    # Exit without waiting for threads: a store call may outlive drain_timeout.
    output.silence()
    logging.shutdown()
    os._exit(code)


def _find(holds: Holds, given: list[str]) -> tuple[list[str], bool]:
    """Return the ids of images as the registry has them, and whether any was not found."""
    found, missing = [], False
    for image_id in given:
        try:
            found.append(holds.find(image_id))
        except RefusedError as error:
            missing = True
            output.say(f"{image_id}: {error}")
    return list(dict.fromkeys(found)), missing


def _scrub(
    conf: cfg.ConfigOpts,
    selection: Selection,
    names: StoreNames,
    paused: Mapping[str, str],
    arguments: argparse.Namespace,
) -> int:
    if warning := unset_delay(conf):
        output.say(warning)
    try:
        single_pass = SinglePass(conf, selection, names, _reports, float(arguments.wait), paused)
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    try:
        account = anyio.run(_run, single_pass, arguments.quiet)
    except* RegistryAwayError:
        account = None
        output.say("lost the connection to the database")
        code = UnavailableError.exit_code
    else:
        code = 1 if account is None or account.images(Fate.STAYS) else 0
    with output.reader_may_leave():
        _tell(single_pass.progress(), account, arguments, code)
    return code


def _start_logging(own: loader.OwnOptions) -> None:
    loader.start_logging(own)
    log_redaction.install()
    quiet.install(quiet.Demote(lambda told: quiet.is_raised(told) or is_about_loading(told)))
    elsewhere = (own.log_file, own.log_dir, own.log_config_append, own.use_syslog, own.use_journal)
    if not any(elsewhere) and not own.debug:
        # Standard error is the terminal, or cron's mail.
        logging.getLogger().setLevel(logging.WARNING)


async def _run(single_pass: SinglePass, is_quiet: bool) -> Account | None:  # noqa: FBT001 - anyio.run passes positional arguments
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_at_signal, stop)
        if not is_quiet:
            tasks.start_soon(sweep_progress.show, single_pass.progress)
        account = await single_pass.run(stop)
        tasks.cancel_scope.cancel()
    return account


async def _stop_at_signal(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for _ in signals:
            stop.set()


def _reports(scrubber: Scrubber) -> AgentReports:
    """Return what this pass found out, as an agent would report it."""
    told = lines(scrubber.statistics().lanes, scrubber.images_in_trouble())
    # Without the number of tries, which would split a reason into many.
    return agent_reports.collect({**json.loads(line), "tries": 0} for line in told)


def _tell(
    done: Progress, account: Account | None, arguments: argparse.Namespace, code: int
) -> None:
    is_for_people = arguments.formatter == "table"
    if not is_for_people and account is not None:
        left = (one for one in account if one.like.fate is Fate.STAYS)
        table_output.write(TABLE, left, sys.stdout, arguments)
    if arguments.quiet and not code:
        return
    print(sweep_progress.summary(done), file=sys.stdout if is_for_people else sys.stderr)
    if account is None:
        if code == 1:
            output.say("ended by a signal; what is left was not counted")
        return
    if is_for_people:
        _tell_reasons("Left", account, Fate.STAYS)
        if arguments.images:
            _tell_reasons("Not due", account, Fate.LATER)


def _tell_reasons(title: str, account: Account, fate: Fate) -> None:
    for reason, (images, size_bytes) in account.by_reason(fate).items():
        print(f"{title}: {count(images, 'image')}, {in_units(size_bytes)}: {reason}")
