# SPDX-License-Identifier: Apache-2.0
"""What the answer of a store driver to a delete means.

Pure. :func:`judge` is the one place that knows; the drivers' exceptions are told apart by the
classes of glance_store and, for what the drivers let through, by the library that raised them, so
that no store's client needs to be installed.
"""

import errno
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from glance_store import exceptions as store_exceptions


class Outcome(Enum):
    """What to do about a location after a delete."""

    GONE = "gone"  #: the data is not there any more
    NOT_OURS = "not_ours"  #: the store is read-only by nature: finish, the data stays
    SHARED = "shared"  #: another one wants the data: finish, it stays
    IN_USE = "in_use"  #: clones or snapshots exist: wait long; no error
    REFUSED = "refused"  #: the store works but refuses this image: retry with backoff, then park
    TRANSIENT = "transient"  #: retry with backoff; see also Verdict.tells_overload
    UNPROVEN = "unproven"  #: not there, and it is not known yet whether its store is: retry
    STORE_TROUBLE = "store_trouble"  #: no location of this store can be deleted now
    CONFIGURATION = "configuration"  #: only an operator can mend it: park
    UNKNOWN = "unknown"  #: retry a few times, then park


#: Outcomes that end a location's row.
FINISHED = frozenset({Outcome.GONE, Outcome.NOT_OURS, Outcome.SHARED})
#: Outcomes of a delete that may have had its effect, or a part of it, all the same: an answer that
#: was lost, a store that gave up half-way.
UNSURE = frozenset({Outcome.TRANSIENT, Outcome.UNKNOWN, Outcome.REFUSED})
#: Outcomes that are an image's own trouble.
IMAGES_OWN = frozenset({Outcome.IN_USE, Outcome.REFUSED, Outcome.UNKNOWN})

