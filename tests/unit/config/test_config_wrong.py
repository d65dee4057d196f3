# SPDX-License-Identifier: Apache-2.0
"""Configurations that are wrong in odd ways: each is told, and none is half applied."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from oslo_config import cfg

from evscrub.config import loader
from evscrub.config.loader import ConfigError
from evscrub.domain.decisions import ImageRow, Policy, decide
from evscrub.registry.database import Database

START = "[DEFAULT]\nglance_config_files = none\n"

pytestmark = pytest.mark.usefixtures("global_configuration")


@pytest.mark.parametrize("text", ["scrub_time = -1\n", "[scrubber]\nconcurrency = banana\n"])
def test_reload_with_a_wrong_value_changes_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "evscrub.conf"
    path.write_text(START + "scrub_time = 1\n")
    conf, own = loader.load([str(path)])
    path.write_text(START + ("" if "scrub" in text[:6] else "scrub_time = 1\n") + text)
    with pytest.raises(ConfigError):
        loader.reload(conf, own)
    assert conf.scrub_time == 1
    assert conf.scrubber.concurrency == 16


def test_debug_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "evscrub.conf"
    path.write_text(START + "debug = banana\n")
    with pytest.raises(ConfigError):
        loader.load([str(path)])


def test_a_failed_reload_does_not_apply_debug(tmp_path: Path) -> None:
    path = tmp_path / "evscrub.conf"
    glance = tmp_path / "glance-api.conf"
    glance.write_text("")
    start = f"[DEFAULT]\nglance_config_files = {glance}\n"
    path.write_text(start)
    conf, own = loader.load([str(path)])
    glance.write_text("no option\n")
    path.write_text(start + "debug = true\n")
    with pytest.raises(ConfigError):
        loader.reload(conf, own)
    assert own.debug is False


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evscrub.conf"
    path.write_bytes(b"\xff\xfe[DEFAULT]\n")
    with pytest.raises(ConfigError, match=r"evscrub\.conf"):
        loader.load([str(path)])


def test_huge_scrub_time_is_rejected_or_used(tmp_path: Path) -> None:
    path = tmp_path / "evscrub.conf"
    path.write_text(START + "scrub_time = 999999999999\n")
    try:
        conf, _ = loader.load([str(path)])
    except ConfigError:
        return
    policy = Policy(timedelta(seconds=conf.scrub_time), timedelta(seconds=120))
    now = datetime.fromisoformat("2026-01-01")
    decide(ImageRow("1", None, 1, "pending_delete", True, now), [], now, policy)


def test_unknown_driver_is_named(tmp_path: Path) -> None:
    conf = cfg.ConfigOpts()
    path = tmp_path / "evscrub.conf"
    path.write_text("[database]\nconnection = mysql+nodriver://u:secret@host/glance\n")
    conf([], project="evscrub", default_config_files=[str(path)], default_config_dirs=[])
    with pytest.raises(ValueError, match="nodriver"):
        Database(conf)


def test_wrong_value_names_the_right_file(tmp_path: Path) -> None:
    glance = tmp_path / "glance-api.conf"
    glance.write_text("[DEFAULT]\nscrub_time = soon\n")
    path = tmp_path / "evscrub.conf"
    path.write_text(f"[DEFAULT]\nglance_config_files = {glance}\n")
    with pytest.raises(ConfigError, match=r"glance-api\.conf"):
        loader.load([str(path)])
