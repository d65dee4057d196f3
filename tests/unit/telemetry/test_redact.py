# SPDX-License-Identifier: Apache-2.0
"""No credential reaches the output."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_log import log as oslo_log
from oslo_log.formatters import FluentFormatter, JSONFormatter
from oslo_reports.guru_meditation_report import TextGuruMeditation

from evscrub import cli
from evscrub.commands import agent as agent_command
from evscrub.config import loader
from evscrub.config.loader import ConfigError
from evscrub.telemetry.redact import RedactingFormatter, handlers, install, redact
from tests.unit.config.test_config_values import Files, Running

_PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="@&"))
SECRETS = _PRINTABLE.map(lambda text: f"hid{text}den")


@pytest.mark.parametrize(
    "text",
    [
        "s3+https://user:hidden@host/bucket/key",
        "s3://user:hid/den@host/bucket/key",
        "s3://user:hid'den@host/bucket/key",
        's3://user:hid"den@host/bucket/key',
        "s3://user:hid@den@host/bucket/key",
        "at swift+http://account%3Auser:hidden@host:5000/v3",
        "host s3_host=user:hidden@localhost:9000, bucket=b",
        "host s3_host=user:hid/den@localhost:9000, bucket=b",
        "('mysql+pymysql://user:hidden@db/glance',)",
        "amqp://guest:hidden@[::1]:5672//",
    ],
)
def test_logins_are_replaced(text: str) -> None:
    shown = redact(text)
    assert "hid" not in shown
    assert "den@" not in shown
    assert "***@" in shown


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "auth_password",
        "passwd",
        "secret",
        "client_secret",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Amz-Security-Token",
        "AWSAccessKeyId",
        "Signature",
        "temp_url_sig",
        "token",
        "api_key",
        "s3_store_secret_key",
    ],
)
def test_parameters_are_replaced(name: str) -> None:
    assert redact(f"https://host/key?a=1&{name}=hid'den/%2F&b=2") == (
        f"https://host/key?a=1&{name}=***&b=2"
    )


@pytest.mark.parametrize(
    "text",
    [
        "{'user': 'glance', 'password': 'hidden'}",
        '{"user": "glance", "auth_token":"hidden"}',
        "{b'secret': b'hidden'}",
        "AWS4-HMAC-SHA256 Credential=hidden/20260101/x, SignedHeaders=host, Signature=hidden",
    ],
)
def test_items_of_a_dictionary_or_a_header_are_replaced(text: str) -> None:
    assert "hidden" not in redact(text)


@pytest.mark.parametrize(
    "piece", ["a", "a.", "A-_", "x://", "=a:", "=a:@", "secret_", "password", "@", "password': '"]
)
def test_a_long_text_takes_no_time(piece: str) -> None:
    """A member of a project may name a store or an object of 64 KB, which is then logged."""
    text = piece * (64_000 // len(piece))
    began = time.thread_time()
    redact(text)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    "text",
    [
        "file:///var/lib/glance/x",
        "10:20 a@b",
        "image 1: done",
        "bucket=images, key=1b2c",
        "https://host:9000/bucket?versionId=3",
    ],
)
def test_other_text_is_unchanged(text: str) -> None:
    assert redact(text) == text


@given(SECRETS)
def test_no_login_of_a_url_is_shown(secret: str) -> None:
    assert secret not in redact(f"cannot delete s3://user:{secret}@host/bucket/key of it")
    assert quote(secret, safe="") not in redact(f"s3://user:{quote(secret, safe='')}@host/b/k")


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


def loggers() -> list[logging.Logger]:
    """Return all loggers, the root first."""
    return [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]


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


@pytest.mark.parametrize("where", ["raise error", "Thread(target=fail).start()"])
def test_uncaught_exceptions_show_none(where: str) -> None:
    code = f"""if True:
        from threading import Thread
        from evscrub.telemetry.redact import install_excepthooks
        install_excepthooks()
        error = ValueError("s3://user:hidden@host/key")
        def fail():
            raise error
        {where}
    """
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "hidden" not in ended.stderr
    assert "Traceback" in ended.stderr
    assert "ValueError: s3://***@host/key" in ended.stderr


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
def test_an_agent_whose_log_is_configured_again_shows_none(tmp_path: Path) -> None:
    """A reload makes new handlers, whose formatters are the logging configuration's."""
    logs = [tmp_path / "before.log", tmp_path / "after.log"]
    files, log_config = Files(tmp_path), tmp_path / "logging.ini"
    files.write(f"log_config_append = {log_config}")
    log_config.write_text(LOG_CONFIG.format(log=logs[0]))
    conf, own = files.load()
    loader.start_logging(own)
    log_config.write_text(LOG_CONFIG.format(log=logs[1]) + "\n")
    os.utime(log_config, (1, 1))  # it is read again when its time has changed
    Running(conf, own).agent.reload()
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
