# SPDX-License-Identifier: Apache-2.0
"""Errors that end a command with a message to its user and an exit code. Pure.

The codes tell a service manager what to do: a wrong configuration or command line stays wrong until
somebody edits it, while a database that is away may be back at the next start. They are those of
``sysexits.h``; 2 is argparse's own for wrong usage.
"""

import os


class CannotRunError(Exception):
    """A command cannot be run to its end.

    :param problems: sentences that say what is wrong, where, and what to do, without credentials.
    :cvar exit_code: exit code of the process.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(self.problems)


class UsageError(CannotRunError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class UnavailableError(CannotRunError):
    """A service that evscrub needs, the database, does not answer or cannot be used yet.

    That includes a login that it refuses: a proxy refuses every login while it has not reached the
    servers behind it.
    """

    exit_code = os.EX_UNAVAILABLE  # 69
