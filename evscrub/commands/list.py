# SPDX-License-Identifier: Apache-2.0
"""List the images that await scrubbing: ``evscrub list``."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TextIO

from oslo_config import cfg

from evscrub.commands import agent_reports, selection, sorting, table_output, watching
from evscrub.commands.arguments import name, natural
from evscrub.commands.list_output import TABLE
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.config.settings import scrubber_settings
from evscrub.domain import image_report
from evscrub.domain.address import Address
from evscrub.domain.image_report import AgentReports, ImageReport
from evscrub.domain.refusals import CannotRunError, UnavailableError
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.errors import explain
from evscrub.registry.inventory import Inventory
from evscrub.stores.names import StoreNames, store_names
from evscrub.telemetry import output

_LOST = "lost the connection to the database"
#: Names of states on the command line; the other options are short for one of them.
_STATES = {state.replace(" ", "-"): state for state in image_report.STATES}
_SHORT = {
    "due": image_report.DUE,
    "parked": image_report.PARKED,
    "held": image_report.HOLD,
}
#: States that only agents know.
_REPORTED = {image_report.PARKED, image_report.IN_USE}
#: The registry is read in this order, so it needs no sorting.
_REGISTRY_ORDER = "ID"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the images whose data awaits scrubbing, ordered by due time. States: waiting (not due"
        " yet), due, claimed (an agent is deleting it), in use (by clones or snapshots), parked"
        " (only an operator can help), held, damaged (never touched: only a person can judge). Only"
        " agents know which images are in use or parked, and which stores are paused; the command"
        " asks them on their status ports. If none answers, such images are shown as due."
    )
    parser.epilog = (
        "Any number of images is listed in constant memory. Sorting by any column, and so the"
        " default order, reads all images first, and keeps what exceeds a few megabytes in a"
        " temporary file in $TMPDIR. --sort-column ID needs neither: images are written as they are"
        " read. Exit codes: 0 success, 1 images that only agents know, parked or in use, were"
        " selected, and no agent answers, 2 wrong usage, or a store that is not enabled and has"
        " no image to scrub, 69 the database does not answer, 78 the configuration is wrong."
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        type=_state,
        choices=sorted(_STATES),
        dest="states",
        help="only images in this state; may be repeated to list images in any of several states",
    )
    for state in _SHORT:
        parser.add_argument(f"--{state}", action="store_true", help=f"the same as --state {state}")
    parser.add_argument("--owner", type=name, help="only images of this owner, a project's id")
    parser.add_argument(
        "--store",
        type=name,
        help="only images with a pending location in this store: a name in enabled_backends or, if"
        " Glance has a single store, its type",
    )
    parser.add_argument("--limit", type=natural, metavar="N", help="at most this many images")
    watching.add_argument(parser)
    agent_reports.add_argument(parser, "which images are parked or in use")
    table_output.add_arguments(parser, TABLE)
    sorting.add_arguments(parser, "due time, the earliest first")


def main(arguments: argparse.Namespace) -> int:
    conf, _ = loader.load_for(arguments)
    try:
        TABLE.shown(arguments)
        database = Database(conf)
        database.probe()
        agents = arguments.agent or agent_reports.default_agents(conf)
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    names = store_names(conf)
    if arguments.store is not None and arguments.store not in names.names:
        output.say(
            f"no store {arguments.store} is enabled here; enabled stores: {', '.join(names.names)}"
        )
    listing = _Listing(conf, database, names, agents, _choose(arguments))
    write = partial(_write, arguments)
    if arguments.watch is not None:
        separator = {"table": None, "yaml": "---"}.get(arguments.formatter, "")
        source = watching.Source(listing.read, write, "image", separator)
        return watching.watch(source, arguments.watch)
    with output.reader_may_leave():
        write(listing.read(output.say), sys.stdout)
    if arguments.store is not None and listing.is_empty:
        try:
            if not selection.is_store(arguments.store, database, names):
                return selection.NO_SUCH_STORE
        except UNAVAILABLE as error:
            raise UnavailableError(f"{_LOST}: {explain(error)}") from None
    return 0 if listing.is_complete else 1


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which images to list, and in which order.

    :param states: empty for all.
    :param sort_columns: empty for the due time.
    """

    states: frozenset[str]
    owner: str | None
    store: str | None
    limit: int | None
    sort_columns: tuple[str, ...]
    descending: bool


def _choose(arguments: argparse.Namespace) -> _Choice:
    short = {state for name, state in _SHORT.items() if getattr(arguments, name)}
    return _Choice(
        states=frozenset(short | {_STATES[name] for name in arguments.states}),
        owner=arguments.owner,
        store=arguments.store,
        limit=arguments.limit,
        sort_columns=tuple(sorting.chosen(TABLE, arguments, output.say)),
        descending=arguments.sort_direction == "desc",
    )


class _Listing:
    """Reads the images of a choice, any number of times.

    :ivar is_complete: whether an agent told the states that only agents know, or none was asked
        for by name.
    :ivar is_empty: whether no image was listed.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        database: Database,
        stores: StoreNames,
        agents: Iterable[Address],
        choice: _Choice,
    ) -> None:
        self._policy = scrubber_settings(conf).policy
        self._database = database
        self._stores = stores
        self._agents = agents
        self._choice = choice
        self.is_complete = True
        self.is_empty = True

    def read(self, say: Callable[[str], None]) -> Iterator[ImageReport]:
        """Yield the images, in order.

        :param say: called with what the user should know about the list.
        :raises CannotRunError: the database does not answer, or there is no room for sorting.
        """
        reported = agent_reports.ask(self._agents, say)
        if reported is None:
            self.is_complete = not self._choice.states & _REPORTED
        else:
            for store, trouble in reported.stores.items():
                if self._choice.store in {None, store}:
                    say(trouble)
        found = self._sorted(self._chosen(reported or AgentReports(), say))
        try:
            yield from islice(found, self._choice.limit)
        except UNAVAILABLE as error:
            raise UnavailableError(f"{_LOST}: {explain(error)}") from None
        except sorting.SortError as error:
            raise CannotRunError(f"{error}, or use --sort-column ID") from None

    def _chosen(self, reported: AgentReports, say: Callable[[str], None]) -> Iterator[ImageReport]:
        def say_unreadable(image_id: str) -> None:
            say(
                f"skipped image {image_id}, whose rows in images and image_locations cannot be"
                " read: correct the dates, and check that each location has a URL"
            )

        choice = self._choice
        inventory = Inventory(self._database, on_unreadable=say_unreadable)
        for seen in inventory.read(owner=choice.owner, held=choice.states == {image_report.HOLD}):
            line = image_report.describe(seen, self._policy, reported, self._stores.of)
            if line is None or (choice.states and line.state not in choice.states):
                continue
            if choice.store is None or choice.store in line.stores:
                self.is_empty = False
                yield line

    def _sorted(self, lines: Iterator[ImageReport]) -> Iterator[ImageReport]:
        columns, descending = self._choice.sort_columns, self._choice.descending
        if columns[:1] == (_REGISTRY_ORDER,) and not descending:
            return lines
        default = TABLE.columns["Due At"], TABLE.columns["ID"]
        keys = [TABLE.columns[name] for name in columns] or [default[0]]
        return sorting.in_order(lines, keys, ties=default, descending=descending)


def _write(arguments: argparse.Namespace, lines: Iterable[ImageReport], stdout: TextIO) -> None:
    table_output.write(TABLE, lines, stdout, arguments)


def _state(text: str) -> str:
    return text.strip().lower().replace(" ", "-").replace("_", "-")
