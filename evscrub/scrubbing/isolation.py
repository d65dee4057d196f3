# SPDX-License-Identifier: Apache-2.0
"""Keeps a bad member of a batch from failing the others."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from evscrub.registry.gateway import RegistryAwayError

T = TypeVar("T")


async def apart(
    batch: Sequence[T],
    act: Callable[[Sequence[T]], Awaitable[object]],
    refuse: Callable[[T, Exception], object],
) -> None:
    """Call `act` with a batch; if that raises, with its halves, until the bad members are alone.

    :param act: may be called again for members of a batch for which it raised.
    :param refuse: called with each member for which `act` raises when it is alone.
    :raises RegistryAwayError: `act` raised it, which is not about a member.
    """
    try:
        await act(batch)
    except RegistryAwayError:
        raise
    except Exception as error:  # noqa: BLE001 - passed to refuse
        if len(batch) == 1:
            refuse(batch[0], error)
            return
    else:
        return
    middle = len(batch) // 2
    await apart(batch[:middle], act, refuse)
    await apart(batch[middle:], act, refuse)
