# SPDX-License-Identifier: Apache-2.0
"""What was done to an image, and what may have been deleted of it when."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.chaos.plan import Act, Life

#: A deletion's time in the registry may have been cut to whole seconds, never rounded up by more.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Deed:
    """Something that was done.

    :param begun: seconds since the epoch, as `ended`.
    :param done: whether it came about; else `note` says why not.
    :param due: when the image may be scrubbed after it; None where it may not.
    """

    begun: float
    ended: float
    act: Act
    done: bool
    note: str = ""
    due: float | None = None

    def __str__(self) -> str:
        due = f", due {self.due:.2f}" if self.due else ""
        said = f" ({self.note})" if self.note else ""
        return f"{self.begun:.2f}..{self.ended:.2f} {self.act.value}: {self.done}{said}{due}"


#: What decides whether an image may be scrubbed.
_DECISIVE = {Act.CREATE, Act.DELETE, Act.RESTORE, Act.HOLD, Act.RELEASE}


@dataclass
class Story:
    """An image's life as it went."""

    life: Life
    deeds: list[Deed] = field(default_factory=list)
    #: When the act that is under way began.
    busy_since: float | None = None
    purged: bool = False
    abandoned: str = ""
    taken_off: float | None = None

    @property
    def last(self) -> Deed | None:
        """What decides now."""
        decisive = [deed for deed in self.deeds if deed.act in _DECISIVE and deed.done]
        return decisive[-1] if decisive else None

    @property
    def due(self) -> float | None:
        """When it may be scrubbed, as things are."""
        return self.last.due if self.last else None

    def why_not(self, at: float) -> str | None:
        """Say what speaks against a deletion by evscrub at a time; None if nothing does.

        An act under way counts from its beginning where it keeps the image: had the deletion been
        under way too, the registry would have refused it.
        """
        verdict: str | None = "it was never deleted"
        for deed in self.deeds:
            if deed.act not in _DECISIVE or not deed.done:
                continue
            if deed.begun > at:
                break
            if deed.due is None:
                verdict = f"{deed.act.value} came before"
            elif at >= deed.due - _TOLERANCE:
                verdict = None
            elif at >= deed.ended or verdict is not None:
                verdict = f"it was {deed.due - at:.2f} s too early"
        return verdict
