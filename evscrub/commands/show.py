# SPDX-License-Identifier: Apache-2.0
"""Show all that is known of one image: ``evscrub show``."""

import argparse
import sys

from evscrub.commands import agent_reports, show_output
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.config.settings import scrubber_settings
from evscrub.domain import image_report
from evscrub.domain.hold_rules import RefusedError
from evscrub.domain.image_report import AgentReports, Detail
from evscrub.domain.refusals import UnavailableError
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.details import Details
from evscrub.registry.errors import explain
from evscrub.registry.faults import is_of_rows
from evscrub.registry.holds import Holds
from evscrub.stores.names import store_names
from evscrub.telemetry import output

_ANSWER_SECONDS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show one image of the registry: its state and why it is in it, its times, its locations by"
        " store without their URLs, and what 'evscrub restore' would bring back or why it would be"
        " refused. States are those of 'evscrub list', and live and scrubbed for images that have"
        " nothing to scrub. An image that only an agent knows to be parked or in use is shown as"
        " due if no agent answers."
    )
    parser.epilog = (
        "Changes nothing and locks nothing. Exit codes: 0 success, 1 the registry has no such"
        " image, or its rows cannot be read, 2 wrong usage, 69 the database does not answer, 78"
        " the configuration is wrong."
    )
    add_config_arguments(parser)
    parser.add_argument("image", metavar="IMAGE", help="the image's id, in upper or lower case")
    agent_reports.add_argument(parser, "whether the image is parked or in use")
    show_output.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    conf, _ = loader.load_for(arguments)
    try:
        show_output.choose(arguments)
        # Short: each query reads the rows of one image by their keys.
        database = Database(conf, answer_seconds=_ANSWER_SECONDS)
        database.probe()
        agents = arguments.agent or agent_reports.default_agents(conf)
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    try:
        detail = _read(database, arguments.image)
    except RefusedError as error:
        output.say(f"image {arguments.image!r}: {error}")
        return 1
    except UNAVAILABLE as error:
        raise UnavailableError(f"the registry cannot be used: {explain(error)}") from None
    policy, names = scrubber_settings(conf).policy, store_names(conf)
    report = image_report.describe_any(detail.seen, policy, AgentReports(), names.of)
    if report.state == image_report.DUE:  # agents know nothing of images in other states
        reported = agent_reports.ask(agents) or AgentReports()
        report = image_report.describe_any(detail.seen, policy, reported, names.of)
    with output.reader_may_leave():
        show_output.write(detail, report, policy, names, sys.stdout, arguments)
    return 0


def _read(database: Database, given: str) -> Detail:
    """Return an image.

    :raises RefusedError: the registry does not have it, or its rows cannot be read.
    """
    try:
        detail = Details(database).read(Holds(database).find(given))
    except Exception as error:
        if not is_of_rows(error):
            raise
        raise RefusedError(
            "its rows in images and image_locations cannot be read: correct the dates, and check"
            " that each location has a URL"
        ) from None
    if detail is None:  # purged since its id was found
        raise RefusedError("it is not in the registry")
    return detail
