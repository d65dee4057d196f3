# SPDX-License-Identifier: Apache-2.0
"""Have failed images looked at now: ``evscrub retry``."""

import argparse
import difflib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evscrub.commands import asking
from evscrub.domain.address import Address
from evscrub.domain.quoting import printable, shorten
from evscrub.domain.words import count
from evscrub.flow_control.circuit_breaker import State
from evscrub.status import client
from evscrub.status.client import NoAnswerError
from evscrub.status.report import in_plain_words
from evscrub.telemetry import output

#: Number of images in a request; an agent accepts 1000.
_AT_ONCE = 1000
_LONGEST_ID = 36

Answer = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Have failed images looked at now, those that are parked, in use or wait for another try,"
        " by each agent that knows them: after a repair, instead of waiting for in_use_delay or"
        " parked_delay. Claims, holds, rates and due times are checked as usual, and nothing is"
        " deleted that is not due. The number of tries stays: an image that fails again waits as"
        " after one more failure. --store and --all also let a store that does not work be probed"
        " at once. A store that is paused stays paused until you send the agent SIGHUP."
    )
    parser.epilog = (
        "An agent accepts this only from its own host, or from a network in its [status]"
        " retry_from. Exit codes: 0 success, 1 an image is not retried, a store is paused, or one"
        " of several agents does not answer or refuses, 2 no agent answers or all refuse, no agent"
        " has such a store, or wrong usage, 78 the configuration is wrong."
    )
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="*",
        help="the image's id, in upper or lower case",
    )
    parser.add_argument(
        "--store",
        dest="stores",
        action="append",
        metavar="STORE",
        help="all failed images of this store; may be repeated",
    )
    parser.add_argument("--all", action="store_true", help="all failed images")
    asking.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    requests = list(_requests(arguments))
    answers = asking.ask(
        asking.agents(arguments),
        lambda address: [_read(address, client.retry(address, wanted)) for wanted in requests],
    )
    answered = {
        address: answer
        for address, answer in answers.items()
        if not isinstance(answer, NoAnswerError)
    }
    with output.reader_may_leave():
        for address, answer in answers.items():
            if isinstance(answer, NoAnswerError):
                output.say(str(answer))
            else:
                _show(address, answer)
    if not answered:
        return 2
    whole = len(answered) == len(answers)
    missing = list(_name_unknown_stores(list(_each(answered)), arguments.stores or ()))
    left = [
        line
        for wanted, *to_it in zip(requests, *answered.values(), strict=True)
        for line in _name_others(wanted, to_it, whole=whole)
    ]
    with output.reader_may_leave():
        for line in (*missing, *left):
            print(printable(line), file=sys.stderr)
    if missing:
        return 2
    return 1 if left or not whole or any(map(_is_paused, _each(answered))) else 0


def _requests(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield the requests to send; exit with code 2 if the arguments do not fit together."""
    refuse = arguments.subparser.error
    images, stores = arguments.images, arguments.stores
    if sum(map(bool, (images, stores, arguments.all))) > 1:
        refuse("give either images, --store or --all")
    if stores is not None and not all(map(str.strip, stores)):
        refuse("argument --store: the name is empty")
    if not all(map(str.strip, images)):
        refuse("argument IMAGE: an id is empty")
    for image_id in images:
        if len(image_id) > _LONGEST_ID:
            refuse(f"argument IMAGE: {shorten(image_id)!r} is longer than an id")
    if arguments.all:
        yield {"all": True}
    elif stores:
        yield {"stores": sorted(set(stores))}
    elif images:
        ids = list({image_id.lower(): image_id for image_id in images}.values())
        for start in range(0, len(ids), _AT_ONCE):
            yield {"images": ids[start : start + _AT_ONCE]}
    else:
        refuse("say what to retry: images, --store STORE or --all")


def _read(address: Address, answer: Answer) -> Answer:
    """Return an agent's answer if it is one.

    :raises NoAnswerError: it is not.
    """
    kinds: dict[str, type] = {
        "due": int,
        "waiting": int,
        "in_work": int,
        "not_retried": dict,
        "unknown": list,
        "stores": list,
        "unknown_stores": list,
        "known_stores": list,
    }
    if not all(type(answer.get(name)) is kind for name, kind in kinds.items()) or not all(
        isinstance(store, dict) for store in answer["stores"]
    ):
        raise NoAnswerError(f"the server on {address} is not an evscrub agent of this release")
    return answer


def _each(answered: Mapping[Address, Sequence[Answer]]) -> Iterator[Answer]:
    for answers in answered.values():
        yield from answers


def _is_paused(answer: Answer) -> bool:
    return any(store.get("breaker") == State.FORCED_OPEN.value for store in answer["stores"])


def _show(address: Address, answers: Sequence[Answer]) -> None:
    """Print what an agent does now."""
    total: Counter[str] = Counter()
    for answer in answers:
        total.update({name: answer[name] for name in ("due", "waiting", "in_work")})
    said = f"{address}: {count(total['due'] - total['waiting'], 'failed image')} looked at now"
    if total["in_work"]:
        said += f", {total['in_work']} in work already"
    if total["waiting"]:
        said += f", {total['waiting']} due and held up by their store"
    print(said)
    stores = {str(store.get("name")): store for answer in answers for store in answer["stores"]}
    for name, store in stores.items():
        print(printable(f"{address}: {_in_words(name, store)}"), file=sys.stderr)


def _in_words(name: str, store: Mapping[str, Any]) -> str:
    """Say what holds up the images of a store."""
    if store.get("fault"):
        return f"store {name} cannot be used: {store['fault']}; loading it is tried every minute"
    reason = in_plain_words(str(store.get("reason", "")))
    match store.get("breaker"):
        case State.FORCED_OPEN.value:
            return (
                f"store {name} is paused: {reason}; its images wait until you have repaired it and"
                " sent the agent SIGHUP, because a retry does not resume it"
            )
        case State.HALF_OPEN.value:
            return (
                f"store {name} does not work: {reason}; one image probes it, the others follow when"
                " it works"
            )
    return (
        f"store {name} does not work: {reason}; its images wait for the next probe, and 'evscrub"
        f" retry --store {name}' probes it at once"
    )


def _name_unknown_stores(answers: Sequence[Answer], stores: Sequence[str]) -> Iterator[str]:
    """Yield a line for each store that no agent has."""
    known = sorted({str(store) for answer in answers for store in answer["known_stores"]})
    for name in sorted(set(stores)):
        if all(name in answer["unknown_stores"] for answer in answers):
            alike = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {alike[0]}?" if alike else f"there are {', '.join(known)}"
            yield f"evscrub: no agent that was asked has a store {shorten(name)!r}: {hint}"


def _name_others(
    wanted: Mapping[str, Any], answers: Sequence[Answer], *, whole: bool
) -> Iterator[str]:
    """Yield a line for each image of a request that no agent looks at now.

    :param answers: each agent's answer to the request.
    :param whole: whether all agents that were asked answered.
    """
    unknown = [{name for name in answer["unknown"] if isinstance(name, str)} for answer in answers]
    for image_id in wanted.get("images", ()):
        reasons = [
            "" if image_id in names else answer["not_retried"].get(image_id)
            for names, answer in zip(unknown, answers, strict=True)
        ]
        if None in reasons:
            continue  # this agent looks at it
        reason = next(filter(None, reasons), None)
        others = "" if whole else ", but not all agents answered"
        yield f"{image_id}: not retried: " + (
            str(reason) if reason else f"no agent that was asked knows of a failure of it{others}"
        )
