# SPDX-License-Identifier: Apache-2.0
"""Names that nobody reads: refused in evscrub's files with the nearest right one suggested."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from oslo_config import cfg
from oslo_log import log

from evscrub import agent, cli
from evscrub.config import check, files, known_options, loader, options, settings
from evscrub.config.loader import ConfigError
from evscrub.telemetry import quiet

pytestmark = pytest.mark.usefixtures("global_configuration")

SAMPLE = Path(__file__).parents[3] / "etc/evscrub/evscrub.conf.sample"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "evscrub.conf"


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return str(path)


def problems(own: Path, *lines: str) -> list[str]:
    """What is said of an evscrub.conf with these lines after two others."""
    path = write(own, "[DEFAULT]", "glance_config_files = none", *lines)
    with pytest.raises(ConfigError) as caught:
        loader.load([path])
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("group", "name", "meant"),
    [
        ("DEFAULT", "scrub_tme", "scrub_time"),
        ("DEFAULT", "scrub-time", "scrub_time"),
        ("DEFAULT", "Scrub_Time", "scrub_time"),
        ("DEFAULT", "SCRUB_TIME", "scrub_time"),
        ("DEFAULT", "glance_config_file", "glance_config_files"),
        ("DEFAULT", "delay_delete", "delayed_delete"),
        ("DEFAULT", "enabled_backend", "enabled_backends"),
        ("DEFAULT", "log_fiel", "log_file"),
        ("DEFAULT", "transport_urll", "transport_url"),
        ("DEFAULT", "rate", "rate in [scrubber]"),
        ("DEFAULT", "not_found_limit", "not_found_limit in [scrubber]"),
        ("DEFAULT", "connection", "connection in [database]"),
        ("DEFAULT", "concurency", "concurrency in [scrubber]"),
        ("scrubber", "scrub_time", "scrub_time in [DEFAULT]"),
        ("Scrubber", "raet", "rate"),
        ("scrubber", "not-found-limit", "not_found_limit"),
        ("sweep", "intervall", "interval"),
        ("listener", "topic", "topics"),
        ("status", "listne", "listen"),
        ("database", "conection", "connection"),
        ("oslo_messaging_rabbit", "rabit_quorum_queue", "rabbit_quorum_queue"),
        ("oslo_messaging_notifications", "topic", "topics"),
        ("glance_store", "filesystem_store_data_dir", "filesystem_store_datadir"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_right_one(
    own: Path, group: str, name: str, meant: str
) -> None:
    lines = [f"{name} = 5"] if group == "DEFAULT" else [f"[{group}]", f"{name} = 5"]
    shown = group if group == "DEFAULT" else group.lower()
    (found,) = problems(own, "# comment", *lines)
    place, _, advice = found.partition(" is no option that evscrub reads; ")
    assert place == f"[{shown}] {name} in {own}:{3 + len(lines)}"
    assert advice == f"did you mean {meant}?"


@pytest.mark.parametrize(
    ("group", "name", "meant"),
    [
        ("scruber", "rate", "[scrubber]"),
        ("default", "scrub_time", "[DEFAULT]"),
        ("Default", "scrub_time", "[DEFAULT]"),
        ("limits", "owner_rate", "[scrubber]"),
        (" scrubber ", "rate", "[scrubber]"),
        ("databse", "connection", "[database]"),
        ("oslo_messaging_notification", "driver", "[oslo_messaging_notifications]"),
    ],
)
def test_an_unknown_group_is_refused_with_the_nearest_right_one(
    own: Path, group: str, name: str, meant: str
) -> None:
    assert problems(own, f"[{group}]", f"{name} = 5") == [
        f"[{group}] in {own}:3 is no group that evscrub reads; did you mean {meant}?"
    ]


def test_an_unknown_group_with_nothing_in_it_is_refused(own: Path) -> None:
    assert len(problems(own, "[scruber]")) == 1


def test_unknown_name_without_a_similar_one_points_to_glances_files(own: Path) -> None:
    found = problems(own, "image_cache_max_size = 5", "[paste_deploy]", "flavor = keystone")
    assert len(found) == 2
    assert all("glance_config_files" in text for text in found)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (["log_file = /var/log/evscrub.log", " scrub_time = 86400"], 4),
        (["log_file =", "\tscrub_time = 86400"], 4),
        (["default_log_levels = a=INFO,", "  b=INFO", "  # comment"], 5),
        (["transport_url = rabbit://host", "  "], None),  # spaces alone end the value
        (["default_log_levels = a=INFO,", "  b=INFO"], None),
    ],
)
def test_indented_line_after_a_value_is_rejected(
    own: Path, value: list[str], line: int | None
) -> None:
    """Without a word `scrub_time` would be a part of the name of the log's file."""
    path = write(own, "[DEFAULT]", "glance_config_files = none", *value)
    if line is None:
        loader.load([path])
        return
    with pytest.raises(ConfigError) as caught:
        loader.load([path])
    (found,) = caught.value.problems
    assert found.startswith(f"[DEFAULT] {value[0].split()[0]} in {own}:3: line {line} is indented,")


