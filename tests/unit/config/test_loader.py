# SPDX-License-Identifier: Apache-2.0
"""How evscrub's file is laid over Glance's, and what is said about a wrong one."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

from evscrub.agent import Agent
from evscrub.config import loader, options
from evscrub.config.arguments import add_config_arguments
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


def test_first_file_of_the_usual_folders_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (tmp_path, tmp_path / ".evscrub"):
        folder.mkdir(exist_ok=True)
        (folder / "evscrub.conf").touch()
    assert loader.find_config_files() == [str(tmp_path / ".evscrub/evscrub.conf")]


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
        [own_file, write("evscrub-log.conf", "[DEFAULT]\ndebug = true\nlog_file = evscrub.log\n")]
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


def test_the_command_line_names_files_and_turns_debug_on(write: Write, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    one = write("1.conf", "[DEFAULT]\nglance_config_files = none\nscrub_time = 1\n")
    two = write("2.conf", "[DEFAULT]\nscrub_time = 2\n")
    arguments = parser.parse_args(["--config-file", one, "--config-file", two])
    conf, own = loader.load_for(arguments)
    assert conf.scrub_time == 2
    assert own.debug is False
    _, own = loader.load_for(parser.parse_args(["--config-file", one, "--debug"]))
    assert own.debug is True
    (tmp_path / "conf.d").mkdir()
    folder = ["--config-dir", str(tmp_path / "conf.d")]
    for name, delay in (("20-b.conf", 20), ("10-a.conf", 10), ("30.conf.bak", 30), (".x.conf", 40)):
        write(f"conf.d/{name}", f"[DEFAULT]\nscrub_time = {delay}\n")
    for line, delay in (
        (["--config-file", one, *folder], 20),
        ([*folder, "--config-file", one], 1),
        ([*folder, "--config-file", one, *folder], 20),
    ):
        assert loader.load_for(parser.parse_args(line))[0].scrub_time == delay


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--config-file", ""], "--config-file: must name a file"),
        (["--config-file", "."], "--config-file: . is a folder: name it with --config-dir"),
        (["--config-dir", " "], "--config-dir: must name a folder"),
        (["--config-dir", __file__], f"--config-dir: {__file__} is not a folder"),
    ],
)
def test_wrong_path_is_wrong_usage(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--config-file", "--config-dir"])
def test_missing_path_is_a_wrong_configuration(option: str, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    missing = tmp_path / "missing"
    with pytest.raises(loader.ConfigError, match=f"cannot read {missing} "):
        loader.load_for(parser.parse_args([option, str(missing)]))


class TestFolders:
    def test_folder_of_glance_is_read_in_order_of_names(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "api.d").mkdir()
        write("api.d/10.conf", "[DEFAULT]\nscrub_time = 1\nworkers = 4\ndebug = true\n")
        write("api.d/20.conf", "[DEFAULT]\nscrub_time = 2\nlog_file = glance.log\n")
        write("api.d/README", "not a configuration")
        (tmp_path / "api.d/sub.conf").mkdir()
        named = f"[DEFAULT]\nglance_config_files = {tmp_path / 'api.d'}\n"
        conf, own = loader.load([write("evscrub.conf", named)])
        assert conf.scrub_time == 2
        assert (own.debug, own.log_file) == (False, None)

    def test_own_file_in_a_folder_of_glance_stays_own(self, write: Write, tmp_path: Path) -> None:
        own_file = write(
            "evscrub.conf", f"[DEFAULT]\nglance_config_files = {tmp_path}\ndebug = true\n"
        )
        write("glance-api.conf", "[DEFAULT]\nscrub_time = 3\nworkers = 4\n")
        conf, own = loader.load([own_file])
        assert (conf.scrub_time, own.debug) == (3, True)
        write("evscrub.conf", f"[DEFAULT]\nglance_config_files = {tmp_path}\nscrub_tme = 1\n")
        assert "did you mean scrub_time?" in refused([own_file])

    def test_reload_reads_files_that_a_folder_gained_and_lost(
        self, write: Write, tmp_path: Path
    ) -> None:
        (tmp_path / "conf.d").mkdir()
        first = write("conf.d/10.conf", "[DEFAULT]\nglance_config_files = none\nscrub_time = 1\n")
        conf, own = loader.load([str(tmp_path / "conf.d")])
        write("conf.d/20-evscrub.conf", "[DEFAULT]\nscrub_time = 2\ndebug = true\n")
        assert loader.reload(conf, own) == ["[DEFAULT] scrub_time"]
        assert (conf.scrub_time, own.debug) == (2, True)
        (tmp_path / "conf.d/20-evscrub.conf").unlink()
        assert loader.reload(conf, own) == ["[DEFAULT] scrub_time"]
        assert (conf.scrub_time, own.debug) == (1, False)
        write("conf.d/30.conf", "[scruber]\nrate = 1\n")
        with pytest.raises(ConfigError, match=r"did you mean \[scrubber\]"):
            loader.reload(conf, own)
        assert Path(first).exists()

    @pytest.mark.parametrize("of_glance", [True, False])
    def test_folder_that_cannot_be_read_is_named(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, of_glance: bool
    ) -> None:
        def fail(folder: Path) -> None:
            raise PermissionError(13, "Permission denied")

        folder = tmp_path / "conf.d"
        folder.mkdir()
        path = write("evscrub.conf", f"[DEFAULT]\nglance_config_files = {folder}\n")
        monkeypatch.setattr(Path, "iterdir", fail)
        given = [path] if of_glance else [str(folder)]
        assert f"cannot read {folder} (Permission denied)" in refused(given)


class TestWhoseLoggingCounts:
    """Whatever Glance's file is called and wherever it is, its log_file is not evscrub's."""

    LOGGING = "[DEFAULT]\nlog_file = glance-api.log\ndebug = true\nuse_syslog = true\n"
    DATABASE = "[database]\nconnection = sqlite://\n"
    API = "[paste_deploy]\nflavor = keystone\n"
    OWN = "[DEFAULT]\nglance_config_files = none\n"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("glance-api.conf", LOGGING + API),
            ("api.conf", LOGGING + API),
            ("api.conf", LOGGING + "[keystone_authtoken]\nauth_url = http://x\n"),
            ("api.conf", LOGGING + DATABASE),
            ("01-logging.conf", LOGGING),
            ("glance/api.conf", LOGGING + "workers = 3\n"),
            ("glance/conf.d/01-logging.conf", LOGGING + "bind_port = 9292\n"),
            ("glance-api.conf.d/01-logging.conf", LOGGING),
            ("conf.d/01-logging.conf", LOGGING),
            ("evscrub/glance-api.conf", LOGGING),
            ("evscrub/api.conf", LOGGING + API),
        ],
    )
    @pytest.mark.parametrize("folder", [True, False])
    def test_glances_never_do(
        self, write: Write, tmp_path: Path, name: str, text: str, *, folder: bool
    ) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path = write(name, text)
        ours = write("ours.conf", self.OWN)
        given = str(Path(path).parent) if folder and "/" in name else path
        for files in ([given, ours], [ours, given]):
            _, own = loader.load(files)
            assert (own.log_file, own.debug, own.use_syslog) == (None, False, False)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("evscrub.conf", LOGGING),
            ("my-Evscrub.conf", LOGGING),
            ("site.conf", LOGGING + "[scrubber]\nrate = 5\n"),
            ("glance/site.conf", LOGGING + "[Sweep]\ninterval = 5\n"),
            ("evscrub.conf.d/01-logging.conf", LOGGING),
            ("evscrub/conf.d/01-logging.conf", LOGGING),
        ],
    )
    def test_evscrubs_do(self, write: Write, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        glance = write("glance-api.conf", "[DEFAULT]\nlog_file = wrong.log\n")
        _, own = loader.load([write("ours.conf", self.OWN), write(name, text), glance])
        assert (own.log_file, own.debug, own.use_syslog) == ("glance-api.log", True, True)
        assert loader.ignored_logging(own.sources) == []

    def test_a_link_is_followed(self, write: Write, tmp_path: Path) -> None:
        target = write("glance-api.conf", self.LOGGING)
        (tmp_path / "evscrub.conf").symlink_to(target)
        _, own = loader.load([write("ours.conf", self.OWN), str(tmp_path / "evscrub.conf")])
        assert own.log_file is None

    def test_what_is_ignored_is_told_with_its_place(
        self, write: Write, caplog: pytest.LogCaptureFixture
    ) -> None:
        api = write("api.conf", self.LOGGING)
        of_glance = write("glance-api.conf", self.LOGGING)
        _, own = loader.load([write("ours.conf", self.OWN), api, of_glance])
        assert loader.ignored_logging(own.sources) == [
            f"log_file in {api}:2",
            f"debug in {api}:3",
            f"use_syslog in {api}:4",
        ]
        agent = object.__new__(Agent)
        agent._own = own
        agent._warn_of_ignored_logging()
        (record,) = caplog.records
        assert f"log_file in {api}:2" in record.getMessage()
        agent._own = loader.load([write("evscrub.conf", self.OWN + "use_json = true\n")])[1]
        agent._warn_of_ignored_logging()
        assert len(caplog.records) == 1

    def test_misspelled_option_is_refused_although_nothing_tells_whose_the_file_is(
        self, write: Write
    ) -> None:
        ours = write("ours.conf", self.OWN)
        assert "did you mean scrub_time?" in refused(
            [ours, write("x.conf", "[DEFAULT]\nscrub_tme = 86400\n")]
        )


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
