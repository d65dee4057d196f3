# SPDX-License-Identifier: Apache-2.0
"""No credential reaches a log."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
from oslo_config import cfg
from oslo_log import log as oslo_log
from oslo_log.formatters import FluentFormatter, JSONFormatter
from oslo_reports.guru_meditation_report import TextGuruMeditation

from evscrub import cli
from evscrub.commands import agent as agent_command
from evscrub.config import loader
from evscrub.config.loader import ConfigError
from evscrub.telemetry.log_redaction import (
    RedactingFormatter,
    handlers,
    install,
    loggers,
)
from tests.unit.config.test_config_values import Files, Running


@pytest.fixture
def log_as_it_was() -> Iterator[None]:
    """Put loggers and their handlers back, and close the handlers that a test made."""
    before = [(one, one.level, one.handlers[:], one.propagate) for one in loggers()]
    formatters = {handler: handler.formatter for handler in handlers()}
    yield
    for handler in handlers() - formatters.keys():
        handler.close()
    for one, level, kept, propagate in before:
        one.setLevel(level)
        one.handlers[:] = kept
        one.propagate = propagate
    for handler, formatter in formatters.items():
        handler.setFormatter(formatter)


def test_loggers_may_be_created_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that loads a store does while the configuration is read again."""
    known = logging.root.manager.loggerDict
    before = len(known)
    get = logging.getLogger
    created: list[str] = []

    def get_beside_another(name: str | None = None) -> logging.Logger:
        created.append(f"created meanwhile {len(created)}")
        get(created[-1])
        return get(name)

    monkeypatch.setattr(logging, "getLogger", get_beside_another)
    try:
        assert len(loggers()) > before
        assert handlers() >= set(logging.root.handlers)
    finally:
        for name in created:
            del known[name]


@pytest.fixture
def log_file(tmp_path: Path, log_as_it_was: None) -> Path:
    """Set the log up as the agent does."""
    path = tmp_path / "evscrub.log"
    conf = cfg.ConfigOpts()
    oslo_log.register_options(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("log_file", str(path))
    oslo_log.setup(conf, "evscrub")
    install()
    return path


def _fail() -> None:
    try:
        int("s3://inner:hidden@host/b")
    except ValueError as error:
        raise RuntimeError("cannot delete s3://outer:hidden@host/b?password=hidden") from error


def _log_failure(logger: logging.Logger) -> None:
    try:
        _fail()
    except RuntimeError:
        logger.exception("Deleting %s failed", "s3://user:hidden@host/key")


def test_log_file_shows_none(log_file: Path) -> None:
    _log_failure(logging.getLogger("evscrub.tests"))
    text = log_file.read_text()
    assert "hidden" not in text
    assert "s3://***@host/key" in text
    assert "Traceback" in text
    assert text.count("RuntimeError: cannot delete s3://***@host/b?password=***") == 2, text


def _record() -> logging.LogRecord:
    with io.StringIO() as stream:
        handler = logging.StreamHandler(stream)
        records: list[logging.LogRecord] = []
        handler.addFilter(lambda record: not records.append(record))  # type: ignore[func-returns-value]  # keeps it
        logger = logging.Logger("evscrub.tests")  # noqa: LOG001 - one that no other test sees
        logger.addHandler(handler)
        _log_failure(logger)
    return records[0]


def test_json_stays_json() -> None:
    record = _record()
    shown = RedactingFormatter(JSONFormatter()).format(record)
    assert "hidden" not in shown
    assert json.loads(shown)["message"] == "Deleting s3://***@host/key failed"
    assert json.loads(shown)["args"] == ["s3://***@host/key"]


def test_fluentd_gets_its_dictionary() -> None:
    shown = RedactingFormatter(FluentFormatter()).format(_record())
    assert "hidden" not in repr(shown)
    assert shown["message"] == "Deleting s3://***@host/key failed"


def test_text_kept_in_the_record_is_redacted() -> None:
    """The journal's handler sends it as a field, and asks for a traceback itself."""
    record = _record()
    record.exc_text = None
    formatter = RedactingFormatter(logging.Formatter())
    formatter.format(record)
    assert record.exc_text
    assert "hidden" not in record.exc_text
    assert record.exc_info
    assert "hidden" not in formatter.formatException(record.exc_info)


def test_new_handlers_are_found_and_none_twice() -> None:
    logger, handler = logging.getLogger("evscrub.tests.redact"), logging.NullHandler()
    logger.addHandler(handler)
    root = logging.getLogger()
    before = {known: known.formatter for known in root.handlers}
    try:
        install()
        first = handler.formatter
        install()
        assert isinstance(first, RedactingFormatter)
        assert handler.formatter is first
    finally:
        logger.removeHandler(handler)
        for known, formatter in before.items():
            known.setFormatter(formatter)


@pytest.mark.usefixtures("global_configuration", "log_as_it_was")
def test_an_agent_that_starts_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def agent(*_: object) -> None:
        _log_failure(logging.getLogger("evscrub.tests"))
        raise ConfigError("ended here")

    monkeypatch.setattr(agent_command, "Agent", agent)
    monkeypatch.setattr(TextGuruMeditation, "setup_autorun", lambda *_, **__: None)
    log, files = tmp_path / "evscrub.log", Files(tmp_path)
    files.write(f"log_file = {log}")
    assert cli.main(["agent", "--config-file", str(files.own)]) == os.EX_CONFIG
    check_redacted(log)


@pytest.mark.usefixtures("global_configuration", "log_as_it_was")
@pytest.mark.parametrize("error", [None, ConfigError("wrong"), RuntimeError("a defect")])
def test_an_agent_whose_log_is_configured_again_shows_none(
    tmp_path: Path, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload makes new handlers, whose formatters are the logging configuration's."""
    logs = [tmp_path / "before.log", tmp_path / "after.log"]
    files, log_config = Files(tmp_path), tmp_path / "logging.ini"
    files.write(f"log_config_append = {log_config}")
    log_config.write_text(LOG_CONFIG.format(log=logs[0]))
    conf, own = files.load()
    loader.start_logging(own)
    log_config.write_text(LOG_CONFIG.format(log=logs[1]) + "\n")
    os.utime(log_config, (1, 1))  # it is read again when its time has changed
    running = Running(conf, own)
    if error is not None:
        monkeypatch.setattr("evscrub.agent.scrubber_settings", Mock(side_effect=error))
    with suppress(RuntimeError):
        running.agent.reload()
    _log_failure(logging.getLogger("evscrub.tests"))
    assert logs[0].read_text() == ""
    check_redacted(logs[1])


LOG_CONFIG = """
[loggers]
keys = root
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = ("{log}",)
formatter = plain
[formatter_plain]
format = %(message)s
"""


def check_redacted(log: Path) -> None:
    """See that a log has the failure of :func:`_log_failure`, without its credentials."""
    text = log.read_text()
    assert "s3://***@host/key" in text
    assert "hidden" not in text
