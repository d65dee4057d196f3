# SPDX-License-Identifier: Apache-2.0
"""What the answer of a store driver to a delete means.

Pure. :func:`judge` is the one place that knows; the drivers' exceptions are told apart by the
classes of glance_store and, for what the drivers let through, by the library that raised them, so
that no store's client needs to be installed.
"""

from dataclasses import dataclass
from enum import Enum

from glance_store import exceptions as store_exceptions


class Outcome(Enum):
    """What to do about a location after a delete."""

    GONE = "gone"  #: the data is not there any more
    NOT_OURS = "not_ours"  #: the store is read-only by nature: finish, the data stays
    SHARED = "shared"  #: another one wants the data: finish, it stays
    IN_USE = "in_use"  #: clones or snapshots exist: wait long; no error
    TRANSIENT = "transient"  #: retry with backoff, and slow the store down
    STORE_TROUBLE = "store_trouble"  #: no location of this store can be deleted now
    CONFIGURATION = "configuration"  #: only an operator can mend it: park
    UNKNOWN = "unknown"  #: retry a few times, then park


#: Outcomes that end a location's row.
FINISHED = frozenset({Outcome.GONE, Outcome.NOT_OURS, Outcome.SHARED})
#: Outcomes of a delete that may have had its effect, or a part of it, all the same: an answer that
#: was lost, a store that gave up half-way.
UNSURE = frozenset({Outcome.TRANSIENT, Outcome.UNKNOWN})


