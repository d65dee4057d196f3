# SPDX-License-Identifier: Apache-2.0
"""The command line: what it says and returns where it cannot run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import shtab

from evscrub import cli, version
from evscrub.config import loader


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the usage and the error of a command line that is wrong."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


@pytest.mark.parametrize(
    ("line", "usage", "wanted"),
    [
        ("", "[-h] [-V]", "name a command; choose from agent, run, "),
        ("nonsense", "[-h] [-V]", "no command 'nonsense'; choose from agent, run, "),
        ("lsit", "[-h] [-V]", "no command 'lsit' (did you mean list?); choose from agent, run,"),
        ("--config-file x hodl", "[-h] [-V]", "no command 'hodl' (did you mean hold?)"),
        (
            "--nonsense",
            "[-h] [-V]",
            "no option --nonsense; the options of a command stand after it",
        ),
        ("--owner x list", "[-h] [-V]", "no option --owner; the options of a command stand after"),
        (
            "--confg-file F list",
            "[-h] [-V]",
            "no option --confg-file (did you mean --config-file?)",
        ),
        ("--debgu list", "list", "no option --debgu (did you mean --debug?)"),
        ("--config-file", "[-h] [-V]", "--config-file: needs a value, FILE"),
        ("agent --nonsense", "agent", "no option --nonsense"),
        ("run --nonsense", "run", "no option --nonsense"),
        ("agent --config_file=x", "agent", "no option --config_file (did you mean --config-file?)"),
        ("demo --image 60 --kep", "demo", "no option --kep (did you mean --keep?)"),
        ("list --onwer=x", "list", "no option --onwer (did you mean --owner?)"),
        ("list --onwer x", "list", "no option --onwer (did you mean --owner?)"),
        ("list x", "list", "unexpected argument: x"),
        ("list --owner", "list", "--owner: needs a value, OWNER"),
        ("list --owner=", "list", "--owner: must not be empty"),
        ("list --limit x", "list", "--limit: must be a whole number from 0 to 2147483647, not 'x'"),
        (
            "list --limit -1",
            "list",
            "--limit: must be a whole number from 0 to 2147483647, not '-1'",
        ),
        ("list --max-width x", "list", "--max-width: must be a whole number from "),
        ("list --agent x", "list", "--agent: must be HOST:PORT, not 'x'"),
        ("list -f jsno", "list", "-f/--format: no 'jsno' (did you mean json?); choose from csv, "),
        ("check --agent x", "check", "--agent: must be HOST:PORT, not 'x'"),
        ("--dry-run sweep", "sweep", "--dry-run must stand after the command"),
        ("demo --images 3.5", "demo", "--images: must be a whole number from 1"),
        ("demo --scrub-time 9999", "demo", "--scrub-time: must be a whole number from 0 to 3600"),
        ("--debug demo", "demo", "this command takes no --debug"),
        ("--config-dir / completion bash", "completion", "no --config-file or --config-dir"),
        (
            "completion bsh",
            "completion",
            "shell: no 'bsh' (did you mean bash?); choose from bash, ",
        ),
    ],
)
def test_wrong_usage_is_told_with_what_is_wanted(
    line: str, usage: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(line.split(), capsys)
    assert said.startswith(f"usage: evscrub {usage}")
    assert wanted in said


def test_no_option_says_only_that_a_value_is_invalid(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of every command that does not take any text says what it wants."""
    for name in cli.COMMANDS:
        parser = cli.make_parser()
        parser.whole()
        command = parser._commands[name]
        for action in command._actions:
            if action.option_strings and action.type is not None:
                said = refused([name, f"{action.option_strings[0]}="], capsys)
                wants = "no ''; choose from " if action.choices else "must "
                assert f"{action.option_strings[-1]}: {wants}" in said, name
                assert "invalid" not in said


def test_no_credentials_of_a_mistake_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "secret" not in refused(["list", "mysql://root:secret@host/glance"], capsys)


def test_interrupted_query_is_no_failure_of_the_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_arguments: object) -> int:
        try:
            try:
                raise KeyboardInterrupt
            finally:
                raise ValueError("the transaction is invalid")
        except ValueError as error:
            raise loader.ConfigError("lost the connection") from error

    monkeypatch.setattr("evscrub.commands.list.main", run)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([option])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"evscrub {version.version_string_with_package()}\n"


