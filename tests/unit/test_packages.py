# SPDX-License-Identifier: Apache-2.0
"""The wheel and the sdist: what is in them, and what they say of themselves."""

import email.message
import email.parser
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from evscrub import cli
from evscrub.commands import data_dir
from evscrub.domain.refusals import CannotRunError

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
#: Folders of etc/ that operators need where evscrub is installed.
SHARED = ("evscrub", "grafana", "man", "prometheus", "systemd")


def files(*folders: str) -> Iterator[str]:
    """Yield the files in folders of the repository."""
    for folder in folders:
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(REPOSITORY))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = str(tmp_path_factory.mktemp("wheel"))
    (path,) = WheelBuilder(str(REPOSITORY)).build(directory=folder, versions=["standard"])
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def install(wheel: zipfile.ZipFile, prefix: Path) -> Path:
    """Install a wheel below a prefix as installers do; return the folder of its packages."""
    site = prefix / "lib/python/site-packages"
    record = []
    for name in wheel.namelist():
        root, _, below = name.partition(".data/data/")
        path = prefix / below if below else site / root
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wheel.read(name))
        record.append(f"{os.path.relpath(path, site)},,")
    (site / f"evscrub-{PROJECT['version']}.dist-info/RECORD").write_text("\n".join(record))
    return site


class TestWheel:
    def test_has_what_operators_need(self, wheel: zipfile.ZipFile) -> None:
        start = f"evscrub-{PROJECT['version']}.data/data/share/evscrub/"
        shared = {name.removeprefix(start) for name in wheel.namelist() if name.startswith(start)}
        assert shared == {
            name.removeprefix("etc/") for name in files(*(f"etc/{f}" for f in SHARED))
        }
        assert shared >= {
            "evscrub/evscrub.conf.sample",
            "grafana/evscrub.json",
            "man/evscrub.8",
            "prometheus/evscrub.rules.yml",
            "systemd/evscrub.service",
            "systemd/evscrub@.service",
        }

    def test_has_the_manual_page_where_man_looks(self, wheel: zipfile.ZipFile) -> None:
        name = f"evscrub-{PROJECT['version']}.data/data/share/man/man8/evscrub.8"
        assert wheel.read(name) == (REPOSITORY / "etc/man/evscrub.8").read_bytes()

    def test_has_the_package_and_nothing_else(self, wheel: zipfile.ZipFile) -> None:
        packaged = {name for name in wheel.namelist() if ".d" not in name.partition("/")[0]}
        assert packaged == set(files("evscrub"))

    def test_says_what_it_is(self, metadata: email.message.Message) -> None:
        assert (metadata["Name"], metadata["Version"]) == ("evscrub", PROJECT["version"])
        assert metadata["Author"] == "evscrub contributors"
        assert metadata["License-Expression"] == "Apache-2.0"
        classifiers = metadata.get_all("Classifier", [])
        assert {"Framework :: AnyIO", "Development Status :: 4 - Beta"} <= set(classifiers)
        urls = dict(url.split(", ", 1) for url in metadata.get_all("Project-URL", []))
        assert urls.keys() == {"Documentation", "Changelog", "Source", "Issues"}

    def test_has_the_extras(self, metadata: email.message.Message) -> None:
        extras = {"mysql", "postgresql", "s3", "swift", "cinder", "vmware", "kafka", "demo"}
        assert set(metadata.get_all("Provides-Extra", [])) >= extras


def test_version_is_semantic() -> None:
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", PROJECT["version"])


def test_changelog_begins_with_the_version() -> None:
    text = (REPOSITORY / "etc/docs/changes.rst").read_text()
    versions = re.findall(r"^(\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)\n-+$", text, re.MULTILINE)
    assert versions[0] == PROJECT["version"]
    numbers = [[int(number) for number in version.split(".")] for version in versions]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.costly
def test_sdist_has_what_the_tests_need(tmp_path: Path) -> None:
    (path,) = SdistBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as opened:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in opened.getnames()}
    top = {".dockerignore", ".gitignore", "LICENSE", "README.rst", "pyproject.toml"}
    assert names - {"PKG-INFO"} == top | set(files(".ci", "devstack", "etc", "evscrub", "tests"))


class TestDataDir:
    def test_of_a_checkout_is_etc(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["--data-dir"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"{REPOSITORY / 'etc'}\n"

    def test_of_a_wheel_is_where_the_installer_put_it(
        self, wheel: zipfile.ZipFile, tmp_path: Path
    ) -> None:
        site = install(wheel, tmp_path)
        code = f"import sys; sys.path.insert(0, {str(site)!r}); from evscrub import cli; cli.main()"
        command = [sys.executable, "-I", "-c", code, "--data-dir"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"{tmp_path / 'share/evscrub'}\n"

    def test_that_is_missing_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(data_dir, "_KNOWN", Path("nothing"))
        with pytest.raises(CannotRunError, match="this installation has no folder share/evscrub"):
            data_dir.data_dir()
