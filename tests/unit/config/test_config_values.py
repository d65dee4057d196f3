# SPDX-License-Identifier: Apache-2.0
"""Every option of evscrub with every odd value that its type can be given, at start and at reload.

The options are walked, so that a new one is covered without a word here.
"""

import argparse
import logging
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oslo_config import cfg, types

from evscrub import cli
from evscrub.agent import Agent
from evscrub.config import known_options, loader, option_types, options
from evscrub.config.loader import ConfigError, OwnOptions
from evscrub.config.settings import scrubber_settings, sweep_settings
from evscrub.registry.database import Database
from evscrub.telemetry import quiet
from tests.unit import odd_values

pytestmark = pytest.mark.usefixtures("global_configuration")

OPTIONS = [
    pytest.param(group, opt, id=f"{group}-{opt.dest}")
    for group, opts in options.list_opts()
    for opt in opts
]
each_option = pytest.mark.parametrize(("group", "opt"), OPTIONS)


class Files:
    """An evscrub.conf and a glance-api.conf."""

    def __init__(self, directory: Path) -> None:
        self.own = directory / "evscrub.conf"
        self.glance = directory / "glance-api.conf"

    def write(self, *lines: str, glance: tuple[str, ...] = ()) -> None:
        """Write both; evscrub's names Glance's first, unless its lines do so themselves."""
        named = any(line.startswith("glance_config_files") for line in lines)
        head = ["[DEFAULT]"] if named else [self.first]
        self.own.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
        self.glance.write_text("\n".join([*glance, ""]), encoding="utf-8")

    @property
    def first(self) -> str:
        return f"[DEFAULT]\nglance_config_files = {self.glance}"

    def load(self) -> tuple[cfg.ConfigOpts, OwnOptions]:
        """Read them as the command line does."""
        return loader.load_for(argparse.Namespace(config_file=[str(self.own)], debug=False))

    def place(self, name: str, group: str) -> str:
        """The last line of evscrub's file that sets an option."""
        found = 0
        within = ""
        for number, line in enumerate(self.own.read_text(encoding="utf-8").split("\n"), 1):
            if line.startswith("["):
                within = line
            elif line.startswith(f"{name} =") and within == f"[{group}]":
                found = number
        return f"{self.own}:{found}"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def values(conf: cfg.ConfigOpts) -> dict[tuple[str, str], Any]:
    """All that our options say."""
    return {
        (group, opt.dest): (conf if group == "DEFAULT" else conf[group])[opt.dest]
        for group, opts in options.GROUPS.items()
        for opt in opts
    }


class Running:
    """An agent whose parts only note what they are told, in place of one with stores."""

    def __init__(self, conf: cfg.ConfigOpts, own: OwnOptions) -> None:
        self.changes: list[object] = []
        self.agent = object.__new__(Agent)
        self.agent._conf, self.agent._own = conf, own
        part = SimpleNamespace(change=self.changes.append, settings=scrubber_settings(conf))
        self.agent.scrubber = self.agent.sweep = part  # type: ignore[assignment] # a stand-in
        stores = SimpleNamespace(names=[], change=lambda *_: self.changes.append("objects"))
        self.agent.stores = stores  # type: ignore[assignment] # a stand-in
        reloads = SimpleNamespace(soon=lambda: self.changes.append("stores"))
        self.agent._store_reloads = reloads  # type: ignore[assignment] # a stand-in
        self.agent._demote = quiet.Demote(lambda _: False)


def odd_texts() -> list[Any]:
    """Options with a value that each must refuse, as many at a time as there are.

    What says which further files are read is refused before anything else, so it comes alone.
    """
    together: dict[int, list[tuple[str, cfg.Opt, str]]] = {}
    alone = []
    for group, opts in options.list_opts():
        for opt in opts:
            for number, text in enumerate(odd_values.refused(opt)):
                case = (group, opt, text)
                if opt in options.bootstrap_opts:
                    alone.append(pytest.param([case], id=f"{opt.dest}-{number}"))
                else:
                    together.setdefault(number, []).append(case)
    return [*alone, *(pytest.param(cases, id=str(number)) for number, cases in together.items())]


