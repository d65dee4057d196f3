# SPDX-License-Identifier: Apache-2.0
"""Make the deletes of a swift store share Keystone's tokens, and connections to Swift.

The driver creates a client for each delete. Each client asks Keystone for a token, and opens a
connection to Keystone and one to Swift.
"""

import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from types import ModuleType, SimpleNamespace
from typing import Any

from evscrub.stores.faults import Driver
from evscrub.stores.short_lived import CONNECTIONS, ShortLived

#: How long a try to get an answer of Swift or Keystone takes, as with boto3 for S3. The driver
#: itself sets no limit. Swift is asked up to six times.
ANSWER_SECONDS = 60.0
#: How long a token is used. It has the roles that its user had when it was made.
TOKEN_SECONDS = 60.0
#: Answers to requests with a token of somebody who may not do that, at least not with this token.
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
#: Answers after which swiftclient uses its connection no more: a late answer may follow on it.
_CUT_OFF = frozenset({HTTPStatus.REQUEST_TIMEOUT, 499})


@dataclass(frozen=True, slots=True)
class _Token:
    """What Keystone answered: where Swift is, and what it accepts."""

    url: str
    text: str
    since: float


class _Tokens:
    """Tokens by whom they are for.

    Without a lock, so that a thread that waits for Keystone does not delay others. If two threads
    ask or forget at the same time, one of the changes may be lost, which costs a request.

    :param clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens: dict[Hashable, _Token] = {}

    def get(self, key: Hashable, ask: Callable[[], tuple[str, str]]) -> _Token:
        """Return a token that is not older than :data:`TOKEN_SECONDS`.

        :param ask: asks for another one.
        """
        now, known = self._clock(), self._tokens.get(key)
        if known is None or now - known.since >= TOKEN_SECONDS:
            known = _Token(*ask(), now)
            fresh = {
                each: token
                for each, token in self._tokens.items()
                if now - token.since < TOKEN_SECONDS
            }
            self._tokens = fresh | {key: known}
        return known

    def forget(self, refused: _Token) -> None:
        """Remove a token that Swift does not accept."""
        self._tokens = {key: each for key, each in self._tokens.items() if each != refused}


def share(clock: Callable[[], float] = time.monotonic) -> None:
    """Let the driver use shared tokens and connections, if it is imported and does not do so yet.

    :param clock: returns monotonic seconds.
    """
    driver: Driver = sys.modules.get("glance_store._drivers.swift.store")
    if driver is None or not isinstance(driver.swiftclient, ModuleType):
        return
    client = partial(_client(driver.swiftclient, clock), timeout=ANSWER_SECONDS)
    driver.swiftclient = SimpleNamespace(**vars(driver.swiftclient) | {"Connection": client})
    # What reads data asks Keystone by another way.
    session = partial(driver.ks_session.Session, timeout=ANSWER_SECONDS)
    driver.ks_session = SimpleNamespace(**vars(driver.ks_session) | {"Session": session})


def _client(swiftclient: Any, clock: Callable[[], float]) -> type:  # noqa: ANN401 - it is not typed
    """Return swiftclient's class of clients, with what all of them share."""
    tokens = _Tokens(clock)
    sessions: ShortLived[Any] = ShortLived(clock)

    class Client(swiftclient.Connection):  # type: ignore[misc] # it is not typed
        _given: _Token | None = None

        def get_auth(self) -> tuple[str, str]:
            """Return where Swift is, and a token that Swift has not refused."""
            self._forget()
            options = repr(sorted(self.os_options.items()))
            trust = (self.cacert, self.insecure)
            key = (self.authurl, self.user, self.key, self.auth_version, options, trust)
            self._given = tokens.get(key, super().get_auth)
            self.url, self.token = self._given.url, self._given.text
            return self.url, self.token

        def _retry(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
            try:
                return super()._retry(*arguments, **options)
            except swiftclient.ClientException as error:
                if error.http_status not in _REFUSED or self._given is None:
                    raise
                self._forget()
                if error.http_status == HTTPStatus.FORBIDDEN or self.user:
                    raise
                # Only with a password does swiftclient itself ask for a second token.
                return super()._retry(*arguments, **options)

        def _forget(self) -> None:
            if self._given is not None:
                tokens.forget(self._given)

        def http_connection(self, url: str | None = None) -> Any:  # noqa: ANN401 - as above
            parsed, connection = super().http_connection(url)
            key = (parsed.scheme, parsed.netloc, self.cacert, self.insecure)
            session = connection.request_session
            connection.request_session = sessions.get(key, lambda: _with_room(session))
            return parsed, connection

        def close(self) -> None:
            """Keep the connections, which are shared."""
            self.http_conn = None

    return Client


def _with_room(session: Any) -> Any:  # noqa: ANN401 - as above
    """Let a session of requests keep more than ten connections, but none that is cut off."""
    for scheme, adapter in list(session.adapters.items()):
        session.mount(scheme, type(adapter)(pool_maxsize=CONNECTIONS))
    session.hooks["response"].append(_leave_if_cut_off)
    return session


def _leave_if_cut_off(response: Any, **_: object) -> None:  # noqa: ANN401 - as above
    if response.status_code in _CUT_OFF:
        response.close()  # before its body is read, which would keep the connection
