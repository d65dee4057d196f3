# SPDX-License-Identifier: Apache-2.0
"""Parse the command line of a program with subcommands, and say clearly what is wrong with it."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from evscrub.commands.arguments import whole_number
from evscrub.telemetry.redact import redact

_COMMAND = "command"
_ALL_NUMBERS = whole_number(-(2**31), 2**31 - 1)


class Parser(argparse.ArgumentParser):
    """A parser whose errors say what is wanted and suggest the nearest option or choice.

    :param namespace: receives what is parsed. The program's parser and those of its commands share
        one, so that options before and after the command add up. A parser parses one command line.
    """

    def __init__(self, namespace: argparse.Namespace, **settings: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(**settings)
        self._namespace = namespace
        self._arguments: Sequence[str] = ()
        #: Ends the message about unknown options.
        self._hint = ""
        # Some formatters of cliff have options of this type; argparse would not say what is wanted.
        self.register("type", int, _ALL_NUMBERS)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:  # noqa: ANN401, ARG002 - overloads
        """Parse arguments into the shared namespace; return it and the unknown arguments."""
        self._arguments = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._arguments, self._namespace)

    def error(self, message: str) -> NoReturn:
        """Print the usage and an error without credentials, and exit with code 2."""
        super().error(redact(message))

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Report unknown arguments as wrong usage, and exit with code 2."""
        options = [name.partition("=")[0] for name in unknown if name.startswith("-")]
        if not options:
            self.error(f"unexpected argument: {' '.join(unknown)}")
        # What follows an unknown option may be its value, so only options are reported.
        known = self._option_string_actions
        told = "; ".join(f"no option {name}{_suggestion(name, known)}" for name in options)
        self.error(told + self._hint)

    def takes(self) -> set[str]:
        """Return the names under which this parser's values are kept in the namespace."""
        return {action.dest for action in self._actions}

    def given(self) -> dict[str, str]:
        """Return the options that are set, by the name of their value in the namespace."""
        found: dict[str, list[str]] = {}
        for action in self._actions:
            if action.option_strings and getattr(self._namespace, action.dest, None):
                found.setdefault(action.dest, []).append(action.option_strings[-1])
        return {name: " or ".join(options) for name, options in found.items()}

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError:
            if action.nargs is not None:
                raise
            value = action.metavar or action.dest.upper()
            raise argparse.ArgumentError(action, f"needs a value, {value}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - argparse's
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        wanted = f"choose from {', '.join(choices)}"
        if action.dest == _COMMAND:
            # An unknown option before it made its value look like the command.
            before = self._arguments[: self._arguments.index(value)]
            known = self._option_string_actions
            unknown = [a for a in before if a.startswith("-") and a.partition("=")[0] not in known]
            if unknown:
                self.refuse(unknown)
            self.error(f"no command {value!r}{_suggestion(value, choices)}; {wanted}")
        raise argparse.ArgumentError(action, f"no {value!r}{_suggestion(value, choices)}; {wanted}")


class CommandParser(Parser):
    """The parser of a subcommand, whose arguments are added when it is used.

    The modules of other commands are not imported, because they may need packages that are not
    installed.

    :param module: name of the module with the command's ``add_arguments`` and ``main``.
    """

    def __init__(self, module: str, **settings: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(**settings)
        self._module = module
        self._complete = False

    def knows(self, argument: str) -> bool:
        """Return whether an argument is one of the command's options."""
        return argument.partition("=")[0] in self._option_string_actions

    def complete(self) -> None:
        """Add the command's arguments."""
        if not self._complete:
            self._complete = True
            importlib.import_module(self._module).add_arguments(self)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:  # noqa: ANN401 - overloads
        """Parse arguments into the shared namespace; return it and the unknown arguments."""
        self.complete()
        return super().parse_known_args(args, namespace)


class ProgramParser(Parser):
    """The parser of the program.

    :param commands: the summary of each command, and its module.
    :param add_arguments: adds the options that may stand before the command.
    """

    def __init__(
        self,
        commands: Mapping[str, tuple[str, str]],
        add_arguments: Iterable[Callable[[argparse.ArgumentParser], None]],
        **settings: Any,  # noqa: ANN401 - argparse's
    ) -> None:
        namespace = argparse.Namespace()
        super().__init__(namespace, allow_abbrev=False, **settings)
        self._hint = "; the options of a command stand after it"
        for add in add_arguments:
            add(self)
        # Not required: without one the error below says what to choose from.
        adder = self.add_subparsers(dest=_COMMAND, metavar="COMMAND", parser_class=CommandParser)
        self._commands: dict[str, CommandParser] = {}
        for name, (summary, module) in commands.items():
            command = adder.add_parser(
                name,
                help=summary,
                description=f"{summary[0].upper()}{summary[1:]}.",
                namespace=namespace,
                module=module,
            )
            command.set_defaults(subparser=command)
            self._commands[name] = command
        self.set_defaults(whole_parser=self.whole)

    def whole(self) -> argparse.ArgumentParser:
        """Return this parser with the arguments of all commands, for completion."""
        for command in self._commands.values():
            command.complete()
        return self

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; if it is wrong, print the usage and an error, and exit with code 2.

        :returns: the arguments, with the command's parser as ``subparser``.
        """
        parsed, unknown = self.parse_known_args(arguments)
        command: CommandParser | None = self._commands.get(parsed.command)
        if unknown and command is not None:
            misplaced = [one for one in unknown if command.knows(one)]
            if misplaced:
                command.error(f"{', '.join(misplaced)} must stand after the command")
        if unknown:
            (command or self).refuse(unknown)
        if command is None:
            self.error(f"name a command; choose from {', '.join(self._commands)}")
        untaken = [said for name, said in self.given().items() if name not in command.takes()]
        if untaken:
            command.error(f"this command takes no {', no '.join(untaken)}")
        return self._namespace


def _suggestion(written: str, known: Iterable[str]) -> str:
    alike = difflib.get_close_matches(written, known, n=1)
    return f" (did you mean {alike[0]}?)" if alike else ""
