# SPDX-License-Identifier: Apache-2.0
"""The command line: what it says and returns where it cannot run."""

import pytest

from evscrub import cli, config


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
        raise config.ConfigError("[sweep] interval: too short")

    monkeypatch.setattr(config, "load", load)
    assert cli.main(["agent"]) == 2
    assert capsys.readouterr().err == "evscrub: [sweep] interval: too short\n"
