# SPDX-License-Identifier: Apache-2.0
"""Keep a bad member of a batch from holding up the others."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from evscrub.registry.gateway import RegistryAwayError

T = TypeVar("T")


async def apart(
    batch: Sequence[T],
    act: Callable[[Sequence[T]], Awaitable[object]],
    refuse: Callable[[T, Exception], object],
) -> None:
    """Act on a batch, and where that raises, on its halves, until what is bad is alone.

    :param act: may be called again for members of a batch for which it raised.
    :param refuse: told of each member that `act` raises for when it is alone.
    :raises RegistryAwayError: `act` raised it, which says nothing of its batch.
    """
    try:
        await act(batch)
    except RegistryAwayError:
        raise
    except Exception as error:  # noqa: BLE001 - it is handed on
        if len(batch) == 1:
            refuse(batch[0], error)
            return
    else:
        return
    middle = len(batch) // 2
    await apart(batch[:middle], act, refuse)
    await apart(batch[middle:], act, refuse)
