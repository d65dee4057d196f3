# SPDX-License-Identifier: Apache-2.0
"""Option types without undefined values.

oslo.config's own number types read an empty text as None and let NaN pass any bound. These types
return a value within their bounds or raise a ``ValueError`` whose text says what is allowed.
"""

import math
import re
from ipaddress import ip_network

from oslo_config import types

from evscrub.domain.address import parse as parse_address
from evscrub.domain.location_crypt import KEY_BYTES

#: The word that sets an option with a default to no value.
NONE = "none"

_EMPTY = "must not be empty"
_QUOTED_CHARACTERS = 40
_GROUP_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_BACKEND_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+").fullmatch
#: AMQP limits names to 255 bytes, and a queue's name is its topic with a suffix such as ``.info``.
MAX_NAME_BYTES = 240


class Integer(types.Integer):
    """A whole number between two bounds.

    :param minimum: lowest valid value.
    :param maximum: highest valid value.
    """

    def __init__(self, minimum: int, maximum: int) -> None:
        super().__init__(min=minimum, max=maximum)

    def __call__(self, value: object) -> int:
        """Convert a text or a default to the number.

        :raises ValueError: it is not a whole number, or out of bounds.
        """
        text = str(value).strip()
        wanted = f"must be a whole number from {self.min} to {self.max}"
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"{wanted}, not {_quoted(text)}") from None
        if not self.min <= number <= self.max:  # type: ignore[operator] # both bounds are set
            raise ValueError(f"{wanted}, not {_quoted(text)}")
        return number


class Float(types.Float):
    """A finite number between two bounds.

    :param minimum: lowest valid value.
    :param maximum: highest valid value.
    """

    def __init__(self, minimum: float, maximum: float) -> None:
        super().__init__(min=minimum, max=maximum)
        self._wanted = f"must be a number from {minimum:g} to {maximum:.10g}"

    def __call__(self, value: object) -> float:
        """Convert a text or a default to the number.

        :raises ValueError: it is not a number, not finite, or out of bounds.
        """
        text = str(value).strip()
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not self._allows(number):  # NaN fails every comparison
            raise ValueError(f"{self._wanted}, not {_quoted(text)}")
        return number

    def _allows(self, number: float) -> bool:
        return bool(self.min <= number <= self.max)  # type: ignore[operator] # both bounds are set


class Rate(Float):
    """A number of events a second, from :attr:`LOWEST` to :attr:`HIGHEST`; 0 is no limit.

    A rate below :attr:`LOWEST` is more likely a mistake than a limit, and the time between two
    events could overflow.
    """

    LOWEST = 0.001
    HIGHEST = 1_000_000.0

    def __init__(self) -> None:
        super().__init__(0, self.HIGHEST)
        self._wanted = (
            f"must be 0 for no limit, or a number from {self.LOWEST:g} to {self.HIGHEST:.10g}"
        )

    def _allows(self, number: float) -> bool:
        return number == 0 or self.LOWEST <= number <= self.HIGHEST


class Name(types.String):
    """A name of 1 to 240 bytes in UTF-8, without commas and unprintable characters."""

    def __call__(self, value: object) -> str:
        """Return the name.

        :raises ValueError: it is empty, too long, or has invalid characters.
        """
        text = str(value).strip()
        if not text:
            raise ValueError(_EMPTY)
        if len(text.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"a name must not be longer than {MAX_NAME_BYTES} bytes")
        if "," in text or not text.isprintable():
            raise ValueError(f"{_quoted(text)} is not a name")
        return text


class OptionalName(Name):
    """A :class:`Name`, or an empty text for an option that is not set."""

    def __call__(self, value: object) -> str | None:  # type: ignore[override] # None for an empty text
        """Return the name, or None for an empty text.

        :raises ValueError: as :class:`Name` does.
        """
        return super().__call__(value) if str(value).strip() else None


class GroupName(types.String):
    """A name of 1 to 64 letters, digits, dots, hyphens and underscores, as in an OpenStack region.

    memcached limits the length of its keys and forbids spaces in them.
    """

    def __call__(self, value: object) -> str:
        """Return the name.

        :raises ValueError: it is empty, too long, or has other characters.
        """
        text = str(value).strip()
        if _GROUP_NAME(text) is None:
            raise ValueError(
                "must be 1 to 64 letters, digits, dots, hyphens or underscores, not"
                f" {_quoted(text)}"
            )
        return text