def test_indented_line_after_glance_config_files_is_rejected(own: Path) -> None:
    path = write(own, "[DEFAULT]", "glance_config_files = none", "  scrub_time = 86400")
    with pytest.raises(ConfigError, match=":2: line 3 is indented, so it is read as a part"):
        loader.load([path])


def test_an_indented_line_of_glance_s_is_left_to_glance(own: Path, tmp_path: Path) -> None:
    glance = write(tmp_path / "glance-api.conf", "[DEFAULT]", "log_file = x", " y = z")
    loader.load([write(own, "[DEFAULT]", f"glance_config_files = {glance}")])


def test_all_problems_are_reported_together(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(own, "[DEFAULT]", "scrub_tme = 1", "[sweep]", "interval = nan", "[nope]", "x = 1")
    assert cli.main(["agent", "--config-file", path]) == os.EX_CONFIG
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in said] == [
        "evscrub: [sweep] interval",
        "evscrub: [nope]",
        "evscrub: [DEFAULT] scrub_tme",
    ]


def test_unknown_options_fail_a_check(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(own, "[DEFAULT]", "scrub_tme = 1")
    assert cli.main(["check", "--config-file", path]) == 2
    shown = capsys.readouterr().out
    assert "| Check: Configuration" in shown
    assert "| Result: Failure" in shown
    assert cli.main(["check", "--json", "--config-file", path]) == 2
    assert "did you mean scrub_time?" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["list"], ["hold", "x"], ["restore", "x"], ["release", "x"]])
