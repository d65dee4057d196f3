# SPDX-License-Identifier: Apache-2.0
"""Rehearse a pass: ``evscrub sweep --dry-run``."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice

from oslo_config import cfg

from evscrub.commands import table_output
from evscrub.commands.sweep_output import LONG_TABLE, TABLE
from evscrub.config import loader
from evscrub.config.settings import scrubber_settings
from evscrub.domain.clock import Clock
from evscrub.domain.decisions import PENDING_DELETE
from evscrub.domain.image_report import AgentReports, Listed
from evscrub.domain.verdict import Verdict, bad_row
from evscrub.domain.words import count, in_units
from evscrub.registry.database import Database
from evscrub.registry.faults import is_of_rows
from evscrub.registry.inventory import Inventory
from evscrub.registry.shared_urls import SharedUrls
from evscrub.single_pass.account import Account
from evscrub.single_pass.portions import (
    BEYOND_LIMIT,
    Fate,
    Knowledge,
    Portion,
    is_scrubbable,
    left,
    portions,
    unreadable,
)
from evscrub.single_pass.selection import Selection
from evscrub.single_pass.stores import load_stores, store_of
from evscrub.stores.names import store_names
from evscrub.telemetry import output

_CHUNK_IMAGES = 500


def rehearse(
    conf: cfg.ConfigOpts,
    database: Database,
    selection: Selection,
    reported: AgentReports,
    arguments: argparse.Namespace,
) -> int:
    """Write what a pass would do, and return the exit code that it would have.

    :param reported: what agents reported about images and stores.
    :param arguments: of ``evscrub sweep``.
    """
    try:
        stores = load_stores(conf, create=False)
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    known = Knowledge(
        scrubber_settings(conf).policy,
        reported,
        partial(store_of, stores, store_names(conf)),
        stores.resolve,
        frozenset(stores.names) - frozenset(stores.deletable),
    )
    account = Account()

    def counted() -> Iterator[Portion]:
        shared_urls = SharedUrls(database, stores, Clock())
        for portion in _portions(selection, database, known, shared_urls):
            account.add(portion)
            yield portion

    with output.reader_may_leave():
        if arguments.long:
            table_output.write(LONG_TABLE, counted(), sys.stdout, arguments)
        else:
            for _ in counted():
                pass
            table_output.write(TABLE, iter(account), sys.stdout, arguments)
        if not arguments.quiet:
            print(_in_sentences(account), file=sys.stderr)
    return 1 if account.images(Fate.STAYS) else 0


def _portions(
    selection: Selection, database: Database, known: Knowledge, shared_urls: SharedUrls
) -> Iterator[Portion]:
    """Yield the portions of the selected images; what exceeds the limit would stay."""
    bad: list[str] = []
    found = selection.read(Inventory(database, _CHUNK_IMAGES, bad.append))
    taken = 0
    while chunk := list(islice(found, _CHUNK_IMAGES)):
        shared = _shared(shared_urls, chunk, chunk[0].now - known.policy.scrub_time)
        for seen in chunk:
            of_image = list(portions(seen, known, shared))
            if not of_image or not selection.takes(of_image):
                continue
            if is_scrubbable(of_image):
                taken += 1
                if selection.limit is not None and taken > selection.limit:
                    of_image = [left(portion, BEYOND_LIMIT) for portion in of_image]
            yield from of_image
    yield from map(unreadable, bad)


def _shared(
    shared_urls: SharedUrls, chunk: Sequence[Listed], due_before: datetime
) -> dict[int, Verdict]:
    """Return verdicts on shared data; images whose rows make the query raise get their own."""
    rows = [row for seen in chunk for row in seen.locations if row.status == PENDING_DELETE]
    try:
        return shared_urls.among(rows, due_before=due_before)
    except Exception as error:
        if not is_of_rows(error):
            raise
        if len(chunk) == 1:
            return dict.fromkeys([row.id for row in rows], bad_row(error))
    middle = len(chunk) // 2
    return _shared(shared_urls, chunk[:middle], due_before) | _shared(
        shared_urls, chunk[middle:], due_before
    )


def _in_sentences(account: Account) -> str:
    def amount(*fates: Fate) -> str:
        number = count(account.images(*fates), "location")
        return f"{number}, {in_units(account.size_bytes(*fates))}"

    return (
        f"evscrub: would delete the data of {amount(Fate.GOES)}; would finish without a delete"
        f" {amount(Fate.FINISHED)}; due but stays: {amount(Fate.STAYS)}; not due:"
        f" {amount(Fate.LATER)}; nothing was changed"
    )
