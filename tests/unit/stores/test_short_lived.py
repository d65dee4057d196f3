# SPDX-License-Identifier: Apache-2.0
"""Clients that are shared for some seconds."""

from __future__ import annotations

from evscrub.stores.short_lived import ShortLived


class Client:
    """Says whether it was closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_clients_of_all_keys_are_closed_when_they_are_old() -> None:
    now = 0.0
    clients: ShortLived[Client] = ShortLived(lambda: now)
    made = [clients.get(key, Client) for key in range(3)]
    assert [clients.get(key, Client) for key in range(3)] == made
    now = 10.9
    other = clients.get("other", Client)
    assert not any(client.is_closed for client in made)
    now = 11.0
    assert clients.get("other", Client) is other
    assert all(client.is_closed for client in made)
    assert not other.is_closed
    now = 12.0
    assert clients.get(0, Client) not in made