class BackendUrl(types.String):
    """A URL of tooz, never quoted in an error because it may hold a password."""

    def __call__(self, value: object) -> str:
        """Return the URL without surrounding spaces.

        :raises ValueError: it is empty, or does not begin with a driver and ``://``.
        """
        text = str(value).strip()
        if not text:
            raise ValueError(f"{_EMPTY}; without the option each agent has the limits for itself")
        if _BACKEND_URL(text) is None:
            raise ValueError("must be a URL of tooz as etcd3+http://HOST:PORT, without spaces")
        return text


class Names(types.List):
    """At least one :class:`Name`, separated by commas."""

    def __init__(self) -> None:
        super().__init__(item_type=Name())

    def __call__(self, value: object) -> list[str]:
        """Return the names.

        :raises ValueError: the list is empty, or an entry is not a valid name.
        """
        names: list[str] = super().__call__(value)
        if not names:
            raise ValueError(_EMPTY)
        return names


class Paths(types.List):
    """At least one path, separated by commas, or the word ``none``."""

    #: Meaning of the word, for messages.
    none_means = "no file"

    def __call__(self, value: object) -> list[str]:
        """Return the paths; an empty list for the word ``none``.

        :raises ValueError: the text is empty or contains an empty path.
        """
        if isinstance(value, str) and value.strip().lower() == NONE:
            return []
        paths: list[str] = super().__call__(value)
        if not paths or not all(paths):
            raise ValueError(_EMPTY)
        return paths


class ListenAddress(types.String):
    """``HOST:PORT``, with brackets around an IPv6 address, or the word ``none``."""

    #: Meaning of the word, for messages.
    none_means = "no status page"

    def __call__(self, value: object) -> str:
        """Return the text without surrounding spaces.

        :raises ValueError: :func:`evscrub.domain.address.parse` rejects it.
        """
        text = str(value).strip()
        parse_address(text)
        return text


class StorePlace(types.String):
    """A store and a place in it, as ``store:place``.

    Relative directories are refused: they would depend on the working directory of the process. A
    directory without a slash cannot be told from a bucket here, and counts for no file store.
    """

    def __init__(self) -> None:
        super().__init__(quotes=True)

    def __call__(self, value: object) -> str:
        """Return the text without spaces around the store and the place.

        :raises ValueError: a part is missing, or the place is a relative directory.
        """
        text: str = super().__call__(value)
        store, _, place = (part.strip() for part in text.partition(":"))
        if not store or not place or "," in store:
            raise ValueError(f"must be store:place as files:/srv/images, not {_quoted(text)}")
        # oslo.config tries a wrong entry again together with the next one, after a comma.
        first = place.partition(",")[0]
        # Only a Swift account, before its container, and VMware's datastores have other slashes.
        has_account = any(mark in first for mark in "@:*")
        if first in {".", ".."} or ("/" in first and first[0] != "/" and not has_account):
            raise ValueError(f"the directory of a place must begin with /, not {_quoted(text)}")
        return f"{store}:{place}"


class Networks(types.List):
    """IP networks, separated by commas, or the word ``none``."""

    #: Meaning of the word, for messages.
    none_means = "no other host"

    def __call__(self, value: object) -> list[str]:
        """Return the networks as texts; an empty list for the word ``none`` and an empty text.

        :raises ValueError: an entry is not an address, or a network without host bits.
        """
        if isinstance(value, str) and value.strip().lower() == NONE:
            return []
        networks: list[str] = super().__call__(value)
        if not networks and isinstance(value, str) and value.strip():
            raise ValueError(f"{_quoted(value)} names no network")
        for network in networks:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError(f"{_quoted(network)} is not a network as 10.0.0.0/24") from None
        return networks


class EncryptionKey(types.String):
    """An AES key, never quoted in an error; an empty text is no key, as in Glance."""

    def __call__(self, value: object) -> str | None:  # type: ignore[override] # None for an empty text
        """Return the key, or None for an empty text.

        :raises ValueError: it is not 16, 24 or 32 bytes long in UTF-8.
        """
        text = str(value)
        if not text:
            return None
        if len(text.encode()) not in KEY_BYTES:
            raise ValueError(f"must be 16, 24 or 32 bytes long, and is {len(text.encode())}")
        return text


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}...")
