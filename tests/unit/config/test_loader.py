# SPDX-License-Identifier: Apache-2.0
"""How evscrub's file is laid over Glance's, and what is said about a wrong one."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

from evscrub.config import loader, options
from evscrub.config.loader import ConfigError
from evscrub.config.option_types import Paths

Write = Callable[[str, str], str]

pytestmark = pytest.mark.usefixtures("global_configuration")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return its path."""

    def _write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return _write


@pytest.fixture
def default_glance_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Glance's file is looked for; it is not there."""
    path = tmp_path / "etc-glance-api.conf"
    option = cfg.Opt("glance_config_files", type=Paths(), default=[str(path)])
    monkeypatch.setattr(loader, "DEFAULT_GLANCE_CONFIG_FILE", str(path))
    monkeypatch.setattr(loader, "bootstrap_opts", [option])
    return path


def test_defaults_are_read_from_no_file_at_all(default_glance_file: Path) -> None:
    conf, own = loader.load([])
    assert conf is cfg.CONF
    assert own is not conf
    assert (conf.scrub_time, conf.scrubber.concurrency, conf.listener.topics) == (
        0,
        16,
        ["evscrub"],
    )


def test_evscrubs_file_overrides_glances(write: Write) -> None:
    first = write("glance-api.conf", "[DEFAULT]\nscrub_time = 1\ndelayed_delete = true\n")
    second = write(
        "glance-more.conf",
        "[DEFAULT]\nscrub_time = 2\nenabled_backends = fast:rbd\n"
        "metadata_encryption_key = key number two22\n",
    )
    own_file = write(
        "evscrub.conf",
        f"[DEFAULT]\nglance_config_files = {first},{second}\n"
        "metadata_encryption_key = the third key 33\n"
        "[scrubber]\nconcurrency = 7\n",
    )
    conf, _ = loader.load([own_file])
    assert conf.delayed_delete is True
    assert conf.scrub_time == 2
    assert conf.enabled_backends == {"fast": "rbd"}
    assert conf.metadata_encryption_key == "the third key 33"
    assert conf.scrubber.concurrency == 7


def test_of_several_own_files_the_last_one_wins(write: Write) -> None:
    one = write("1.conf", "[DEFAULT]\nglance_config_files = none\n[sweep]\ninterval = 5\n")
    two = write("2.conf", "[sweep]\ninterval = 6\n")
    assert loader.load([one, two])[0].sweep.interval == 6
    assert loader.load([two, one])[0].sweep.interval == 5


def test_glances_logging_options_are_ignored(write: Write) -> None:
    logging_options = "debug = true\nlog_file = glance.log\nuse_syslog = true\n"
    glance = write("glance-api.conf", f"[DEFAULT]\n{logging_options}")
    own_file = write("evscrub.conf", f"[DEFAULT]\nglance_config_files = {glance}\n")
    _, own = loader.load([own_file])
    assert (own.debug, own.log_file, own.use_syslog) == (False, None, False)
    _, own = loader.load(
        [own_file, write("log.conf", "[DEFAULT]\ndebug = true\nlog_file = evscrub.log\n")]
    )
    assert (own.debug, own.log_file, own.use_syslog) == (True, "evscrub.log", False)


def test_glance_s_usual_file_need_not_be_there(default_glance_file: Path, write: Write) -> None:
    conf, _ = loader.load([write("evscrub.conf", "[DEFAULT]\nscrub_time = 3\n")])
    assert conf.scrub_time == 3


def test_glance_s_usual_file_is_read_where_it_is(default_glance_file: Path, write: Write) -> None:
    default_glance_file.write_text("[DEFAULT]\nscrub_time = 4\n", encoding="utf-8")
    conf, _ = loader.load([write("evscrub.conf", "[sweep]\ninterval = 7\n")])
    assert (conf.scrub_time, conf.sweep.interval) == (4, 7)


def test_no_glance_file_is_read_where_none_is_named(
    default_glance_file: Path, write: Write
) -> None:
    default_glance_file.write_text("[DEFAULT]\nscrub_time = 4\n", encoding="utf-8")
    conf, _ = loader.load([write("evscrub.conf", "[DEFAULT]\nglance_config_files = none\n")])
    assert conf.scrub_time == 0