PERMISSION_DENIED = "permission_denied"
READ_ONLY = "read_only_file_system"
IO_ERROR = "io_error"
#: Reasons of transient failures that no slower pace helps.
_NO_OVERLOAD = frozenset(
    {
        "bad_store_configuration",
        IO_ERROR,
        PERMISSION_DENIED,
        READ_ONLY,
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement.

    :param reason: one word of a fixed set, fit for a metric's label.
    :param detail: the exception's class and, of an error of the operating system, its symbol, such
        as ``Forbidden EPERM``; never the exception's text: that may hold a URL with credentials.
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

    @property
    def is_missing(self) -> bool:
        """Whether the store says that it does not have the data."""
        return self.outcome is Outcome.GONE and self.reason != GONE.reason


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
LINKED = Verdict(
    Outcome.IN_USE,
    "linked",
    hint="a symbolic link in a directory of the stores leads to its file; remove the link if"
    " nobody needs it",
)
#: A file store's directory could not be read in time, to look for such links.
SLOW_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "slow_directory")
#: No encrypted location can be decrypted, so no data is known to be nobody else's.
HIDDEN = Verdict(
    Outcome.CONFIGURATION,
    UNDECIPHERABLE,
    "no encrypted location can be read, so that any may be of the same data: is [DEFAULT]"
    " metadata_encryption_key Glance's?",
)
#: Not found, and nothing has proven yet that the store is the right one: the row stays.
UNPROVEN = Verdict(
    Outcome.UNPROVEN,
    "unproven",
    hint="the data is not there, and the store has no active image that tells whether it is the"
    " right one",
)
#: The same, since asking for a live image failed.
NO_PROOF = Verdict(
    Outcome.UNPROVEN,
    "no_proof",
    hint="the data is not there, and the store does not say whether it has active images",
)
#: The reason of a verdict that the store is not the right one, and of one that it cannot be.
WRONG_STORE = "wrong_store"
TOO_MANY_MISSING = "too_many_missing"
#: The same, and all of them are one owner's.
WRONG_FOR_ONE = "wrong_store_for_one"
TOO_MANY_OF_ONE = "too_many_missing_of_one"
#: Reasons that pause a store, or do so where no other owner's images are; the hint says why.
PAUSING = frozenset({WRONG_STORE, TOO_MANY_MISSING})
PAUSING_ALONE = frozenset({WRONG_FOR_ONE, TOO_MANY_OF_ONE})
#: Not found, and nothing else is there either: the mount point of what is not mounted, most likely.
EMPTY_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "empty_directory")
MISSING_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "missing_directory")
#: The same of a directory below the store's own, which works: the locations there alone suffer.
MISSING_BELOW = Verdict(
    Outcome.CONFIGURATION,
    "missing_subdirectory",
    hint="a directory below the store's own is missing or empty: mount it, or, if its data is gone,"
    " name the store in [scrubber] acknowledged_stores for a while",
)

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
#: Error codes by which S3 rejects the credentials, whatever the object.
_CREDENTIALS_CODES = frozenset(
    {
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "NotSignedUp",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
#: What object storage answers about one object: forbidden by a lock, a policy or an owner; not
#: allowed on its kind; in conflict with its state.
_OBJECT_STATUSES = frozenset({403, 405, 409})
#: What unlink says of one name. EACCES is not among them: that is the directory's permissions.
_BY_ERRNO = {
    errno.EPERM: (Outcome.REFUSED, PERMISSION_DENIED),  # immutable, append-only, or another's
    errno.EISDIR: (Outcome.REFUSED, "not_a_file"),
    errno.ENOTDIR: (Outcome.REFUSED, "not_a_file"),
    errno.ENOTEMPTY: (Outcome.REFUSED, "not_a_file"),
    errno.ELOOP: (Outcome.REFUSED, "not_a_file"),
    errno.ENAMETOOLONG: (Outcome.REFUSED, "not_a_file"),
    errno.EBUSY: (Outcome.IN_USE, "in_use"),  # a mount point, a swap file
    errno.ETXTBSY: (Outcome.IN_USE, "in_use"),
    errno.EACCES: (Outcome.TRANSIENT, PERMISSION_DENIED),
    errno.EROFS: (Outcome.TRANSIENT, READ_ONLY),
}
#: Exceptions of clients that need not be installed, by the library and the class's name.
_BY_NAME = {
    ("rbd", "ImageBusy"): (Outcome.IN_USE, "in_use"),
    ("rbd", "ImageHasSnapshots"): (Outcome.IN_USE, "has_snapshot"),
    ("rbd", "ImageMemberOfGroup"): (Outcome.IN_USE, "in_use"),
    ("rbd", "OperationNotSupported"): (Outcome.REFUSED, "not_supported"),
    ("rbd", "ReadOnlyImage"): (Outcome.REFUSED, "immutable"),
    ("oslo_vmware", "FileLockedException"): (Outcome.IN_USE, "in_use"),
    ("oslo_vmware", "TaskInProgress"): (Outcome.IN_USE, "in_use"),
    ("oslo_vmware", "CannotDeleteFileException"): (Outcome.REFUSED, "immutable"),
    ("oslo_vmware", "FileFaultException"): (Outcome.REFUSED, "not_a_file"),
    ("oslo_vmware", "NoPermissionException"): (Outcome.REFUSED, PERMISSION_DENIED),
}
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
    (store_exceptions.Forbidden, Outcome.TRANSIENT, "forbidden"),
    (store_exceptions.TimeoutError, Outcome.TRANSIENT, "timeout"),
    (store_exceptions.RemoteServiceUnavailable, Outcome.TRANSIENT, "unavailable"),
    (store_exceptions.BadStoreConfiguration, Outcome.TRANSIENT, "bad_store_configuration"),
    (store_exceptions.BackendException, Outcome.TRANSIENT, "backend"),
    (TimeoutError, Outcome.TRANSIENT, "timeout"),
    (OSError, Outcome.TRANSIENT, "connection"),
)


def untold(other_store: str | None) -> Verdict:
    """Return the verdict on data that another location, which is wanted, may be of too.

    :param other_store: the store that the other location names, None if it names none.
    """
    if other_store is None:
        text = (
            "another location, which names no store, may be of the same data: enable the store"
            " that it is in"
        )
    else:
        text = (
            f"another location, in store {other_store!r}, may be of the same data: enable that"
            " store if it is not, or name both in [scrubber] separate_stores if they have no"
            " object in common"
        )
    return Verdict(Outcome.CONFIGURATION, MAYBE_SHARED, text)


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
    return _judge_cause(error) or _judge_client(error, detail) or _judge_class(error, detail)


def bad_row(error: Exception) -> Verdict:
    """Judge an error of reading or changing an image's rows; its text may quote the URL."""
    cause = getattr(error, "inner_exception", None) or error
    return Verdict(Outcome.CONFIGURATION, "bad_row", type(cause).__name__)


def _judge_cause(error: Exception) -> Verdict | None:
    """Judge what a driver hid in an exception of glance_store; None where that says it all.

    The file driver raises Forbidden for every OSError of unlink, cinder's BackendException for
    every error of its client, S3's BadStoreConfiguration for every one of its look before.
    """
    cause = error.__cause__ or error.__context__
    detail = type(error).__name__
    if isinstance(error, store_exceptions.Forbidden) and isinstance(cause, OSError):
        symbol = errno.errorcode.get(cause.errno or 0, "")
        outcome, reason = _BY_ERRNO.get(cause.errno or 0, (Outcome.TRANSIENT, IO_ERROR))
        return Verdict(outcome, reason, f"{detail} {symbol}".strip())
    if not isinstance(cause, Exception) or not isinstance(
        error, store_exceptions.BackendException | store_exceptions.BadStoreConfiguration
    ):
        return None
    if _library(cause) == "cinderclient":
        return _judge_cinder(cause, detail)
    return _judge_client(cause, detail)


def _judge_cinder(error: Exception, detail: str) -> Verdict:
    """Judge the answer of cinder's API to the deletion of a volume."""
    match getattr(error, "code", None):
        case 400 | 409:  # its state does not allow it: attached, has snapshots, migrating
            return Verdict(Outcome.IN_USE, "in_use", detail)
        case 401 | 403:  # a policy, and that holds for all volumes
            return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail)
        case 413 | 429 | 503:
            return Verdict(Outcome.TRANSIENT, "throttled", detail)
    return Verdict(Outcome.TRANSIENT, "backend", detail)


