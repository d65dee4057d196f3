# SPDX-License-Identifier: Apache-2.0
"""Write one image in the formats of the OpenStack client, with its formatters."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from cliff.formatters.base import SingleFormatter
from cliff.formatters.json_format import JSONFormatter
from cliff.formatters.shell import ShellFormatter
from cliff.formatters.value import ValueFormatter
from cliff.formatters.yaml_format import YAMLFormatter

from evscrub.commands.fitted_table import FittedTableFormatter
from evscrub.commands.table_output import SizeBytes, Table, Value, add_format_arguments, cell
from evscrub.domain.decisions import LocationRow, Policy
from evscrub.domain.image_report import CLAIMED, Detail, ImageReport, claim_expires_at
from evscrub.stores.names import StoreNames
from evscrub.telemetry.redact import redact

_STRUCTURED = {"json", "yaml"}
#: What a POSIX shell interprets within double quotes.
_OF_SHELLS = str.maketrans({character: f"\\{character}" for character in '\\"$`'})


class QuotingShellFormatter(ShellFormatter):
    """Write assignments that a shell may evaluate: no value is executed, whatever users chose."""

    def emit_one(
        self,
        column_names: Sequence[str],
        data: Sequence[Any],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write an assignment for each field."""
        for name, value in zip(column_names, data, strict=True):
            variable = name.lower().replace(" ", "_")
            quoted = str(value).translate(_OF_SHELLS)
            stdout.write(f'{parsed_args.prefix}{variable}="{quoted}"\n')


FORMATTERS: dict[str, type[SingleFormatter]] = {
    "json": JSONFormatter,
    "shell": QuotingShellFormatter,
    "table": FittedTableFormatter,
    "value": ValueFormatter,
    "yaml": YAMLFormatter,
}

_Record = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class _Image:
    """What the fields are read from."""

    detail: Detail
    report: ImageReport
    policy: Policy
    names: StoreNames


_FIELDS: dict[str, Callable[[_Image], Value | _Record | tuple[_Record, ...]]] = {
    "ID": lambda image: image.report.id,
    "Name": lambda image: image.report.name,
    "Owner": lambda image: image.report.owner,
    "Size": lambda image: None if image.report.size is None else SizeBytes(image.report.size),
    "State": lambda image: image.report.state,
    "Reason": lambda image: image.report.reason,
    "Status": lambda image: image.detail.seen.image.status,
    "Created At": lambda image: image.detail.created_at,
    "Updated At": lambda image: image.detail.seen.image.updated_at,
    "Deleted At": lambda image: image.report.deleted_at,
    "Due At": lambda image: image.report.due_at,
    "Due In": lambda image: image.report.due_in,
    "Claim Expires At": lambda image: (
        claim_expires_at(image.detail.seen, image.policy) if image.report.state == CLAIMED else None
    ),
    "Locations": lambda image: tuple(_location(image, row) for row in _by_store(image)),
    "Restorable": lambda image: not image.detail.restorable.refusal,
    "Restore Refused": lambda image: image.detail.restorable.refusal,
    "Restored Status": lambda image: image.detail.restorable.status,
    "Restored Stores": lambda image: tuple(
        dict.fromkeys(map(image.names.of, image.detail.restorable.locations))
    ),
    "Restored Properties": lambda image: {
        redact(name): None if value is None else redact(value)
        for name, value in image.detail.restorable.properties
    },
    "Restored Tags": lambda image: image.detail.restorable.tags,
    "Restored Members": lambda image: image.detail.restorable.members,
    "Not Restored": lambda image: "; ".join(image.detail.restorable.losses),
}
_TABLE = Table[_Image](dict.fromkeys(_FIELDS, lambda _: None))


def _by_store(image: _Image) -> list[LocationRow]:
    return sorted(image.detail.seen.locations, key=lambda row: (image.names.of(row), row.id))


def _location(image: _Image, row: LocationRow) -> _Record:
    return {
        "Store": image.names.of(row),
        "Status": row.status,
        "Deleted At": row.deleted_at,
        "Restored": row in image.detail.restorable.locations,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the OpenStack client's arguments for output."""
    add_format_arguments(parser, FORMATTERS, "all")


def choose(arguments: argparse.Namespace) -> list[str]:
    """Return the fields that a command line asks for, in their fixed order.

    :param arguments: parsed arguments of :func:`add_arguments`.
    :raises UsageError: a field is unknown.
    """
    wanted = [*arguments.columns, *arguments.variables]
    return _TABLE.choose(wanted)


def write(
    detail: Detail,
    report: ImageReport,
    policy: Policy,
    names: StoreNames,
    stdout: TextIO,
    arguments: argparse.Namespace,
) -> None:
    """Write an image; no URL of a location is shown.

    :param report: describes `detail`.
    :param arguments: parsed arguments of :func:`add_arguments`.
    """
    how: str = arguments.formatter
    image = _Image(detail, report, policy, names)
    fields = choose(arguments)
    values = [_shown(_FIELDS[name](image), how) for name in fields]
    FORMATTERS[how]().emit_one(fields, values, stdout, arguments)


def _shown(value: Value | _Record | tuple[_Record, ...], how: str) -> object:
    """Return a value as a formatter is given it."""
    if isinstance(value, Mapping):
        return _record(value, how)
    if isinstance(value, tuple) and value and isinstance(value[0], Mapping):
        records = [_record(one, how) for one in value if isinstance(one, Mapping)]
        return records if how in _STRUCTURED else _joined(records, how)
    plain = cell(value, how)  # type: ignore[arg-type] # a plain value is left
    return "" if plain is None and how == "shell" else plain


def _record(record: _Record, how: str) -> object:
    """Return a record as it is in structured formats, else as text."""
    if how == "table":
        return "\n".join(f"{cell(name, how)}: {cell(value, how)}" for name, value in record.items())
    plain = {name: cell(value, "json") for name, value in record.items()}
    return plain if how in _STRUCTURED else json.dumps(plain)


def _joined(records: Sequence[object], how: str) -> str:
    texts = map(str, records)
    if how == "table":
        return "\n".join(text.replace("\n", ", ") for text in texts)
    return f"[{', '.join(texts)}]"
