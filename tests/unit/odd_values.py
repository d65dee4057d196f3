# SPDX-License-Identifier: Apache-2.0
"""Values that no option should let through, made from the option's type."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from oslo_config import cfg, types

from evscrub.config.option_types import (
    BackendUrl,
    EncryptionKey,
    GroupName,
    ListenAddress,
    Name,
    Networks,
    Paths,
)

TOO_LONG = "9" * 5000
_ENDLESS = ["nan", "NaN", "inf", "-inf", "Infinity", "1e20", "-1e20", "1e400"]
_HUGE = [f"1{'0' * 20}", f"-1{'0' * 20}", str(2**63), TOO_LONG]
_GARBAGE = ["garbage", "1,2", "0x10", "5 s", "--5", "\u00bd"]


def refused(opt: cfg.Opt) -> Iterator[str]:
    """Give texts that an option must refuse.

    :raises NotImplementedError: nothing is known of such a type; say here what is wrong for it.
    """
    yield TOO_LONG
    if not accepts_empty(opt):
        yield ""
    yield from _wrong_for(opt.type)


def accepts_empty(opt: cfg.Opt) -> bool:
    """Return whether an empty text says the same as the option's default."""
    if isinstance(opt.type, BackendUrl):  # a limit for all agents must not get lost by a blank
        return False
    return opt.default is None or opt.default in ([], {})


def _wrong_for(kind: object) -> Iterator[str]:
    for handled, wrong in _WRONG.items():
        if isinstance(kind, handled):
            yield from wrong(kind)
            return
    raise NotImplementedError(f"{kind!r} has no odd values here: add them")


def _wrong_numbers(kind: Any) -> Iterator[str]:
    yield from (" ", *_ENDLESS, *_HUGE, *_GARBAGE)
    yield str(kind.min - 1)
    yield str(kind.max + 1)
    if kind.min > -1:
        yield "-1"


def _wrong_dicts(kind: Any) -> Iterator[str]:
    yield from ("garbage", ":5", "a", "a:", "a: ", "a:1,a:1", "a:1,b")
    for value in _wrong_for(kind.value_type):
        if "," not in value:
            yield f"a:{value}"


def _wrong_lists(kind: Any) -> Iterator[str]:
    if isinstance(kind.item_type, Name):
        yield from (",", "a,,b", "x" * 241, "a\tb")


#: By type, the more special ones first.
_WRONG: dict[type, Callable[[Any], Iterable[str]]] = {
    types.Number: _wrong_numbers,
    BackendUrl: lambda _: ("garbage", "://x", "redis:", "1://x", "redis://a b", "redis:/x"),
    GroupName: lambda _: (" ", "a b", "a,b", "a/b", "a\tb", "\u00e4", "x" * 65),
    types.Boolean: lambda _: ("maybe", "2", "-1", "nan"),
    types.Dict: _wrong_dicts,
    EncryptionKey: lambda _: ("short", "x" * 17, "x" * 33, "\u00e4" * 16 + "x"),
    ListenAddress: lambda _: (
        *("garbage", ":", "host:", ":80", "host:nan", "host:-1", "host:1e20", "host:65536"),
        *("host:100000000000000000000", f"{'h' * 64}:80", "a b:80"),
    ),
    Networks: lambda _: ("garbage", ",", "10.0.0.1/24", "10.0.0.0/33", "10.0.0.0/24,x", "::/129"),
    Paths: lambda _: (",", "a,,b", " , "),
    Name: lambda _: ("a,b", "a\tb", "x" * 241, "\u00e4" * 121),
    types.List: _wrong_lists,
}