def test_every_command_refuses_them(
    own: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(own, "[DEFAULT]", "scrub_tme = 1")
    assert cli.main([*command, "--config-file", path]) == os.EX_CONFIG
    assert "did you mean scrub_time?" in capsys.readouterr().err


def test_unknown_option_at_a_reload_changes_nothing(
    own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = ("[DEFAULT]", "glance_config_files = none")
    conf, of_own = loader.load([write(own, *start, "scrub_time = 86400")])
    running = object.__new__(agent.Agent)
    running._conf, running._own = conf, of_own
    running._demote = quiet.Demote(lambda _: False)
    write(own, *start, "scrub_tme = 86400")
    running.reload()
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert f"[DEFAULT] scrub_tme in {own}:3 is no option" in record.getMessage()
    assert "did you mean scrub_time?" in record.getMessage()
    assert conf.scrub_time == 86400


def test_glance_s_own_options_may_stand_in_its_files(own: Path, tmp_path: Path) -> None:
    glance_lines = ("[DEFAULT]", "scrub_tme = 1", "workers = 4", "[paste_deploy]", "flavor = x")
    named = write(tmp_path / "api.ini", *glance_lines, "[scrubber]", "raet = 1")
    loader.load([write(own, "[DEFAULT]", f"glance_config_files = {named}", "scrub_time = 1")])


@pytest.mark.parametrize("name", ["glance-api.conf", "glance.conf", "Glance-Cache.conf"])
def test_glance_s_file_may_be_given_as_one_of_ours(own: Path, tmp_path: Path, name: str) -> None:
    glance = write(tmp_path / name, "[DEFAULT]", "workers = 4", "debug = true", "scrub_time = 7")
    ours = write(own, "[DEFAULT]", "glance_config_files = none")
    conf, of_own = loader.load([glance, ours])
    assert conf.scrub_time == 7
    assert of_own.debug is False
    assert of_own.config_file == [ours]
    assert loader.reload(conf, of_own) == []
    assert loader.load([ours, glance])[0].scrub_time == 7


def test_a_file_given_twice_is_glance_s_where_it_is_named_so(own: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "site.conf", "[DEFAULT]", "workers = 4")
    ours = write(own, "[DEFAULT]", f"glance_config_files = {other}")
    loader.load([ours, other])
    with pytest.raises(ConfigError, match="workers"):
        loader.load([write(own, "[DEFAULT]", "glance_config_files = none"), other])


@pytest.mark.parametrize(
    "lines",
    [
        ("[DEFAULT]", "logfile = evscrub.log", "use_json = true"),  # a deprecated name
        ("[SCRUBBER]", "rate = 5", "[Database]", "max_pool_size = 5"),
        ("[oslo_messaging_rabbit]", "rabbit_quorum_queue = true"),
        ("[oslo_messaging_rabbit]", "kombu_reconnect_timeout = 5"),  # a deprecated name
        ("[oslo_messaging_notifications]", "driver = messagingv2", "driver = log"),
        ("[DEFAULT]", "transport_url = rabbit://", "control_exchange = x"),
        ("[oslo_reports]", "log_dir = /tmp", "[oslo_concurrency]", "lock_path = /tmp"),
        ("[keystone_authtoken]", "auth_url = http://x", "username = glance"),
        ("[glance_store]", "stores = file,rbd", "rbd_store_pool = images", "vmware_api_insecure=1"),
        ("[glance_store]", "cinder_volume_type = x", "rootwrap_config = y"),  # may not be installed
        (
            "[DEFAULT]",
            "enabled_backends = Fast:file, ceph:rbd, vol:cinder",
            "[Fast]",
            "filesystem_store_datadir = /x",
            "store_description = quick",
            "[ceph]",
            "rbd_store_pool = images",
            "[vol]",
            "cinder_volume_type = x",
            "[backend_defaults]",
            "filesystem_store_chunk_size = 5",
            "[glance_store]",
            "default_backend = ceph",
        ),
    ],
)
def test_options_of_libraries_are_known(own: Path, lines: tuple[str, ...]) -> None:
    path = write(own, "[DEFAULT]", "glance_config_files = none", *lines)
    sources = check.Sources([files.read(path)], frozenset([path]))
    assert check.problems(sources, {}) == []


def test_a_store_s_group_knows_its_driver_s_options_alone(own: Path) -> None:
    found = problems(own, "enabled_backends = ceph:rbd", "[ceph]", "rbd_store_pol = x", "s3_x = 1")
    assert len(found) == 2
    assert "did you mean rbd_store_pool?" in found[0]


def test_a_store_that_is_not_enabled_has_no_group(own: Path) -> None:
    (found,) = problems(own, "enabled_backends = ceph:rbd", "[fast]", "rbd_store_pool = x")
    assert "[fast]" in found


def test_wrong_value_of_a_stores_option_is_reported(own: Path) -> None:
    (found,) = problems(own, "[glance_store]", "filesystem_store_chunk_size = 0")
    assert found.startswith(f"[glance_store] filesystem_store_chunk_size in {own}:4: ")


def test_every_option_that_we_read_is_known() -> None:
    known = known_options.known_without_stores()
    for group, opts in options.list_opts():
        for opt in opts:
            assert known.has(files.normal_group(group), opt.dest)


def test_the_sample_has_only_known_options(own: Path) -> None:
    lines = SAMPLE.read_text().splitlines()
    values = [line[1:] for line in lines if line.startswith("#") and line[1:2] not in {" ", ""}]
    groups = [line for line in lines if line.startswith("[")]
    assert len(values) > 40
    assert groups
    text = [line.removeprefix("#") for line in lines if line in groups or line[1:] in values]
    path = write(
        own, *(line for line in text if "<None>" not in line and "/etc/glance" not in line)
    )
    sources = check.Sources([files.read(path)], frozenset([path]))
    assert check.problems(sources, {}) == []


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("OS_DEFAULT__SCRUB_TME", "OS_DEFAULT__SCRUB_TIME"),
        ("OS_SCRUBBER__RAET", "OS_SCRUBBER__RATE"),
        ("OS_SCRUBER__CONCURRENCY", "OS_SCRUBBER__CONCURRENCY"),
        ("os_scrubber__rate", "OS_SCRUBBER__RATE"),
        ("OS_SWEEP__EVERY", "OS_SWEEP__INTERVAL"),
    ],
)
def test_a_misspelt_environment_variable_is_refused(variable: str, meant: str) -> None:
    (found,) = check.problems(check.Sources([], frozenset()), {variable: "5"})
    assert found.startswith(f"the environment variable {variable} is no option")
    if variable != "OS_SWEEP__EVERY":
        assert found.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    "environment",
    [
        {"OS_USERNAME": "x", "OS_AUTH_URL": "y", "HOME": "/"},
        {"OS_PLACEMENT_DATABASE__CONNECTION": "x", "OS_KEYSTONE__SOMETHING": "y"},
        {"OS_DEFAULT__DEBUG": "true", "OS_DEFAULT__TRANSPORT_URL": "rabbit://"},
        {"OS_SCRUBBER__RATE": "5", "OS_DEFAULT__SCRUB_TIME": "5"},
    ],
)
def test_other_environment_variables_are_left_alone(environment: Mapping[str, str]) -> None:
    assert check.problems(check.Sources([], frozenset()), environment) == []


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        (("delayed_delete = true",), True),
        (("delayed_delete = true", "scrub_time = 0"), False),
        (("delayed_delete = true", "scrub_time = 5"), False),
        (("delayed_delete = false",), False),
    ],
)
def test_unset_scrub_time_is_a_warning(own: Path, lines: tuple[str, ...], *, warned: bool) -> None:
    conf, _ = loader.load([write(own, "[DEFAULT]", "glance_config_files = none", *lines)])
    said = settings.unset_delay(conf)
    assert bool(said) is warned
    if said:
        assert "default of 0" in said
        assert "right after a DELETE" in said