def test_evscrub_s_file_is_looked_for_where_none_is_named(
    default_glance_file: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("evscrub.conf", "[DEFAULT]\nscrub_time = 5\n")
    monkeypatch.setattr(loader, "find_config_files", lambda: [path])
    assert loader.load()[0].scrub_time == 5


def refused(files: list[str]) -> str:
    """What is said about these files, in one line."""
    with pytest.raises(ConfigError) as caught:
        loader.load(files)
    text = str(caught.value)
    assert text
    assert len(text.splitlines()) == 1
    return text


def test_a_file_that_is_named_must_be_there(tmp_path: Path, write: Write) -> None:
    missing = str(tmp_path / "missing.conf")
    text = refused([missing])
    assert missing in text
    assert "--config-file" in text
    text = refused([write("evscrub.conf", f"[DEFAULT]\nglance_config_files = {missing}\n")])
    assert missing in text
    assert "glance_config_files" in text


@pytest.mark.parametrize("text", ["no option\n", "[DEFAULT\n", "scrub_time\n"])
def test_file_that_cannot_be_parsed_is_named(write: Write, text: str) -> None:
    path = write("evscrub.conf", text)
    assert f"{path}:1" in refused([path])


@pytest.mark.parametrize(
    ("group", "option", "value"),
    [
        ("DEFAULT", "scrub_time", "-1"),
        ("DEFAULT", "scrub_time", "an hour"),
        ("DEFAULT", "delayed_delete", "maybe"),
        ("DEFAULT", "enabled_backends", "fast"),
        ("listener", "batch_size", "0"),
        ("listener", "batch_timeout", "0"),
        ("queue", "max_entries", "0"),
        ("queue", "max_entries", str(1 << 24)),
        ("scrubber", "concurrency", "0"),
        ("scrubber", "concurrency", "4097"),
        ("scrubber", "rate", "-1"),
        ("scrubber", "rate", "fast"),
        ("scrubber", "burst", "0.5"),
        ("scrubber", "claim_timeout", "9"),
        ("sweep", "interval", "0"),
        ("sweep", "orphans", "perhaps"),
    ],
)
def test_a_value_that_is_wrong_is_named(write: Write, group: str, option: str, value: str) -> None:
    start = "[DEFAULT]\nglance_config_files = none\n"
    path = write("evscrub.conf", f"{start}[{group}]\n{option} = {value}\n")
    text = refused([path])
    assert text.startswith(f"[{group}] {option} ")
    assert path in text


def test_a_value_that_is_wrong_in_glance_s_file_is_named(write: Write) -> None:
    glance = write("glance-api.conf", "[DEFAULT]\nscrub_time = soon\n")
    text = refused([write("evscrub.conf", f"[DEFAULT]\nglance_config_files = {glance}\n")])
    assert text.startswith("[DEFAULT] scrub_time ")


def test_reload_applies_and_returns_mutable_options(write: Write) -> None:
    glance = write("glance-api.conf", "[DEFAULT]\nscrub_time = 1\n")
    start = f"[DEFAULT]\nglance_config_files = {glance}\n"
    path = write("evscrub.conf", f"{start}[scrubber]\nrate = 1\nclaim_timeout = 60\n")
    conf, own = loader.load([path])
    assert loader.reload(conf, own) == []
    write("glance-api.conf", "[DEFAULT]\nscrub_time = 2\n")
    write("evscrub.conf", f"{start}debug = true\n[scrubber]\nrate = 2.5\nclaim_timeout = 90\n")
    assert loader.reload(conf, own) == ["[DEFAULT] scrub_time", "[scrubber] rate"]
    assert (conf.scrub_time, conf.scrubber.rate) == (2, 2.5)
    assert own.debug is True
    assert conf.scrubber.claim_timeout == 60  # which the other agents have too
    assert loader.reload(conf, own) == []


def test_a_reload_with_a_value_that_is_wrong_is_refused(write: Write) -> None:
    start = "[DEFAULT]\nglance_config_files = none\n"
    conf, own = loader.load([write("evscrub.conf", start)])
    write("evscrub.conf", f"{start}[scrubber]\nconcurrency = many\n")
    with pytest.raises(ConfigError, match=r"^\[scrubber\] concurrency "):
        loader.reload(conf, own)


def test_a_reload_shows_no_key(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    start = "[DEFAULT]\nglance_config_files = none\n"
    path = write("evscrub.conf", f"{start}metadata_encryption_key = the-first-secret\n")
    conf, own = loader.load([path])
    write("evscrub.conf", f"{start}metadata_encryption_key = the-other-secret\n")
    loader.reload(conf, own)
    assert conf.metadata_encryption_key == "the-first-secret"
    assert "metadata_encryption_key" in caplog.text
    assert "-secret" not in caplog.text


@pytest.mark.parametrize("broken", ["no option\n", None])
def test_a_reload_that_fails_changes_nothing(
    write: Write, tmp_path: Path, broken: str | None
) -> None:
    text = "[DEFAULT]\nglance_config_files = none\nscrub_time = 1\n"
    path = write("evscrub.conf", text)
    conf, own = loader.load([path])
    if broken is None:
        (tmp_path / "evscrub.conf").unlink()
    else:
        write("evscrub.conf", text.replace("1", "2") + broken)
    with pytest.raises(ConfigError, match=r"evscrub\.conf") as caught:
        loader.reload(conf, own)
    assert path in str(caught.value)
    assert conf.scrub_time == 1
    write("evscrub.conf", text.replace("1", "3"))
    assert loader.reload(conf, own) == ["[DEFAULT] scrub_time"]
    assert conf.scrub_time == 3


def test_the_command_line_names_files_and_turns_debug_on(write: Write) -> None:
    parser = argparse.ArgumentParser()
    loader.add_arguments(parser)
    one = write("1.conf", "[DEFAULT]\nglance_config_files = none\nscrub_time = 1\n")
    two = write("2.conf", "[DEFAULT]\nscrub_time = 2\n")
    arguments = parser.parse_args(["--config-file", one, "--config-file", two])
    conf, own = loader.load_for(arguments)
    assert conf.scrub_time == 2
    assert own.debug is False
    _, own = loader.load_for(parser.parse_args(["--config-file", one, "--debug"]))
    assert own.debug is True


def test_the_generator_of_sample_files_is_given_every_option_with_its_help() -> None:
    listed = dict(options.list_opts())
    assert set(listed) == set(options.GROUPS)
    assert "glance_config_files" in {opt.name for opt in listed["DEFAULT"]}
    for group, opts in options.GROUPS.items():
        assert {opt.name for opt in opts} <= {opt.name for opt in listed[group]}
    for opts in listed.values():
        assert len({opt.name for opt in opts}) == len(opts)
        for opt in opts:
            assert opt.help
    # The generator changes what it is given.
    assert listed["sweep"][0] is not options.sweep_opts[0]
