# SPDX-License-Identifier: Apache-2.0
"""What it means that a store does not have an image's data."""

from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain.proof import (
    OTHERS_SECONDS,
    STILL_MISSING_SECONDS,
    Missing,
    Proof,
    ProofResult,
)
from evscrub.domain.verdict import (
    NO_PROOF,
    NOT_FOUND,
    TOO_MANY_MISSING,
    TOO_MANY_OF_ONE,
    WRONG_FOR_ONE,
    WRONG_STORE,
    Outcome,
)

NO_WITNESS = Proof(ProofResult.NO_WITNESS)
LATER = STILL_MISSING_SECONDS


def reasons(
    missing: Missing,
    count: int,
    now: float,
    owners: str = "ab",
    part: str = "p",
    proof: Proof = NO_WITNESS,
) -> list[str]:
    """Judge so many images, of owners in turn; the same ones each time."""
    return [
        missing.judge(proof, part, owners[n % len(owners)], f"i{n}", now, row_id=n + 1).reason
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 100])
def test_present_witness_proves_any_number(count: int) -> None:
    missing = Missing(20)
    right = Proof(ProofResult.RIGHT)
    assert {missing.judge(right, "p", "o", f"i{n}", 0, row_id=1) for n in range(count)} == {
        NOT_FOUND
    }
    assert missing.is_provable


def test_absent_witness_stops_at_the_first_image() -> None:
    wrong = Proof(ProofResult.WRONG, "live", 7, frozenset({"o", "other"}))
    verdict = Missing(20).judge(wrong, "p", "o", "i", 0, row_id=1)
    assert verdict.reason == WRONG_STORE
    assert verdict.hint == "image live is active, and its 7 bytes are not there"


class TestWithAnOldWitnessAbsent:
    """After a lazy unmount the mount point has what was uploaded since."""

    DOUBT = Proof(ProofResult.RIGHT_FOR_YOUNGER, "old", 7, frozenset("a"), row_id=25)

    def test_data_that_is_younger_than_the_witness_is_gone(self) -> None:
        verdicts = reasons(Missing(20), 100, 0, proof=self.DOUBT)
        assert verdicts == ["unproven"] * 25 + ["not_found"] * 75

    def test_older_data_is_counted(self) -> None:
        missing = Missing(20)
        for now in (0, LATER):
            verdicts = reasons(missing, 19, now, proof=self.DOUBT)
        assert verdicts == ["not_found"] * 19
        assert reasons(missing, 25, LATER, proof=self.DOUBT)[-1] == TOO_MANY_MISSING
        (verdict,) = {
            missing.judge(self.DOUBT, "p", owner, "i25", LATER, row_id=25) for owner in "ab"
        }
        assert verdict.hint == "20 images are not there, and neither is image old, which is active"
        assert missing.is_provable

    def test_data_that_is_found_meanwhile_proves_nothing(self) -> None:
        """It may be younger, and then it is not in the file system that is missing."""
        missing = Missing(20)
        reasons(missing, 25, 0, proof=self.DOUBT)
        missing.found("p", "a", "another", 1)
        assert reasons(missing, 25, LATER, proof=self.DOUBT) == [TOO_MANY_MISSING] * 25

    def test_what_was_proven_without_the_doubt_is_judged_again(self) -> None:
        missing = Missing(20)
        reasons(missing, 5, 0)
        missing.found("p", "a", "another", 1)
        assert reasons(missing, 5, 2, proof=self.DOUBT) == ["unproven"] * 5
        assert reasons(missing, 5, 2) == ["not_found"] * 5

    def test_an_image_that_is_found_or_proven_is_not_counted_any_more(self) -> None:
        missing = Missing(20)
        reasons(missing, 25, 0, proof=self.DOUBT)
        younger = self.DOUBT._replace(row_id=22)
        assert reasons(missing, 25, 1, proof=younger)[22:] == ["not_found"] * 3
        for number in (21, 20, 19):
            missing.found("p", "ab"[number % 2], f"i{number}", 1)
        assert reasons(missing, 19, LATER, proof=self.DOUBT) == ["not_found"] * 19

    def test_the_count_ends_with_the_doubt(self) -> None:
        missing = Missing(20)
        reasons(missing, 25, 0, proof=self.DOUBT)
        assert reasons(missing, 1, 1, proof=Proof(ProofResult.RIGHT)) == ["not_found"]
        assert reasons(missing, 25, LATER, proof=self.DOUBT) == ["unproven"] * 25

    def test_a_pass_takes_nothing_as_gone(self) -> None:
        missing = Missing(20, trusts_few=False)
        for now in (0, LATER, 100 * LATER):
            assert reasons(missing, 5, now, proof=self.DOUBT) == ["unproven"] * 5


