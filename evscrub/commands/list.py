# SPDX-License-Identifier: Apache-2.0
"""List the images that await scrubbing: ``evscrub list``."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from oslo_config import cfg

from evscrub.commands import agent_reports, table_output
from evscrub.commands.arguments import natural, status_port
from evscrub.commands.list_output import TABLE
from evscrub.config import loader
from evscrub.config.settings import scrubber_settings
from evscrub.domain import image_report
from evscrub.domain.image_report import AgentReports, ImageReport
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.errors import explain
from evscrub.registry.inventory import Inventory
from evscrub.stores.names import StoreNames, store_names
from evscrub.telemetry import output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the images whose data awaits scrubbing, ordered by id. States: waiting (not due yet),"
        " due, claimed (an agent is deleting it), in use (by clones or snapshots), parked (only an"
        " operator can help), held, damaged (never touched: only a person can judge). Only agents"
        " know which images are in use or parked, and which stores are paused; the command asks"
        " them on their status ports. If none answers, such images are shown as due."
    )
    loader.add_arguments(parser)
    parser.add_argument("--due", action="store_true", help="only images that are due")
    parser.add_argument("--parked", action="store_true", help="only images that are parked")
    parser.add_argument(
        "--held",
        action="store_true",
        help="only images that are held; several of these options list images in any of the states",
    )
    parser.add_argument("--owner", help="only images of this owner, a project's id")
    parser.add_argument(
        "--store",
        help="only images with a pending location in this store: a name in enabled_backends or, if"
        " Glance has a single store, its type",
    )
    parser.add_argument("--limit", type=natural, metavar="N", help="at most this many images")
    parser.add_argument(
        "--agent",
        action="append",
        type=status_port,
        metavar="HOST:PORT",
        help="status port of an agent to ask which images are parked or in use; may be repeated"
        " (default: [status] listen)",
    )
    table_output.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    conf, _ = loader.load_for(arguments)
    try:
        TABLE.choose(arguments.columns)
        database = Database(conf)
        database.probe()
        agents = arguments.agent or agent_reports.default_agents(conf)
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    reported = agent_reports.ask(agents)
    names = store_names(conf)
    if arguments.store is not None and arguments.store not in names.names:
        print(
            f"evscrub: no store {arguments.store} is enabled here; enabled stores:"
            f" {', '.join(names.names)}",
            file=sys.stderr,
        )
    try:
        lines = _lines(conf, database, names, reported or AgentReports(), arguments)
        with output.reader_may_leave():
            table_output.write(TABLE, lines, sys.stdout, arguments)
    except UNAVAILABLE as error:
        raise loader.ConfigError(f"lost the connection to the database: {explain(error)}") from None
    return 1 if arguments.parked and reported is None else 0


def _lines(
    conf: cfg.ConfigOpts,
    database: Database,
    stores: StoreNames,
    reported: AgentReports,
    arguments: argparse.Namespace,
) -> Iterable[ImageReport]:
    policy = scrubber_settings(conf).policy
    names = {image_report.DUE: "due", image_report.PARKED: "parked", image_report.HOLD: "held"}
    states = {state for state, name in names.items() if getattr(arguments, name)}
    found = Inventory(database, on_unreadable=_say_unreadable).read(
        owner=arguments.owner, held=states == {image_report.HOLD}
    )

    def lines() -> Iterator[ImageReport]:
        for seen in found:
            line = image_report.describe(seen, policy, reported, stores.of)
            if line is None or (states and line.state not in states):
                continue
            if arguments.store is None or arguments.store in line.stores:
                yield line

    return islice(lines(), arguments.limit)


def _say_unreadable(image_id: str) -> None:
    print(
        f"evscrub: skipped image {image_id}, whose rows in images and image_locations cannot be"
        " read: correct the dates, and check that each location has a URL",
        file=sys.stderr,
    )