#: Reasons of transient failures that no slower pace helps.
_NO_OVERLOAD = frozenset(
    {
        "bad_store_configuration",
        "io_error",
        "permission_denied",
        "read_only_file_system",
        "refused",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement.

    :param reason: one word of a fixed set, fit for a metric's label.
    :param detail: the exception's class, never its text: that may hold a URL with credentials.
    :param hint: what exactly is wrong and where an operator should look, where that is known.
    """

    outcome: Outcome
    reason: str
    detail: str = ""
    hint: str = ""

    @property
    def why(self) -> str:
        """The reason; a sentence where there is a hint."""
        return f"{self.reason.replace('_', ' ')}: {self.hint}" if self.hint else self.reason

    @property
    def tells_overload(self) -> bool:
        """Whether a slower pace may help."""
        return self.outcome is Outcome.TRANSIENT and self.reason not in _NO_OVERLOAD


class StoreNotUsableError(Exception):
    """A location that this configuration cannot delete.

    :param reason: one of the reasons below.
    :param hint: what an operator should do, without the URL.
    :param store: the store, where it is an enabled one that cannot be used.
    """

    def __init__(self, reason: str, hint: str, store: str = "") -> None:
        super().__init__(hint)
        self.reason = reason
        self.hint = hint
        self.store = store


UNDECIPHERABLE = "undecipherable"
STORE_NOT_ENABLED = "store_not_enabled"
STORE_NOT_LOADED = "store_not_loaded"
STORE_CANNOT_DELETE = "store_cannot_delete"
STORE_AMBIGUOUS = "store_ambiguous"
BAD_URL = "bad_url"
FOREIGN_OBJECT = "foreign_object"
MAYBE_SHARED = "maybe_shared"
NO_WRITE_ACCESS = "no_write_access"
#: What may pass, or be mended, while an agent runs.
UNUSABLE = frozenset({STORE_NOT_LOADED, STORE_CANNOT_DELETE})

GONE = Verdict(Outcome.GONE, "deleted")
SHARED = Verdict(Outcome.SHARED, "shared_url")
NOT_FOUND = Verdict(Outcome.GONE, "not_found")
#: A symbolic link in a store's directory leads to the file.
LINKED = Verdict(Outcome.IN_USE, "linked")
#: A file store's directory could not be read in time, to look for such links.
SLOW_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "slow_directory")
#: Another one wants data that may be the same: it is in a store that cannot be told from this one.
UNTOLD = Verdict(
    Outcome.CONFIGURATION,
    MAYBE_SHARED,
    "another image's location may be of the same data, in a store that is not enabled here or"
    " cannot be told from this one: enable it, or name both in [scrubber] separate_stores",
)
#: No encrypted location can be decrypted, so no data is known to be nobody else's.
HIDDEN = Verdict(
    Outcome.CONFIGURATION,
    UNDECIPHERABLE,
    "no encrypted location can be read, so that any may be of the same data: is [DEFAULT]"
    " metadata_encryption_key Glance's?",
)
#: Not found, and nothing has proven yet that the store is the right one: the row stays.
UNPROVEN = Verdict(Outcome.STORE_TROUBLE, "unproven")
#: Not found, and nothing else is there either: the mount point of what is not mounted, most likely.
EMPTY_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "empty_directory")
MISSING_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "missing_directory")

#: 498 is what Swift answers above its rate limits.
_THROTTLED_STATUSES = frozenset({429, 498, 503, 509})
_THROTTLED_CODES = frozenset(
    {
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
# What reaches us from below the drivers, by the library it comes from.
_CLIENT_LIBRARIES = frozenset(
    {
        "boto3",
        "botocore",
        "cinderclient",
        "keystoneauth1",
        "keystoneclient",
        "os_brick",
        "oslo_vmware",
        "rados",
        "rbd",
        "requests",
        "s3transfer",
        "swiftclient",
        "urllib3",
    }
)

_BY_CLASS: tuple[tuple[type[Exception], Outcome, str], ...] = (
    (store_exceptions.NotFound, Outcome.GONE, "not_found"),
    (store_exceptions.InUseByStore, Outcome.IN_USE, "in_use"),
    (store_exceptions.HasSnapshot, Outcome.IN_USE, "has_snapshot"),
    (store_exceptions.UnknownScheme, Outcome.CONFIGURATION, STORE_NOT_ENABLED),
    (store_exceptions.BadStoreUri, Outcome.CONFIGURATION, BAD_URL),
    # The file driver says so for every OSError of unlink: EIO, ESTALE and EBUSY too.
    (store_exceptions.Forbidden, Outcome.TRANSIENT, "forbidden"),
    (store_exceptions.TimeoutError, Outcome.TRANSIENT, "timeout"),
    (store_exceptions.RemoteServiceUnavailable, Outcome.TRANSIENT, "unavailable"),
    (store_exceptions.BadStoreConfiguration, Outcome.TRANSIENT, "bad_store_configuration"),
    (store_exceptions.BackendException, Outcome.TRANSIENT, "backend"),
    (TimeoutError, Outcome.TRANSIENT, "timeout"),
    (OSError, Outcome.TRANSIENT, "connection"),
)


def judge(error: Exception | None, scheme: str) -> Verdict:
    """Say what a delete's end means.

    :param error: what the driver raised, None when it returned.
    :param scheme: the URL's scheme, which tells stores that never delete.
    """
    if error is None:
        return GONE
    detail = type(error).__name__
    if isinstance(error, StoreNotUsableError):
        return Verdict(Outcome.CONFIGURATION, error.reason, error.hint)
    if isinstance(error, store_exceptions.StoreDeleteNotSupported):
        if scheme in {"http", "https"}:
            return Verdict(Outcome.NOT_OURS, "read_only_store", detail)
        return Verdict(Outcome.STORE_TROUBLE, NO_WRITE_ACCESS, detail)
    status, code = _answer(error)
    if status in _THROTTLED_STATUSES or code in _THROTTLED_CODES:
        return Verdict(Outcome.TRANSIENT, "throttled", detail)
    of_client = any(
        base.__module__.partition(".")[0] in _CLIENT_LIBRARIES for base in type(error).mro()
    )
    if of_client and "timeout" in detail.lower():
        return Verdict(Outcome.TRANSIENT, "timeout", detail)
    for kind, outcome, reason in _BY_CLASS:
        if isinstance(error, kind):
            return Verdict(outcome, reason, detail)
    if of_client:
        reason = "refused" if status in {401, 403} else "client"
        return Verdict(Outcome.TRANSIENT, reason, detail)
    return Verdict(Outcome.UNKNOWN, "unexpected", detail)


def _answer(error: Exception) -> tuple[int | None, str | None]:
    """The HTTP status and error code that an S3 or Swift client's exception carries."""
    status = getattr(error, "http_status", None)
    code = None
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        metadata, fault = response.get("ResponseMetadata"), response.get("Error")
        if isinstance(metadata, dict):
            status = metadata.get("HTTPStatusCode", status)
        if isinstance(fault, dict):
            code = fault.get("Code")
    return (status if isinstance(status, int) else None, code if isinstance(code, str) else None)