each_odd_text = pytest.mark.parametrize("cases", odd_texts())
Cases = list[tuple[str, cfg.Opt, str]]


def lines_of(cases: Cases) -> list[str]:
    return [
        line
        for group, opt, text in cases
        for line in (f"[{group}]", "# a comment", f"{opt.dest} = {text}")
    ]


@each_odd_text
def test_at_start_each_odd_value_is_refused_in_one_line(
    files: Files, cases: Cases, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write(*lines_of(cases))
    assert cli.main(["agent", "--config-file", str(files.own)]) == os.EX_CONFIG
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(cases)
    for group, opt, text in cases:
        begin = f"evscrub: [{group}] {opt.dest} in {files.place(opt.dest, group)}: "
        (line,) = (line for line in said if line.startswith(begin))
        assert len(line) < 500
        if opt.secret and text:
            assert text not in line


@each_odd_text
def test_odd_value_at_a_reload_changes_nothing(
    files: Files, cases: Cases, caplog: pytest.LogCaptureFixture
) -> None:
    files.write("scrub_time = 86400", "[scrubber]", "rate = 7")
    running = Running(*files.load())
    before = values(cfg.CONF)
    # Beside them is a change that must not be applied either.
    files.write("scrub_time = 5", "[scrubber]", "rate = 8", *lines_of(cases))
    caplog.clear()
    running.agent.reload()
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    said = record.getMessage()
    assert said.startswith("Configuration not reloaded, nothing is changed: ")
    for group, opt, _ in cases:
        assert f"[{group}] {opt.dest} in {files.place(opt.dest, group)}: " in said
    assert running.changes == []
    assert values(cfg.CONF) == before
    files.write("scrub_time = 5", "[scrubber]", "rate = 8")
    running.agent.reload()
    assert (cfg.CONF.scrub_time, cfg.CONF.scrubber.rate) == (5, 8)
    assert running.changes


@each_option
def test_accepted_empty_value_is_the_default(files: Files, group: str, opt: cfg.Opt) -> None:
    if not odd_values.accepts_empty(opt):
        files.write(f"[{group}]", f"{opt.dest} =")
        with pytest.raises(ConfigError, match="is empty"):
            files.load()
        return
    files.write()
    default = values(files.load()[0])
    files.write(f"[{group}]", f"{opt.dest} =")
    assert values(files.load()[0]) == default


@pytest.mark.parametrize("opt", options.glance_opts, ids=lambda opt: opt.dest)
def test_an_odd_value_in_glance_s_file_is_refused_too(files: Files, opt: cfg.Opt) -> None:
    for text in odd_values.refused(opt):
        files.write(glance=("[DEFAULT]", f"{opt.dest} = {text}"))
        with pytest.raises(ConfigError) as caught:
            files.load()
        assert f"[DEFAULT] {opt.dest} in {files.glance}:2: " in str(caught.value)


@each_option
def test_every_number_has_both_bounds_and_every_value_is_defined(group: str, opt: cfg.Opt) -> None:
    kinds = [opt.type, getattr(opt.type, "value_type", None)]
    for kind in kinds:
        if isinstance(kind, types.Number):
            assert isinstance(kind, option_types.Integer | option_types.Float), (group, opt.dest)


def test_an_odd_value_of_the_environment_is_refused(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write()
    monkeypatch.setenv("OS_SCRUBBER__RATE", "nan")
    with pytest.raises(ConfigError, match=r"rate in the environment variable OS_SCRUBBER__RATE: "):
        files.load()


def test_limits_are_switched_off_by_an_explicit_value(files: Files) -> None:
    files.write(
        "[scrubber]",
        "rate = 0",
        "not_found_limit = 0",
        "owner_rate = 0",
        "[status]",
        "listen = none",
    )
    settings = scrubber_settings(files.load()[0])
    assert (settings.rate, settings.not_found_limit, settings.owner_rate) == (0, 0, 0)
    files.write("[scrubber]", "rate = none")
    with pytest.raises(ConfigError):
        files.load()


def test_bounds_are_values_that_settings_can_be_made_of(files: Files) -> None:
    for bound in ("min", "max"):
        lines = []
        for group, opts in options.GROUPS.items():
            lines.append(f"[{group}]")
            lines += [
                f"{opt.dest} = {getattr(opt.type, bound)}"
                for opt in opts
                if isinstance(opt.type, types.Number)
            ]
        files.write(*lines)
        conf, _ = files.load()
        assert scrubber_settings(conf).policy.scrub_time.total_seconds() >= 0
        assert sweep_settings(conf).horizon_seconds > 0


@given(text=st.one_of(st.text(), st.floats().map(str), st.integers().map(str)))
@example(text="nan")
@example(text="\u0663")  # a digit of another script
@pytest.mark.parametrize(
    "kind", [option_types.Integer(1, 9), option_types.Float(0.5, 9.5), option_types.Rate()]
)
def test_numbers_are_within_bounds_or_refused(kind: Any, text: str) -> None:
    with suppress(ValueError):
        value = kind(text)
        assert math.isfinite(value)
        assert kind.min <= value <= kind.max


def is_read(group: str, opt: cfg.Opt) -> bool:
    """Whether evscrub reads an option of oslo.messaging's, which has some for remote calls."""
    return not opt.dest.startswith("rpc_")


LIBRARY_OPTIONS = [(group, opt) for group, opts in known_options.of_services() for opt in opts]
LIBRARY_NUMBERS = [pair for pair in LIBRARY_OPTIONS if isinstance(pair[1].type, types.Number)]
LIBRARY_OTHERS = [
    pytest.param(group, opt, id=f"{group}-{opt.dest}")
    for group, opt in LIBRARY_OPTIONS
    if not isinstance(opt.type, types.Number)
]
each_file = pytest.mark.parametrize("own", [True, False], ids=["own", "glance"])


#: As a number of bytes, this many may be meant.
PETABYTE = f"1{'0' * 15}"


@each_file
@pytest.mark.parametrize("text", ["nan", "-inf", "1e20", f"1{'0' * 20}", "garbage", PETABYTE, ""])
def test_odd_numbers_of_libraries_are_all_refused(files: Files, text: str, *, own: bool) -> None:
    file = files.own if own else files.glance
    lines = []
    wanted = []
    for group, opt in LIBRARY_NUMBERS:
        if text == PETABYTE and "pool_size" not in opt.dest:
            continue
        lines += [f"[{group}]", f"{opt.dest} = {text}"]
        if (own or is_read(group, opt)) and (text or opt.default is not None):
            line = len(lines) + (files.first.count("\n") + 1 if own else 0)
            wanted.append(f"[{group}] {opt.dest} in {file}:{line}: ")
    files.write(*(lines if own else ()), glance=() if own else tuple(lines))
    with pytest.raises(ConfigError) as caught:
        files.load()
    found = {
        match[1]
        for problem in caught.value.args
        if (match := re.match(r"(.*?:\d+: )(must be a|is empty|Should)", problem))
    }
    assert wanted
    assert set(wanted) <= found


@pytest.mark.costly
@each_file
@pytest.mark.parametrize(("group", "opt"), LIBRARY_OTHERS)
@pytest.mark.parametrize("text", ["garbage", ""])
def test_odd_text_of_a_library_s_option_is_read_or_refused(
    files: Files, group: str, opt: cfg.Opt, text: str, *, own: bool
) -> None:
    lines = (f"[{group}]", f"{opt.dest} = {text}")
    files.write(*(lines if own else ()), glance=() if own else lines)
    with suppress(ConfigError):
        files.load()


DATABASE_OPTIONS = [
    opt for group, opts in known_options.of_services() if group == "database" for opt in opts
]


@pytest.mark.parametrize("opt", DATABASE_OPTIONS, ids=lambda opt: opt.dest)
@pytest.mark.parametrize("text", ["", "-1", "0", "garbage", str(2**31 - 1), "$garbage"])
def test_odd_values_of_database_options_are_reported(files: Files, opt: cfg.Opt, text: str) -> None:
    """Each value is refused, or an engine can be made with it, or that says why not."""
    files.write(glance=("[database]", "connection = sqlite://", f"{opt.dest} = {text}"))
    with suppress(ConfigError, ValueError):
        conf, _ = files.load()
        Database(conf).dispose()
