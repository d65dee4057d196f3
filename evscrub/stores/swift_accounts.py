# SPDX-License-Identifier: Apache-2.0
"""Let each thread read the accounts of a swift store from the file of that store.

The driver reads ``swift_store_config_file`` again at each delete, with one parser for all stores
and threads. A thread would find the account of another store that has the same reference, whose
file another thread has just read, and delete the object of the same name there.
"""

import sys
import threading
from collections.abc import Callable
from configparser import ConfigParser, Error
from typing import Any


class _Parsers(threading.local):
    """Takes the place of the driver's parser: each thread has one of the file that it read last.

    :param make: makes a parser of the driver's class.
    """

    def __init__(self, make: Callable[[], ConfigParser]) -> None:
        self._make = make
        self._parser = make()

    def read(self, path: str) -> None:
        """Forget what was read before, and read a file.

        :raises OSError: it cannot be read, is malformed, or is empty as while it is written; the
            driver logs the message, and the delete is repeated.
        """
        self._parser = self._make()
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the driver gives a string
                self._parser.read_file(file)
        except (Error, UnicodeError) as error:  # whose message has lines of the file, with keys
            raise OSError(f"{path} is malformed ({type(error).__name__})") from None
        if not self._parser.sections():
            raise OSError(f"{path} has no account")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the driver asks for
        return getattr(self._parser, name)


def separate() -> None:
    """Give each thread a parser of its own, if the driver is imported and has one for all."""
    utils: Any = sys.modules.get("glance_store._drivers.swift.utils")
    if utils is not None and not isinstance(utils.CONFIG, _Parsers):
        utils.CONFIG = _Parsers(utils.SwiftConfigParser)
