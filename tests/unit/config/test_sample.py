# SPDX-License-Identifier: Apache-2.0
"""The sample configuration says what the options are."""

from __future__ import annotations

from pathlib import Path

from oslo_config import cfg, generator

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "etc/evscrub/evscrub.conf.sample"


def test_sample_is_not_stale(tmp_path: Path) -> None:
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    made = tmp_path / "sample"
    source = str(ROOT / "etc/evscrub/evscrub-config-generator.conf")
    conf(["--config-file", source, "--output-file", str(made)])
    generator.generate(conf)
    assert made.read_text() == SAMPLE.read_text(), (
        "run: oslo-config-generator --config-file etc/evscrub/evscrub-config-generator.conf"
    )
