# SPDX-License-Identifier: Apache-2.0
"""The part of the operator's limits that an agent may use beside the others of its group."""

from fractions import Fraction

import anyio

from evscrub.domain.clock import Clock, Moment

WHOLE = Fraction(1)
_LOOK_SECONDS = 1.0


class ShareGate:
    """Tells whether an agent may use its share of the limits at this moment.

    A share expires, because the other members take it up when this agent's membership does. A
    process that was frozen meanwhile therefore finds its gate closed.

    :param clock: this host's clocks.
    """

    def __init__(self, clock: Clock) -> None:
        self.part = WHOLE  #: part of the limits, from 0 for none to 1
        self._clock = clock
        self._renewal: tuple[Moment, float] | None = None
        self._changed = anyio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the share may be used now."""
        if not self.part or self._renewal is None:
            return bool(self.part)
        renewed, valid_seconds = self._renewal
        return self._clock.since(renewed) < valid_seconds

    def renew(self, moment: Moment, valid_seconds: float) -> None:
        """Let the share expire this long after `moment`; before the first call it never does.

        Thread-safe.
        """
        self._renewal = moment, valid_seconds

    def change(self, part: Fraction) -> None:
        """Change the share, or tell that an expired one was renewed; wakes those that wait.

        :param part: from 0 to 1.
        """
        self.part = part
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        """Wait until the share may be used."""
        while not self.is_open:
            # An expired share may be renewed without a change.
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._changed.wait()
