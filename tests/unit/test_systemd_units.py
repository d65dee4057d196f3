# SPDX-License-Identifier: Apache-2.0
"""The systemd units: instances that share a host, and what they restart after."""

import re
from pathlib import Path

import pytest

from evscrub.config import loader
from evscrub.config.loader import ConfigError
from evscrub.config.option_types import Integer
from evscrub.config.options import GROUPS
from evscrub.config.settings import status_address
from evscrub.domain.refusals import CannotRunError, UnavailableError, UsageError

UNITS = Path(__file__).parents[2] / "etc/systemd"
ONE, TEMPLATE = UNITS / "evscrub.service", UNITS / "evscrub@.service"


def values(unit: Path, name: str) -> list[str]:
    """Return the values of an option, one for each line that sets it."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def listens_on(instance: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where an instance of the template listens, by the unit's own environment."""
    (environment,) = values(TEMPLATE, "Environment")
    name, _, value = environment.replace("%i", instance).partition("=")
    monkeypatch.setenv(name, value)
    conf, _ = loader.load([])
    return str(status_address(conf))


def test_units_differ_in_the_instance_alone() -> None:
    one, template = (unit.read_text().splitlines() for unit in (ONE, TEMPLATE))
    added = [line for line in template if line not in one]
    assert [line for line in one if line not in template] == [one[1]]
    assert added[0] == f"{one[1]}, agent %i"
    assert added[-1] == "Environment=OS_STATUS__PORT_OFFSET=%i"
    assert all(line.startswith("#") for line in added[1:-1])


@pytest.mark.usefixtures("global_configuration")
class TestInstances:
    @pytest.mark.parametrize(
        ("instance", "address"),
        [("1", "127.0.0.1:9754"), ("2", "127.0.0.1:9755"), ("10", "127.0.0.1:9763")],
    )
    def test_each_has_a_status_port(
        self, instance: str, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert listens_on(instance, monkeypatch) == address

    @pytest.mark.parametrize("instance", ["blue", "-1", "", "1.5", "65535"])
    def test_instance_that_gives_no_port_is_a_wrong_configuration(
        self, instance: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ConfigError, match=r"\[status\] port_offset"):
            listens_on(instance, monkeypatch)

    def test_sum_that_is_no_port_is_a_wrong_configuration(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OS_STATUS__LISTEN", "127.0.0.1:65000")
        with pytest.raises(ConfigError, match="port_offset is 536, which added to the port of"):
            listens_on("536", monkeypatch)

    @pytest.mark.parametrize(
        ("listen", "address"),
        [
            ("0.0.0.0:8000", "0.0.0.0:8001"),
            ("[::1]:8000", "[::1]:8001"),
            ("none", "None"),
            ("localhost:0", "localhost:0"),  # any free port
        ],
    )
    def test_host_of_the_file_is_kept(
        self, listen: str, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OS_STATUS__LISTEN", listen)
        assert listens_on("1", monkeypatch) == address


@pytest.mark.parametrize("unit", [ONE, TEMPLATE], ids=lambda unit: unit.name)
class TestUnit:
    def test_restarts_while_the_database_is_away_and_not_after_a_typo(self, unit: Path) -> None:
        (prevented,) = values(unit, "RestartPreventExitStatus")
        assert {int(code) for code in prevented.split()} == {
            UsageError.exit_code,
            ConfigError.exit_code,
        }
        others = {CannotRunError.exit_code, UnavailableError.exit_code}
        assert others.isdisjoint(map(int, prevented.split()))
        assert values(unit, "Restart") == ["on-failure"]
        assert values(unit, "StartLimitIntervalSec") == ["0"]

    def test_file_stores_are_mounted_before_it_starts(self, unit: Path) -> None:
        (writable,) = values(unit, "ReadWritePaths")
        assert values(unit, "RequiresMountsFor") == [writable.lstrip("-")]
        assert "remote-fs.target" in " ".join(values(unit, "After")).split()

    def test_stop_waits_for_running_deletes(self, unit: Path) -> None:
        (drain,) = (opt for opt in GROUPS["scrubber"] if opt.dest == "drain_timeout")
        (stop,) = values(unit, "TimeoutStopSec")
        assert int(stop) > drain.default

    def test_each_delete_has_its_connections(self, unit: Path) -> None:
        (concurrency,) = (opt for opt in GROUPS["scrubber"] if opt.dest == "concurrency")
        assert isinstance(concurrency.type, Integer)
        assert concurrency.type.max is not None
        (files,) = values(unit, "LimitNOFILE")
        assert int(files) > 2 * concurrency.type.max

    def test_its_folders_are_made(self, unit: Path) -> None:
        assert values(unit, "LogsDirectory") == ["evscrub"]
        assert values(unit, "StateDirectory") == ["evscrub"]