@pytest.mark.parametrize("owner", ["o", None])
def test_images_of_one_owner_do_not_pause_the_store(owner: str | None) -> None:
    """Whoever may write locations can have an active image whose data is another's, or none."""
    wrong = Proof(ProofResult.WRONG, "live", 7, frozenset({owner}))
    verdict = Missing(20).judge(wrong, "p", owner, "i", 0, row_id=1)
    assert (verdict.outcome, verdict.reason) == (Outcome.STORE_TROUBLE, WRONG_FOR_ONE)
    assert Missing(20).judge(wrong, "p", "another", "i", 0, row_id=1).reason == WRONG_STORE


def test_no_proof_without_an_answer() -> None:
    missing = Missing(20)
    for now in range(100):
        assert missing.judge(Proof(ProofResult.UNKNOWN), "p", "o", "i", now, row_id=1) is NO_PROOF


@pytest.mark.parametrize("result", ProofResult)
def test_limit_of_zero_takes_any_missing_data_as_gone(result: ProofResult) -> None:
    assert Missing(0).judge(Proof(result), "p", "o", "i", 0, row_id=1) is NOT_FOUND


class TestWithoutWitness:
    def test_few_images_that_stay_missing_are_gone(self) -> None:
        missing = Missing(20)
        assert reasons(missing, 19, 0) == ["unproven"] * 19
        assert reasons(missing, 19, LATER - 0.1) == ["unproven"] * 19
        assert reasons(missing, 19, LATER) == ["not_found"] * 19
        assert missing.is_provable is False

    @pytest.mark.parametrize("pause", [0.1, 1.0, LATER, 3600.0])
    @pytest.mark.parametrize("owners", ["a", "ab", "abcdefg"])
    def test_slow_rate_does_not_hide_a_wrong_store(self, owners: str, pause: float) -> None:
        """Each is asked for again in time, so that few are missing at once."""
        missing, now, gone = Missing(20), 0.0, 0
        waiting: deque[tuple[float, str, str]] = deque()
        fresh = ((owner, f"i{n}") for n, owner in enumerate(itertools.cycle(owners)))
        while True:
            now += pause
            if waiting and waiting[0][0] <= now:
                _, owner, image_id = waiting.popleft()
            else:
                owner, image_id = next(fresh)
            reason = missing.judge(NO_WITNESS, "p", owner, image_id, now, row_id=1).reason
            if reason == "unproven":
                waiting.append((now + LATER, owner, image_id))
            elif reason == "not_found":
                gone += 1
                assert gone < 20
            else:
                break
        assert reason == (TOO_MANY_OF_ONE if owners == "a" else TOO_MANY_MISSING)

    def test_found_data_resets_the_count(self) -> None:
        missing = Missing(20)
        for _ in range(5):
            reasons(missing, 19, 0)
            assert reasons(missing, 19, LATER) == ["not_found"] * 19
            missing.found("p", "a", "another", LATER)

    def test_too_many_missing_images_pause_the_store(self) -> None:
        missing = Missing(20)
        assert reasons(missing, 20, 0) == ["unproven"] * 20
        assert reasons(missing, 20, LATER) == [TOO_MANY_MISSING] * 20

    @pytest.mark.parametrize("limit", [2, 3, 20])
    def test_many_missing_images_of_one_owner_have_their_own_reason(self, limit: int) -> None:
        missing = Missing(limit)
        assert reasons(missing, 10 * limit, 0, "a") == ["unproven"] * 10 * limit
        for now in (LATER, 100 * LATER):
            assert reasons(missing, 10 * limit, now, "a") == [TOO_MANY_OF_ONE] * 10 * limit

    def test_images_not_judged_yet_may_be_missing_too(self) -> None:
        """A slow store answers for the first one twice before it answers for the others."""
        missing = Missing(20)

        def judge(image_id: str, now: float, unjudged: int) -> str:
            return missing.judge(
                NO_WITNESS, "p", "a", image_id, now, row_id=1, unjudged=unjudged
            ).reason

        assert [judge(f"i{n}", 0, 100) for n in range(5)] == ["unproven"] * 5
        assert judge("i0", LATER, 15) == "unproven"
        assert judge("i0", 2 * LATER, 14) == "not_found"
        assert judge("i1", 2 * LATER, 15) == "unproven"
        assert judge("i1", OTHERS_SECONDS - 0.1, 15) == "unproven"
        assert judge("i1", OTHERS_SECONDS, 15) == "not_found"

    def test_few_images_are_not_gone_where_few_are_not_trusted(self) -> None:
        """A process that ends soon counts from zero each time."""
        missing = Missing(20, trusts_few=False)
        for now in (0, LATER, 100 * LATER):
            assert reasons(missing, 5, now) == ["unproven"] * 5
        missing.found("p", "a", "another", 1)
        assert reasons(missing, 5, 101 * LATER) == ["not_found"] * 5
        assert missing.judge(Proof(ProofResult.RIGHT), "p", "a", "i", 0, row_id=1) is NOT_FOUND

    def test_found_data_proves_images_missing_before(self) -> None:
        missing = Missing(20)
        reasons(missing, 50, 0, "abcdefgh")
        missing.found("p", "a", "another", 0.1)
        assert reasons(missing, 50, 0.2, "abcdefgh") == ["not_found"] * 50
        assert reasons(missing, 50, 0.3, "abcdefgh") == ["unproven"] * 50

    def test_found_data_does_not_prove_images_missing_since(self) -> None:
        """Its answer may be taken in late; a file system was unmounted in between."""
        missing = Missing(20)
        reasons(missing, 10, 0)
        reasons(missing, 50, 2, "abcdefgh")
        missing.found("p", "a", "another", 1)
        assert reasons(missing, 10, 2.1) == ["not_found"] * 10
        assert reasons(missing, 50, 2.2, "abcdefgh")[10:] == ["unproven"] * 40
        assert set(reasons(missing, 50, 2 + LATER, "abcdefgh")) == {TOO_MANY_MISSING}

    def test_images_taken_as_gone_still_count(self) -> None:
        missing = Missing(20)
        reasons(missing, 19, 0)
        reasons(missing, 19, LATER)
        missing.found("p", "a", "another", 1)
        assert (
            missing.judge(NO_WITNESS, "p", "c", "x", 2 * LATER, row_id=1).reason == TOO_MANY_MISSING
        )

    def test_data_found_in_another_part_proves_nothing(self) -> None:
        missing = Missing(20)
        reasons(missing, 20, 0)
        missing.found("q", "a", "another", 1)
        assert reasons(missing, 20, LATER) == [TOO_MANY_MISSING] * 20

    def test_parts_are_counted_separately(self) -> None:
        missing = Missing(20)
        for part in "pqrs":
            reasons(missing, 19, 0, part=part)
        assert reasons(missing, 19, LATER, part="p") == ["not_found"] * 19

    def test_clear_forgets_all_missing_images(self) -> None:
        missing = Missing(20)
        reasons(missing, 20, 0)
        missing.clear()
        assert reasons(missing, 20, LATER) == ["unproven"] * 20

    def test_a_limit_that_is_applied_again_counts_on(self) -> None:
        missing = Missing(20)
        reasons(missing, 20, 0)
        missing.change(20)
        assert reasons(missing, 20, LATER) == [TOO_MANY_MISSING] * 20

    def test_a_new_limit_counts_from_zero(self) -> None:
        missing = Missing(20)
        reasons(missing, 20, 0)
        missing.change(21)
        assert reasons(missing, 20, LATER) == ["unproven"] * 20
        assert reasons(missing, 20, 2 * LATER) == ["not_found"] * 20

    def test_many_parts_owners_and_images_take_bounded_memory(self) -> None:
        missing = Missing(3)
        for number in range(30_000):
            owner = str(number % 7000)
            missing.judge(NO_WITNESS, f"p{number % 600}", owner, f"i{number}", 0, row_id=1)
            missing.found(f"p{number % 50}", owner, "another", 0)
        for number in range(30_000):
            missing.judge(NO_WITNESS, "p", str(number), f"i{number}", 0, row_id=1)
        assert len(missing._parts) <= 256
        assert len(missing._proven) <= 10_000 + 3000
        assert all(len(part._since) <= 1000 for part in missing._parts.values())

    @given(
        st.integers(2, 6),
        st.lists(
            st.tuples(
                st.sampled_from("pq"),
                st.sampled_from("abc"),
                st.integers(0, 12),
                st.sampled_from([0.0, 0.5, LATER]),
                st.booleans(),
            ),
            max_size=60,
        ),
    )
    def test_nothing_is_gone_when_first_missing(
        self, limit: int, events: list[tuple[str, str, int, float, bool]]
    ) -> None:
        missing = Missing(limit)
        seen: set[tuple[str, str]] = set()
        now = 0.0
        for part, owner, number, pause, found in events:
            now += pause
            image_id = f"{owner}{number}"
            if found:
                missing.found(part, owner, "another", now)
            verdict = missing.judge(NO_WITNESS, part, owner, image_id, now, row_id=1)
            if verdict is NOT_FOUND:
                assert (part, image_id) in seen
                seen.discard((part, image_id))
            else:
                seen.add((part, image_id))