def _judge_client(error: Exception, detail: str) -> Verdict | None:
    """Judge what a client library says plainly; None where only its class is left to judge by."""
    status, code = _answer(error)
    library = _library(error)
    if status in _THROTTLED_STATUSES or code in _THROTTLED_CODES:
        return Verdict(Outcome.TRANSIENT, "throttled", detail)
    if known := _BY_NAME.get((library, type(error).__name__)):
        return Verdict(*known, detail)
    if library in {"rbd", "rados"} and getattr(error, "errno", None) in {errno.EPERM, errno.EACCES}:
        # What a user of Ceph may do holds for the pool.
        return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail)
    if not library:
        return None
    if library in {"botocore", "swiftclient"} and status is not None:
        # Swift's client asks for a token first, and says so in its message.
        of_token = str(getattr(error, "msg", "")).startswith("Auth")
        if of_token or status == HTTPStatus.UNAUTHORIZED or code in _CREDENTIALS_CODES:
            return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail)
        if status in _OBJECT_STATUSES:
            return Verdict(Outcome.REFUSED, "refused", detail)
    if "timeout" in type(error).__name__.lower():
        return Verdict(Outcome.TRANSIENT, "timeout", detail)
    return None


def _judge_class(error: Exception, detail: str) -> Verdict:
    """Judge an exception by its class alone."""
    for kind, outcome, reason in _BY_CLASS:
        if isinstance(error, kind):
            return Verdict(outcome, reason, detail)
    if _library(error):
        status, _ = _answer(error)
        denied = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED if denied else "client", detail)
    return Verdict(Outcome.UNKNOWN, "unexpected", detail)


def _library(error: Exception) -> str:
    """Return the client library that an exception's class comes from, "" for none of them."""
    for base in type(error).mro():
        library = base.__module__.partition(".")[0]
        if library in _CLIENT_LIBRARIES:
            return library
    return ""


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