def test_help_needs_no_library() -> None:
    """They take ten times as long to import as all that it needs."""
    code = """if True:
        import sys
        from evscrub import cli
        try:
            cli.main(["--help"])
        finally:
            slow = {"oslo_config", "oslo_log", "oslo_messaging", "oslo_utils", "glance_store"}
            print(slow & set(sys.modules), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "exit codes:" in done.stdout
    assert done.stderr == "set()\n"


class TestOptionsBeforeTheCommand:
    @pytest.mark.parametrize(
        "line",
        [
            "--config-file 1 --config-file 2 --debug list --owner o",
            "--config-file=1 --debug list --owner o --config-file=2",
            "--config-file 1 list --debug --config-file 2 --owner o",
            "list --config-file 1 --owner o --config-file 2 --debug",
        ],
    )
    def test_they_add_up_with_those_after_it_in_their_order(self, line: str) -> None:
        parsed = cli.make_parser().parse(line.split())
        assert (parsed.command, parsed.config_file) == ("list", ["1", "2"])
        assert (parsed.debug, parsed.owner) == (True, "o")

    def test_none_is_needed(self) -> None:
        parsed = cli.make_parser().parse(["list"])
        assert (parsed.config_file, parsed.debug) == (None, False)

    def test_value_that_is_named_as_a_command_is_a_value(self) -> None:
        parsed = cli.make_parser().parse(["--config-file", "hold", "restore", "list"])
        assert (parsed.command, parsed.config_file) == ("restore", ["hold"])
        assert parsed.images == ["list"]

    def test_they_take_effect(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], global_configuration: None
    ) -> None:
        wrong = tmp_path / "evscrub.conf"
        wrong.write_text("[scrubber]\nraet = 1\n")
        assert cli.main(["--config-file", str(wrong), "list"]) == os.EX_CONFIG
        assert f"raet in {wrong}:2" in capsys.readouterr().err
        assert cli.main(["--config-dir", str(tmp_path), "list"]) == os.EX_CONFIG
        assert f"raet in {wrong}:2" in capsys.readouterr().err


def test_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_files: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loader, "load", load)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr() == ("", "")


def test_run_is_agent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.COMMANDS["run"][1] == cli.COMMANDS["agent"][1]
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "the same as agent, which is the documented name" in capsys.readouterr().out


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, (summary, _) in cli.COMMANDS.items():
        assert name in shown
        assert summary.split()[0] in shown


def test_wrong_configuration_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_files: object) -> None:
        raise loader.ConfigError("[sweep] interval: too short")

    monkeypatch.setattr(loader, "load", load)
    assert cli.main(["agent"]) == os.EX_CONFIG
    assert capsys.readouterr().err == "evscrub: [sweep] interval: too short\n"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "completion"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: evscrub {name}" in shown
    words = " ".join(shown.split())
    assert "Exit codes: 0" in words.replace(
        "Exit codes, those of oslo.upgradecheck:", "Exit codes:"
    )


def test_only_the_named_command_s_module_is_asked_for_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = cli.COMMANDS | {"broken": ("need what is missing", "no.such.module")}
    monkeypatch.setattr(cli, "COMMANDS", commands)
    assert cli.make_parser().parse(["hold", "check"]).images == ["check"]
    with pytest.raises(ImportError):
        cli.make_parser().parse(["broken"])


class TestCompletion:
    @pytest.mark.parametrize("shell", ["zsh", "tcsh"])
    def test_of_other_shells(self, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["completion", shell]) == 0
        shown = capsys.readouterr().out
        for word in ("config-file", "config-dir", "restore", "run", "yes", "version"):
            assert word in shown

    @pytest.mark.parametrize(
        ("line", "wanted"),
        [
            ("evscrub re", {"restore", "release", "retry"}),
            ("evscrub ru", {"run"}),
            ("evscrub --config-", {"--config-file", "--config-dir"}),
            ("evscrub --config-file ev", {"evscrub.conf", "evscrub.conf.d"}),
            ("evscrub --config-dir ev", {"evscrub.conf.d"}),
            ("evscrub --config-file evscrub.conf --debug rest", {"restore"}),
            ("evscrub --config-file evscrub.conf restore --st", {"--store"}),
            ("evscrub restore --config-dir ev", {"evscrub.conf.d"}),
            ("evscrub hold --file ev", {"evscrub.conf", "evscrub.conf.d"}),
            ("evscrub release --y", {"--yes"}),
            ("evscrub list --o", {"--owner"}),
            ("evscrub list --so", {"--sort-column", "--sort-ascending", "--sort-descending"}),
            ("evscrub list --state d", {"damaged", "due"}),
            ("evscrub sh", {"show"}),
            ("evscrub show -f s", {"shell"}),
            ("evscrub list -f ", {"csv", "json", "table", "value", "yaml"}),
            ("evscrub agent --config-file ev", {"evscrub.conf", "evscrub.conf.d"}),
            ("evscrub completion ", set(shtab.SUPPORTED_SHELLS)),
        ],
    )
    def test_in_bash(
        self, line: str, wanted: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["completion", "bash"]) == 0
        (tmp_path / "completion").write_text(capsys.readouterr().out)
        (tmp_path / "evscrub.conf").touch()
        (tmp_path / "evscrub.conf.d").mkdir()
        words = line.split(" ")
        script = (
            "source ./completion; COMP_WORDS=("
            + " ".join(map(shlex.quote, words))
            + f"); COMP_CWORD={len(words) - 1}; "
            + "$(complete -p evscrub | sed 's/.*-F \\([^ ]*\\).*/\\1/');"
            + " printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert set(done.stdout.split()) == wanted
