# SPDX-License-Identifier: Apache-2.0
"""What is remembered of images that failed or are damaged."""

from evscrub.domain.verdict import Outcome, Verdict
from evscrub.telemetry.statistics import Record, Trouble


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


def test_images_that_failed_alike_share_their_record() -> None:
    """Of a store that is not enabled there may be a million images."""
    record = Record()
    for number in range(4):
        # Texts of their own, as rows have them.
        verdict = Verdict(Outcome.CONFIGURATION, "store_not_enabled", hint=f"enable {'it' * 9}")
        trouble = Trouble(verdict, 1, True, "", f"owner {number % 2}")
        record.failed(str(number), trouble)
    assert record.troubles["0"] is record.troubles["2"]
    assert record.troubles["1"] is record.troubles["3"]
    assert [record.troubles[str(n)].owner for n in range(2)] == ["owner 0", "owner 1"]


def test_an_image_that_fails_again_is_the_last_that_failed() -> None:
    record = Record()
    trouble = Trouble(Verdict(Outcome.UNKNOWN, "unexpected"), 1, False, "a", "owner")
    for image_id in "aba":
        record.failed(image_id, trouble)
    assert list(record.troubles) == ["b", "a"]
