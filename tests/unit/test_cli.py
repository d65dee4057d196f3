# SPDX-License-Identifier: Apache-2.0
"""The command line: what it says and returns where it cannot run."""

import shlex
import subprocess
from pathlib import Path

import pytest
import shtab

from evscrub import cli
from evscrub.config import loader


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["agent", "--nonsense"]])
def test_wrong_usage_is_told_with_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: evscrub" in capsys.readouterr().err


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, (summary, _) in cli.COMMANDS.items():
        assert name in shown
        assert summary.split()[0] in shown


def test_a_configuration_that_is_wrong_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_files: object) -> None:
        raise loader.ConfigError("[sweep] interval: too short")

    monkeypatch.setattr(loader, "load", load)
    assert cli.main(["agent"]) == 2
    assert capsys.readouterr().err == "evscrub: [sweep] interval: too short\n"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "completion"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: evscrub {name}" in shown
    if name != "list":
        assert "Exit codes: 0" in shown.replace("\n", " ").replace(
            "Exit codes, those of oslo.upgradecheck:", "Exit codes:"
        )


def test_only_the_named_command_s_module_is_asked_for_arguments() -> None:
    parser = cli.make_parser(["hold", "check", "--debug"])
    assert parser.parse_args(["hold", "check"]).images == ["check"]
    with pytest.raises(SystemExit):
        parser.parse_args(["check", "--json"])


class TestCompletion:
    @pytest.mark.parametrize("shell", ["zsh", "tcsh"])
    def test_of_other_shells(self, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["completion", shell]) == 0
        shown = capsys.readouterr().out
        assert "config-file" in shown
        assert "restore" in shown

    @pytest.mark.parametrize(
        ("line", "wanted"),
        [
            ("evscrub re", {"restore", "release", "retry"}),
            ("evscrub list --o", {"--owner"}),
            ("evscrub list -f ", {"csv", "json", "table", "value", "yaml"}),
            ("evscrub agent --config-file ev", {"evscrub.conf"}),
            ("evscrub completion ", set(shtab.SUPPORTED_SHELLS)),
        ],
    )
    def test_in_bash(
        self, line: str, wanted: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["completion", "bash"]) == 0
        (tmp_path / "completion").write_text(capsys.readouterr().out)
        (tmp_path / "evscrub.conf").touch()
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
