# SPDX-License-Identifier: Apache-2.0
"""Talk to the coordinator, through tooz.

tooz is imported on first use: it comes with the extra ``coordination``, and takes a while to load.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from evscrub.coordination import capabilities
from evscrub.coordination.capabilities import Published
from evscrub.telemetry.redact import redact

#: Drivers whose ``timeout`` is that of a membership, not of a request.
_SESSION_DRIVERS = ("file", "zookeeper", "kazoo")
#: Drivers with locks alone; the check of their class needs their client libraries.
_LOCK_DRIVERS = ("mysql", "postgresql", "ipc", "kubernetes")
_REASON_CHARACTERS = 200


class CoordinatorAwayError(Exception):
    """The coordinator cannot be reached, or does not answer as tooz expects.

    Its text has no credentials.
    """


@dataclass(frozen=True, slots=True)
class Seen:
    """The other members of the group.

    :param others: what each published, by member; None if that cannot be read.
    :param joined: whether this agent had to join, for the first time or again.
    """

    others: Mapping[str, Published | None] = field(default_factory=dict)
    joined: bool = False


class Coordinator:
    """A member's connection to the coordinator. Used by one thread.

    :param url: the ``backend_url`` of tooz; it may hold a password.
    :param group: name of the group.
    :param member_id: name of this member, unique.
    :param membership_seconds: time without a heartbeat after which the coordinator drops a member.
    :param request_seconds: longest time of a request, and of an attempt until its last request.
    :param now: returns seconds of a clock that only goes forward.
    :raises ValueError: tooz or the driver is missing, the URL is invalid, or the driver has no
        groups.
    """

    def __init__(
        self,
        url: str,
        group: str,
        member_id: str,
        membership_seconds: int,
        request_seconds: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import tooz  # noqa: PLC0415 - an extra
            from tooz import coordination  # noqa: PLC0415 - an extra
        except ImportError:
            raise ValueError(
                "[coordination] backend_url is set, but tooz is not installed: install"
                " evscrub[coordination]"
            ) from None
        self._tooz = coordination
        self._not_implemented = tooz.NotImplemented
        self._request_seconds = request_seconds
        self._now = now
        self._ends_at = 0.0  # when an attempt begins no further request
        self._url = url
        self._group = group.encode()
        self._name = member_id
        self._renamed = False
        self._options: dict[str, Any] = {
            "timeout": request_seconds,
            "membership_timeout": membership_seconds,
            # This class has a thread already, and tooz's would hold up the end of the process.
            "executor": "synchronous",
        }
        if url.partition(":")[0].lower() in _SESSION_DRIVERS:
            self._options["timeout"] = membership_seconds
        # Redis has further ones. The URL that other services use may set them to a minute, in which
        # shares expire.
        for name in ("socket_timeout", "socket_connect_timeout"):
            self._options[name] = request_seconds
        self._driver: Any = None
        self._check_driver()

    @property
    def member_id(self) -> str:
        """The name of this member in the group."""
        return f"{self._name}+" if self._renamed else self._name

    def beat(self, published: Published) -> Seen:
        """Tell the coordinator that this member lives, and read the others; connect if necessary.

        :param published: what to publish if this agent must join the group.
        :raises CoordinatorAwayError: it could not be done.
        """
        with self._translated():
            is_new = self._driver is None
            if is_new:
                self._driver = self._connected()
            self._driver.heartbeat()
            members = self._members()
            # A membership of an earlier connection is not kept alive by this one.
            joined = is_new or self.member_id not in members
            if joined:
                self._join(published)
                members = self._members()
            return Seen(self._others(members), joined)

    def publish(self, published: Published) -> Seen:
        """Publish something else, then read the other members.

        :raises CoordinatorAwayError: it could not be done; it may be published even so.
        """
        written = capabilities.encode(published)
        with self._translated():
            try:
                self._driver.update_capabilities(self._group, written).get()
            except self._not_implemented:
                self._replace(written)
            return Seen(self._others(self._members()))

    def look(self) -> dict[str, Published | None]:
        """Return what each member published, without joining the group; connect if necessary.

        :raises CoordinatorAwayError: it could not be done.
        """
        with self._translated():
            if self._driver is None:
                self._driver = self._connected()
            return self._others(self._members())

    def reconnect(self) -> None:
        """Let the next :meth:`beat` make another connection."""
        self._driver = None

    def leave(self) -> None:
        """Leave the group and disconnect, if connected; errors are ignored."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(Exception):
                driver.stop()

    def _check_driver(self) -> None:
        scheme = self._url.partition(":")[0].lower()
        try:
            pieces = urlsplit(self._url)
            _ = pieces.port  # may be none
        except ValueError:
            raise ValueError("[coordination] backend_url is no valid URL") from None
        if scheme == "file" and (pieces.netloc or pieces.path.strip("/") == ""):
            raise ValueError(
                "[coordination] backend_url must be file:///DIRECTORY, with a full path"
            )
        no_groups = ValueError(
            f"[coordination] backend_url: the driver {scheme!r} of tooz has no groups; use etcd,"
            " Redis, memcached, ZooKeeper, or the file driver on a single host"
        )
        if scheme in _LOCK_DRIVERS:
            raise no_groups
        try:
            driver = self._create()
        except Exception as error:  # noqa: BLE001 - the driver's or stevedore's
            raise ValueError(
                "[coordination] backend_url cannot be used with tooz: its driver"
                f" {scheme!r} is unknown, lacks its client library, or refuses the URL"
                f" ({type(error).__name__})"
            ) from None
        if type(driver).get_members is self._tooz.CoordinationDriver.get_members:
            raise no_groups

    def _create(self) -> Any:  # noqa: ANN401 - a driver of tooz
        return self._tooz.get_coordinator(self._url, self.member_id.encode(), **self._options)

    def _replace(self, written: dict[str, str]) -> None:
        """Publish as another member, then leave as this one.

        The file driver cannot change what a member publishes. A member that left and came back
        would be missing for a moment, and others could raise their shares.
        """
        before, self._renamed = self._driver, not self._renamed
        try:
            self._driver = self._connected()
            self._driver.join_group(self._group, written).get()
        except Exception:
            self._driver, self._renamed = before, not self._renamed
            raise
        before.leave_group(self._group).get()

    def _connected(self) -> Any:  # noqa: ANN401 - a driver of tooz
        driver = self._create()
        _prevent_retries(driver)
        driver.start()
        return driver

    def _members(self) -> dict[str, bytes | str]:
        """Return the driver's ids of all members by their text; none if there is no such group."""
        try:
            found = self._driver.get_members(self._group).get()
        except self._tooz.GroupNotCreated:
            return {}
        return {_text(member): member for member in found}

    def _join(self, published: Published) -> None:
        with contextlib.suppress(self._tooz.GroupAlreadyExist):
            self._driver.create_group(self._group).get()
        written = capabilities.encode(published)
        try:
            self._driver.join_group(self._group, written).get()
        except self._tooz.MemberAlreadyExist:
            # An expired entry, or one that this connection does not keep alive.
            with contextlib.suppress(self._tooz.MemberNotJoined):
                self._driver.leave_group(self._group).get()
            self._driver.join_group(self._group, written).get()

    def _others(self, members: Mapping[str, bytes | str]) -> dict[str, Published | None]:
        """Return what the other members published, by member."""
        others: dict[str, Published | None] = {}
        for name in sorted(members.keys() - {self.member_id}):
            if self._now() > self._ends_at:
                raise TimeoutError("it answers too slowly")
            try:
                found = self._driver.get_member_capabilities(self._group, members[name]).get()
                others[name] = capabilities.decode(found)
            except (self._tooz.SerializationError, UnicodeDecodeError):
                others[name] = None  # etcd's driver can read nothing of an id that is no text
            except (self._tooz.MemberNotJoined, self._tooz.GroupNotCreated):
                continue  # it left meanwhile
        return others

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        self._ends_at = self._now() + self._request_seconds
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the driver's or its client's
            raise CoordinatorAwayError(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        """Return what went wrong, in one line without the password."""
        password = urlsplit(self._url).password
        text = " ".join(str(error).split())
        if password:
            text = text.replace(password, "***").replace(unquote(password), "***")
        said = redact(text)[:_REASON_CHARACTERS]
        return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _prevent_retries(driver: Any) -> None:  # noqa: ANN401 - a driver of tooz
    """Let a driver for Redis fail at once; the other drivers do.

    redis-py retries a request for seconds, tooz retries that fifteen times, and neither can be told
    otherwise by options: an attempt would take a minute while the server is away.
    """
    make = getattr(driver, "_make_client", None)
    if make is None:
        return
    from redis.backoff import NoBackoff  # noqa: PLC0415 - an extra
    from redis.retry import Retry  # noqa: PLC0415 - an extra

    def make_without_retries(*arguments: Any) -> Any:  # noqa: ANN401 - not typed
        client = make(*arguments)
        manager = getattr(client.connection_pool, "sentinel_manager", None)
        for one in (client, *getattr(manager, "sentinels", ())):
            one.set_retry(Retry(NoBackoff(), 0))
        return client

    driver._make_client = make_without_retries  # noqa: SLF001 - tooz has no option for it


def _text(member: bytes | str) -> str:
    return member.decode("utf-8", "backslashreplace") if isinstance(member, bytes) else member
