# SPDX-License-Identifier: Apache-2.0
"""What is remembered of damaged images."""

from evscrub.telemetry.statistics import Record


def test_damaged_images_are_new_once_and_known_until_a_full_sweep_finds_them_no_more() -> None:
    record = Record()
    record.sweep_begins()
    assert record.found_damaged("a", "reason")
    assert record.found_damaged("b", "reason")
    record.sweep_begins()
    assert record.damaged.keys() == {"a", "b"}  # it has only begun
    assert not record.found_damaged("a", "another")
    record.sweep_begins()
    assert record.damaged == {"a": "another"}
    record.forget("a")
    record.sweep_begins()
    assert record.damaged == {}
