# SPDX-License-Identifier: Apache-2.0
"""Sphinx directives that document what the code defines: commands and metrics.

``.. evscrub-command:: NAME``
    a command's synopsis, description, options and exit codes, from its parser.
``.. evscrub-exit-codes::``
    the exit codes that all commands have in common.
``.. evscrub-metrics::``
    all metrics with their types, labels and help, from the collector of an idle agent.
"""

import argparse
import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

from docutils import nodes
from prometheus_client import Metric
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from evscrub.cli import make_parser
from evscrub.status import metrics, snapshot
from tests.unit.agent_parts import FakeClock, make_sources


class CommandDirective(SphinxDirective):
    """Describes a command; without an argument, the options that stand before any command."""

    required_arguments = 0
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the description.

        :raises docutils.parsers.rst.DirectiveError: there is no such command.
        """
        program = _program()
        if not self.arguments:
            return [_arguments(program, _shown(program))]
        command = _commands(program).get(self.arguments[0])
        if command is None:
            raise self.error(f"evscrub has no command {self.arguments[0]!r}")
        return [
            nodes.literal_block("", _synopsis(command), language="none"),
            nodes.paragraph("", command.description or ""),
            *_options(command, besides=program),
            *([nodes.paragraph("", command.epilog)] if command.epilog else []),
        ]


class ExitCodesDirective(SphinxDirective):
    """Lists the exit codes that the program's ``--help`` has."""

    def run(self) -> list[nodes.Node]:
        """Return the list."""
        section = re.search(r"^exit codes:\n((?:  .*\n)+)", _program().epilog or "", re.MULTILINE)
        if section is None:
            raise self.error("evscrub --help has no exit codes")
        codes = re.findall(r"^  (\d+) +((?:.|\n   )*)$", section[1], re.MULTILINE)
        return [_definitions(([nodes.Text(code)], " ".join(text.split())) for code, text in codes)]


class MetricsDirective(SphinxDirective):
    """Describes all metrics, in the order in which they are served."""

    def run(self) -> list[nodes.Node]:
        """Return the description."""
        return [_definitions((_metric_term(one), one.documentation) for one in _metrics())]


@cache
def _program() -> argparse.ArgumentParser:
    return make_parser().whole()


def _commands(program: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in program._actions:  # noqa: SLF001 - argparse has no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            return dict(action.choices)
    return {}


def _synopsis(command: argparse.ArgumentParser) -> str:
    if command.usage:
        return command.usage.replace("%(prog)s", command.prog).replace("\n       ", "\n")
    words = [command.prog, "[options]"]
    for action in command._actions:  # noqa: SLF001 - argparse has no other way
        if not action.option_strings:
            name = str(action.metavar or action.dest)
            words.append(f"[{name} ...]" if action.nargs == "*" else name)
    return " ".join(words)


def _options(
    command: argparse.ArgumentParser, besides: argparse.ArgumentParser
) -> list[nodes.Node]:
    """Return the list of a command's own arguments, without those of the program."""
    common = {name for one in _shown(besides) for name in one.option_strings}
    own = [one for one in _shown(command) if common.isdisjoint(one.option_strings)]
    return [_arguments(command, own)] if own else []


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return a parser's arguments as ``--help`` orders them, without ``--help``."""
    hidden = (argparse._SubParsersAction, argparse._HelpAction)  # noqa: SLF001 - as above
    return [
        action
        for group in parser._action_groups  # noqa: SLF001 - argparse has no other way
        for action in group._group_actions  # noqa: SLF001 - as above
        if action.help != argparse.SUPPRESS and not isinstance(action, hidden)
    ]


def _arguments(
    parser: argparse.ArgumentParser, actions: Iterable[argparse.Action]
) -> nodes.definition_list:
    return _definitions((_terms(one), _help(parser, one)) for one in actions)


def _terms(action: argparse.Action) -> list[nodes.Node]:
    """Return an argument as it is written, such as ``--limit N``."""
    if not action.option_strings:
        return [nodes.literal("", str(action.metavar or action.dest))]
    value = ""
    if action.nargs != 0:
        choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else None
        value = f" {action.metavar or choices or action.dest.upper()}"
        if action.nargs == "+":
            value += " ..."
    written = [nodes.literal("", f"{name}{value}") for name in action.option_strings]
    return _separated(written)


def _separated(parts: Iterable[nodes.Node]) -> list[nodes.Node]:
    joined: list[nodes.Node] = []
    for part in parts:
        joined += [nodes.Text(", "), part] if joined else [part]
    return joined


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return (action.help or "") % (vars(action) | {"prog": parser.prog})


def _definitions(items: Iterable[tuple[list[nodes.Node], str]]) -> nodes.definition_list:
    return nodes.definition_list(
        "",
        *(
            nodes.definition_list_item(
                "", nodes.term("", "", *term), nodes.definition("", nodes.paragraph("", text))
            )
            for term, text in items
        ),
    )


def _metrics() -> Iterator[Metric]:
    sources = make_sources(FakeClock())
    yield from metrics.registry(
        sources.statistics, lambda: snapshot.take(sources), lambda: None
    ).collect()


#: What the exposition format adds to a metric's name.
_SUFFIXES = {"counter": "_total", "info": "_info"}


def _metric_term(metric: Metric) -> list[nodes.Node]:
    names = [*getattr(metric, "_labelnames", ())]
    if metric.type == "info":
        names += metric.samples[0].labels
    return [
        nodes.literal("", metric.name + _SUFFIXES.get(metric.type, "")),
        nodes.Text(f" ({metric.type}{', by ' if names else ''}"),
        *_separated(nodes.literal("", name) for name in names),
        nodes.Text(")"),
    ]


def _write_defaults_as_in_files(_app: Sphinx, document: nodes.document) -> None:
    """Write the defaults of options as in a configuration file; oslo.config's are Python's."""
    for field in document.findall(nodes.field):
        name, body = field.children
        if name.astext() == "Default":
            text = body.astext()
            written = "unset" if text == "<None>" else _written(text)
            body.children = [nodes.paragraph("", "", nodes.literal("", written))]


def _written(default: str) -> str:
    try:
        value = ast.literal_eval(default)
    except (SyntaxError, ValueError):
        return default
    if isinstance(value, dict):
        value = [f"{name}:{one}" for name, one in value.items()]
    return (",".join(map(str, value)) or "empty") if isinstance(value, list) else default


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("evscrub-command", CommandDirective)
    app.add_directive("evscrub-exit-codes", ExitCodesDirective)
    app.add_directive("evscrub-metrics", MetricsDirective)
    app.connect("doctree-read", _write_defaults_as_in_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
