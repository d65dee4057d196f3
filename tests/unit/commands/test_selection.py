# SPDX-License-Identifier: Apache-2.0
"""How images are selected in bulk, and when a command asks first."""

from __future__ import annotations

import io
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from evscrub import cli
from evscrub.commands import keep, selection


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: evscrub {arguments[0]} [options] IMAGE [IMAGE ...]\n")
    return said.rpartition(": error: ")[2]


@pytest.mark.parametrize("command", ["restore", "hold", "release"])
class TestWrongUsage:
    def test_nothing_is_selected(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused([command], capsys)
        assert said.startswith("select images by IMAGE, by --file, or by --owner and --store: none")
        assert "none is given" in refused([command, "--yes"], capsys)

    @pytest.mark.parametrize(
        "more", [["x", "--owner", "o"], ["x", "--file", "-"], ["--file", "-", "--store", "s"]]
    )
    def test_selections_contradict_each_other(
        self, command: str, more: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "several are given" in refused([command, *more, "--yes"], capsys)

    @pytest.mark.parametrize("option", ["--owner", "--store", "--file"])
    def test_empty_value_selects_nothing(
        self, command: str, option: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert f"{option}: must not be empty" in refused([command, f"{option}=", "-y"], capsys)
        assert f"{option}: must not be empty" in refused([command, option, " ", "-y"], capsys)

    @pytest.mark.parametrize("option", ["--owner", "--store", "--file"])
    @pytest.mark.parametrize("closed", [True, False])
    def test_there_is_no_terminal_to_ask_on(
        self,
        command: str,
        option: str,
        closed: bool,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(sys, "stdin", None if closed else io.StringIO("y\n"))
        said = refused([command, option, "x"], capsys)
        assert said.startswith("there is no terminal to ask for confirmation on: give --yes")


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("y", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yess\n", False)],
)
def test_only_yes_is_yes(
    answer: str,
    yes: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert selection.confirmed("Hold 3 images?") is yes
    assert capsys.readouterr() == ("", "Hold 3 images? [y/N] ")


def from_file(path: str) -> AbstractContextManager[selection.Selection]:
    arguments = cli.make_parser().parse(["hold", "--file", path, "--yes"])
    return selection.selected(arguments, None, None, held=False)  # type: ignore[arg-type] # not read


class TestFile:
    TEXT = "# a comment\n\n  one \ntwo\r\nthree"

    def test_ids_are_lines_and_are_read_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "ids"
        path.write_text(self.TEXT)
        with from_file(str(path)) as found:
            path.unlink()
            for _ in range(2):
                assert list(found.read(lambda _: None)) == ["one", "two", "three"]
            assert found.count() == 3
            assert found.words == f"images named in {path}"

    def test_standard_input_is_read_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(self.TEXT))
        with from_file("-") as found:
            for _ in range(2):
                assert list(found.read(lambda _: None)) == ["one", "two", "three"]
            assert found.words == "images named in standard input"

    def test_junk_takes_no_memory_and_no_traceback(self, tmp_path: Path) -> None:
        path = tmp_path / "junk"
        path.write_bytes(b"\xff" * 10_000)
        with from_file(str(path)) as found:
            ids = list(found.read(lambda _: None))
        assert "".join(ids) == "\udcff" * 10_000
        assert max(map(len, ids)) <= 4096

    @pytest.mark.parametrize(
        ("path", "reason"),
        [("missing", "No such file or directory"), (".", "Is a directory"), ("-", "it is closed")],
    )
    def test_file_that_cannot_be_read(
        self,
        path: str,
        reason: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(SystemExit) as caught, from_file(path):
            pass
        assert caught.value.code == 2
        assert f"--file: cannot read {path}: {reason}" in capsys.readouterr().err


class TestAsking:
    """Before a command acts in bulk, it shows the number of images."""

    LINE = "images to release: held images of owner o"

    @pytest.fixture(autouse=True)
    def _answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))

    def ask(self, number: int, *more: str) -> int | None:
        def read(on_unreadable: selection.Unreadable) -> list[str]:
            if number:
                on_unreadable("one")
            return ["other"] * (number - 1)

        arguments = cli.make_parser().parse(["release", "--owner", "o", *more])
        return keep._ask(arguments, selection.Selection("held images of owner o", read))

    def test_only_yes_goes_on(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.ask(2) == 1
        question = f"2 {self.LINE}. Go on? [y/N] "
        assert capsys.readouterr().err == f"{question}evscrub: nothing was changed\n"
        assert self.ask(2) is None
        assert capsys.readouterr().err == question

    def test_nothing_is_asked_with_yes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.ask(3, "--yes") is None
        assert capsys.readouterr().err == f"evscrub: 3 {self.LINE}\n"

    @pytest.mark.parametrize("more", [(), ("--yes",)])
    def test_nothing_is_asked_or_done_without_images(
        self, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.ask(0, *more) == 0
        assert capsys.readouterr().err == f"evscrub: 0 {self.LINE}\n"