def test_a_delay_in_glance_s_file_or_the_environment_is_set(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance = write(
        tmp_path / "glance-api.conf", "[DEFAULT]", "delayed_delete = 1", "scrub_time = 0"
    )
    ours = write(own, "[DEFAULT]", f"glance_config_files = {glance}")
    assert settings.unset_delay(loader.load([ours])[0]) is None
    write(tmp_path / "glance-api.conf", "[DEFAULT]", "delayed_delete = 1")
    assert settings.unset_delay(loader.load([ours])[0])
    monkeypatch.setenv("OS_DEFAULT__SCRUB_TIME", "0")
    assert settings.unset_delay(loader.load([ours])[0]) is None


def test_a_reload_that_takes_the_delay_away_warns(
    own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = ("[DEFAULT]", "glance_config_files = none", "delayed_delete = true")
    conf, of_own = loader.load([write(own, *start, "scrub_time = 5")])
    running = object.__new__(agent.Agent)
    running._conf, running._own = conf, of_own
    part = SimpleNamespace(change=lambda _: None, settings=settings.scrubber_settings(conf))
    running.scrubber = running.sweep = part  # type: ignore[assignment] # a stand-in
    running.stores = SimpleNamespace(names=[], change=lambda *_: None)  # type: ignore[assignment] # a stand-in
    running._demote = quiet.Demote(lambda _: False)
    running._store_reloads = SimpleNamespace(soon=lambda: None)  # type: ignore[assignment] # as well
    write(own, *start)
    running.reload()
    assert "scrub_time is set nowhere" in caplog.text


class TestLogging:
    """Options of oslo.log that are right as texts and cannot be followed."""

    @pytest.mark.parametrize(
        "line",
        [
            "log_file = /nosuch/folder/evscrub.log",
            "log_config_append = /nosuch.ini",
            "default_log_levels = garbage",
            "syslog_log_facility = garbage\nuse_syslog = true",
        ],
    )
    def test_logging_problems_at_start_are_reported(
        self,
        own: Path,
        line: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # It would stay for the tests that come after.
        monkeypatch.setattr(log, "set_defaults", lambda **_: None)
        path = write(own, "[DEFAULT]", "glance_config_files = none", line)
        handlers = list(logging.getLogger().handlers)
        try:
            assert cli.main(["agent", "--config-file", path]) == os.EX_CONFIG
        finally:
            logging.getLogger().handlers[:] = handlers
        said = capsys.readouterr().err
        assert said.startswith("evscrub: logging cannot be set up: ")
        assert f"{line.partition(' ')[0]} in {own}:3" in said
        assert len(said.splitlines()) == 1

    @pytest.mark.parametrize("broken", ["", "[loggers]\nkeys = root\n", "garbage", None])
    def test_at_a_reload_they_leave_logging_as_it_is(
        self, own: Path, tmp_path: Path, broken: str | None
    ) -> None:
        start = ("[DEFAULT]", "glance_config_files = none")
        conf, of_own = loader.load([write(own, *start, "scrub_time = 5")])
        ini = tmp_path / "logging.ini"
        if broken is not None:
            ini.write_text(broken)
        write(own, *start, "scrub_time = 6", f"log_config_append = {ini}", "debug = true")
        before = [list(logging.getLogger().handlers), logging.getLogger().level]
        with pytest.raises(ConfigError, match=rf"log_config_append in {own}:4"):
            loader.reload(conf, of_own)
        assert [logging.getLogger().handlers, logging.getLogger().level] == before
        assert conf.scrub_time == 5


def test_a_broken_line_is_not_quoted(own: Path) -> None:
    path = write(own, "[database]", "connection mysql+pymysql//glance-secret")
    with pytest.raises(ConfigError) as caught:
        loader.load([path])
    assert f"{own}:2: " in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["$pa-55word", "$connection"])
def test_a_secret_that_cannot_be_substituted_is_not_quoted(own: Path, text: str) -> None:
    (found,) = problems(own, "[database]", f"connection = mysql://u:{text}@h/x")
    assert found.startswith(f"[database] connection in {own}:4: ")
    assert "55word" not in found


def test_lines_are_counted_across_values_that_go_on(own: Path) -> None:
    path = write(
        own,
        "# first",
        "[listener]",
        "topics = a,",
        "    b",
        "",
        "exchange = x",
        "; comment",
        "pool: y",
        "[Sweep]",
        "interval=5",
    )
    read = files.read(path)
    assert [(s.group, s.name, s.line, s.text) for s in read.settings] == [
        ("listener", "topics", 3, "a,\nb"),
        ("listener", "exchange", 6, "x"),
        ("listener", "pool", 8, "y"),
        ("sweep", "interval", 10, "5"),
    ]
    assert [(header.name, header.line) for header in read.headers] == [
        ("listener", 2),
        ("Sweep", 9),
    ]


def test_reported_line_is_the_effective_one(own: Path, tmp_path: Path) -> None:
    glance = write(tmp_path / "glance-api.conf", "[DEFAULT]", "scrub_time = soon")
    path = write(
        own, "[DEFAULT]", f"glance_config_files = {glance}", "scrub_time = 1", "scrub_time = late"
    )
    with pytest.raises(ConfigError, match=rf"scrub_time in {own}:4: "):
        loader.load([path])


def test_unusable_config_source_is_reported(own: Path) -> None:
    """oslo.config can read options from elsewhere, and asks for them at once."""
    lines = ("config_source = there", "[there]", "driver = remote_file")
    (found,) = problems(own, *lines)
    assert "uri in group [there]" in found


def test_a_configuration_that_is_read_is_the_global_one(own: Path) -> None:
    assert loader.load([write(own, "[DEFAULT]", "glance_config_files = none")])[0] is cfg.CONF


def test_files_that_change_while_they_are_read_are_not_applied(
    own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An editor or a deployment tool may be in the middle of writing them."""
    lines = ("[DEFAULT]", "glance_config_files = none", "scrub_time = 86400")
    conf, of_own = loader.load([write(own, *lines)])
    running = object.__new__(agent.Agent)
    running._conf, running._own = conf, of_own
    running._demote = quiet.Demote(lambda _: False)
    checked = check.problems

    def check_and_truncate(sources: check.Sources) -> list[str]:
        found = checked(sources)
        write(own, *lines[:2])
        return found

    monkeypatch.setattr(check, "problems", check_and_truncate)
    running.reload()  # would change its parts, which are not there
    assert "the files changed while they were read" in caplog.text
