# SPDX-License-Identifier: Apache-2.0
"""Keep images: ``evscrub restore``, ``evscrub hold`` and ``evscrub release``."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from oslo_log import log

from evscrub.commands import operator_log, selection
from evscrub.config import loader
from evscrub.config.arguments import add_config_arguments
from evscrub.domain.hold_rules import RefusedError, UnchangedError
from evscrub.domain.quoting import quote, shorten
from evscrub.domain.refusals import UnavailableError
from evscrub.domain.words import count
from evscrub.registry.connecting import ANSWER_SECONDS
from evscrub.registry.database import UNAVAILABLE, Database
from evscrub.registry.errors import explain
from evscrub.registry.faults import is_of_rows
from evscrub.registry.holds import Holds
from evscrub.stores.names import store_names
from evscrub.telemetry import output

LOG = log.getLogger(__name__)

_ANSWER_SECONDS = 20
_UNCHANGED, _REFUSED = "unchanged", "refused"


@dataclass(frozen=True, slots=True)
class _Command:
    """What a command does.

    :param done: past participle of its name.
    :param selected: which images --owner and --store select.
    :param held: whether those are held; None for both.
    """

    done: str
    selected: str
    held: bool | None


_COMMANDS = {
    "restore": _Command("restored", "pending", held=None),
    "hold": _Command("held", "pending", held=False),
    "release": _Command("released", "held", held=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    name = parser.prog.split()[-1]
    parser.usage = (
        "%(prog)s [options] IMAGE [IMAGE ...]\n"
        "       %(prog)s [options] [--yes] [--owner OWNER] [--store STORE]\n"
        "       %(prog)s [options] [--yes] --file FILE"
    )
    parser.epilog = (
        "May be used while agents run, and repeated: an image that needs no change is no error."
        " Before it acts on what --owner, --store or --file select, the command shows the number of"
        " images and asks; each image is looked at again before it is changed. Each change is a"
        " line in evscrub's log, or in syslog if evscrub's files name no log: the user, the host"
        " and the image. Exit codes: 0 success for all images, 1 an image was refused, with the"
        " reason, or the question was answered with no, 2 wrong usage, no terminal to ask on, or"
        " a store that is not enabled and has no image to scrub,"
        " 69 the database does not answer, 78 the configuration is wrong."
    )
    add_config_arguments(parser)
    selection.add_arguments(parser, _COMMANDS[name].selected)


def main(arguments: argparse.Namespace) -> int:
    selection.refuse_wrong(arguments)
    conf, own = loader.load_for(arguments)
    command = _COMMANDS[arguments.command]
    bulk = selection.is_bulk(arguments)
    try:
        # Named images are read by their keys; to select images, the whole registry is.
        seconds = ANSWER_SECONDS if bulk else _ANSWER_SECONDS
        database = Database(conf, answer_seconds=seconds)
        database.probe()
    except ValueError as error:
        raise loader.ConfigError(str(error)) from None
    names = store_names(conf)
    if arguments.store is not None and arguments.store not in names.names:
        output.say(
            f"no store {arguments.store} is enabled here; enabled stores: {', '.join(names.names)}"
        )
    keeper = _Keeper(arguments.command, Holds(database))
    try:
        with selection.selected(arguments, database, names, held=command.held) as images:
            if bulk and (code := _ask(arguments, images)) is not None:
                selects_none = code == 0 and arguments.store is not None
                if selects_none and not selection.is_store(arguments.store, database, names):
                    return selection.NO_SUCH_STORE
                return code
            operator_log.start(own, debug=arguments.debug)
            keeper.run(images)
    except UNAVAILABLE as error:
        raise UnavailableError(f"the registry cannot be used: {explain(error)}") from None
    finally:
        if bulk and keeper.tally:
            keeper.sum_up()
    return 1 if keeper.tally[_REFUSED] else 0


def _ask(arguments: argparse.Namespace, images: selection.Selection) -> int | None:
    """Show the number of images, and ask unless ``--yes`` is given.

    :returns: the exit code if there is no image or the answer is no; None to go on.
    """
    number = images.count()
    said = f"{count(number, 'image')} to {arguments.command}: {images.words}"
    if number and not arguments.yes:
        if selection.confirmed(f"{said}. Go on?"):
            return None
        output.say("nothing was changed")
        return 1
    output.say(said)
    return None if number else 0


@dataclass(slots=True)
class _Keeper:
    """Applies a command to images, and reports each.

    :param tally: number of images by what became of them.
    """

    name: str
    holds: Holds
    tally: Counter[str] = field(default_factory=Counter)

    def run(self, images: selection.Selection) -> None:
        """Apply the command to each image, in a transaction each.

        :raises UNAVAILABLE: the database is down.
        """
        user, host = operator_log.who()
        for given in images.read(self._unreadable):
            for image_id in self._change(given):
                LOG.info("Image %s %s by %s on %s", image_id, self._done, user, host)

    def sum_up(self) -> None:
        """Print the number of images by what became of them."""
        numbers = [f"{self.tally[word]} {word}" for word in (self._done, _UNCHANGED, _REFUSED)]
        output.say(", ".join(numbers))

    @property
    def _done(self) -> str:
        return _COMMANDS[self.name].done

    def _change(self, given: str) -> list[str]:
        """Apply the command to an image, and print what became of it.

        :returns: the image's id in the registry if it was changed.
        """
        action: Callable[[str], list[str] | None] = getattr(self.holds, self.name)
        image_id = given
        try:
            image_id = self.holds.find(given)
            notes = action(image_id)
        except UnchangedError as error:
            self.tally[_UNCHANGED] += 1
            with output.reader_may_leave():
                print(f"{image_id}: {error}")
        except RefusedError as error:
            self._refuse(image_id, str(error))
        except Exception as error:
            if not is_of_rows(error):
                raise
            self._unreadable(image_id)
        else:
            self.tally[self._done] += 1
            with output.reader_may_leave():
                print(f"{image_id}: {self._done}")
                for note in notes or ():
                    print(f"{image_id}: but {note}", file=sys.stderr)
            return [image_id]
        return []

    def _unreadable(self, image_id: str) -> None:
        self._refuse(
            image_id,
            "its rows in images and image_locations cannot be read: correct the dates, and check"
            " that each location has a URL",
        )

    def _refuse(self, image_id: str, reason: str) -> None:
        self.tally[_REFUSED] += 1
        with output.reader_may_leave():
            print(f"{_shown(image_id)}: not {self._done}: {reason}", file=sys.stderr)


def _shown(given: str) -> str:
    """Return an id as it may be printed; what a file or a person gave may be anything."""
    return given if given.isprintable() and shorten(given) == given else quote(given)
