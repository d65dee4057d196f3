# SPDX-License-Identifier: Apache-2.0
"""Judge the answer of a store driver to a delete. Pure.

:func:`judge` classifies exceptions by the classes of glance_store and, for exceptions of client
libraries that the drivers pass on, by the name of the library and the class, so that no client
library needs to be installed.
"""

import errno
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from glance_store import exceptions as store_exceptions


class Outcome(Enum):
    """What to do with a location after a delete."""

    GONE = "gone"  #: the data is gone: settle
    NOT_OURS = "not_ours"  #: the store is read-only by nature: settle, the data stays
    SHARED = "shared"  #: another location needs the data: settle, the data stays
    IN_USE = "in_use"  #: clones or snapshots exist: retry after a long delay; not an error
    REFUSED = "refused"  #: the store works but refuses this image: retry with backoff, then park
    TRANSIENT = "transient"  #: retry with backoff; see also Verdict.tells_overload
    UNPROVEN = "unproven"  #: the data is missing, but the store is not proven yet: retry
    STORE_TROUBLE = "store_trouble"  #: no location of this store can be deleted: pause the store
    CONFIGURATION = "configuration"  #: only an operator can fix it: park
    UNKNOWN = "unknown"  #: retry a few times, then park


#: Outcomes after which a location is settled.
FINISHED = frozenset({Outcome.GONE, Outcome.NOT_OURS, Outcome.SHARED})
#: Outcomes of a delete that may have taken effect, fully or partly: an answer may be lost, or a
#: store may fail half-way.
UNSURE = frozenset({Outcome.TRANSIENT, Outcome.UNKNOWN, Outcome.REFUSED})
#: Outcomes that are caused by the image, not by the store.
IMAGES_OWN = frozenset({Outcome.IN_USE, Outcome.REFUSED, Outcome.UNKNOWN})

PERMISSION_DENIED = "permission_denied"
READ_ONLY = "read_only_file_system"
IO_ERROR = "io_error"
#: Reasons of transient failures that a lower rate does not help.
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
    """The judgement of a delete.

    :param reason: one of a fixed set of words, used as a metric's label.
    :param detail: what happened: class of the exception and the symbol of an OS error, such as
        ``Forbidden EPERM``; never its text, which may contain a URL with credentials.
    :param hint: what is wrong and what an operator should check, if known.
    """

    outcome: Outcome
    reason: str
    detail: str = ""
    hint: str = ""

    @property
    def why(self) -> str:
        """The reason, followed by the hint if there is one."""
        return f"{self.reason.replace('_', ' ')}: {self.hint}" if self.hint else self.reason

    @property
    def tells_overload(self) -> bool:
        """Whether a lower rate may help."""
        return self.outcome is Outcome.TRANSIENT and self.reason not in _NO_OVERLOAD

    @property
    def is_missing(self) -> bool:
        """Whether the store reported that it does not have the data."""
        return self.outcome is Outcome.GONE and self.reason != GONE.reason


class StoreNotUsableError(Exception):
    """A location cannot be deleted with this configuration.

    :param reason: one of the reasons below.
    :param hint: what an operator should do; without the URL.
    :param store: name of the store, if an enabled store cannot be used; else empty.
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
#: Reasons that may end while the agent runs, by themselves or by a repair.
UNUSABLE = frozenset({STORE_NOT_LOADED, STORE_CANNOT_DELETE})

GONE = Verdict(Outcome.GONE, "deleted")
SHARED = Verdict(Outcome.SHARED, "shared_url")
NOT_FOUND = Verdict(Outcome.GONE, "not_found")
#: By the registry the image is not claimed.
CLAIM_LOST = Verdict(
    Outcome.TRANSIENT,
    "claim_lost",
    "the database does not have the claim any more: it failed over, or the row was changed",
)
#: A symbolic link in a directory of a store points to the file.
LINKED = Verdict(
    Outcome.IN_USE,
    "linked",
    hint="a symbolic link in a directory of the stores points to its file; remove the link if"
    " it is not needed",
)
#: The directory of a file store could not be searched for symbolic links in time.
SLOW_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "slow_directory")
#: No encrypted location can be decrypted, so any data may be shared with one of them.
HIDDEN = Verdict(
    Outcome.CONFIGURATION,
    UNDECIPHERABLE,
    hint="no encrypted location can be decrypted, so any of them may have the same data: set"
    " [DEFAULT] metadata_encryption_key to Glance's key",
)
#: Missing, and the store is not proven yet: the row stays.
UNPROVEN = Verdict(
    Outcome.UNPROVEN,
    "unproven",
    hint="the data is not there, and no active image proves that the store is the right one",
)
#: Missing, and the witnesses could not be checked: the row stays.
NO_PROOF = Verdict(
    Outcome.UNPROVEN,
    "no_proof",
    hint="the data is not there, and the store does not answer whether it has active images",
)
#: The store is wrong: by its witnesses, or by the number of missing images.
WRONG_STORE = "wrong_store"
TOO_MANY_MISSING = "too_many_missing"
#: As above, but all of the evidence is from one owner's images.
WRONG_FOR_ONE = "wrong_store_for_one"
TOO_MANY_OF_ONE = "too_many_missing_of_one"
#: Reasons that pause the store, and reasons that do so only if no other owner has images there.
PAUSING = frozenset({WRONG_STORE, TOO_MANY_MISSING})
PAUSING_ALONE = frozenset({WRONG_FOR_ONE, TOO_MANY_OF_ONE})
#: Missing from an empty or missing directory, which is most likely an unmounted mount point.
EMPTY_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "empty_directory")
MISSING_DIRECTORY = Verdict(Outcome.STORE_TROUBLE, "missing_directory")
#: The same for a directory below the store's own, which works: only the locations in it are parked.
MISSING_BELOW = Verdict(
    Outcome.CONFIGURATION,
    "missing_subdirectory",
    hint="a directory below the store's own is missing or empty: mount it, or, if its data is gone,"
    " name the store in [scrubber] acknowledged_stores for a while",
)

#: Swift answers 498 above its rate limits.
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
#: S3 error codes for rejected credentials, whatever the object.
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
#: Statuses of object storage about a single object: forbidden by a lock, a policy or its owner; not
#: allowed for its type; in conflict with its state.
_OBJECT_STATUSES = frozenset({403, 405, 409})
#: Meaning of the errors of unlink. Most concern the one file; EACCES is about its directory.
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
#: Exceptions of client libraries, by the names of the library and the class.
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
#: Libraries whose exceptions the drivers pass on.
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


def maybe_shared(other_store: str | None) -> Verdict:
    """Return the verdict on data that another location may also have and still need.

    :param other_store: name of the other location's store; None if it names none.
    """
    if other_store is None:
        text = (
            "another location, which names no store, may have the same data: enable the store"
            " that it is in"
        )
    else:
        text = (
            f"another location, in store {other_store!r}, may have the same data: enable that"
            " store if it is not, or name both in [scrubber] separate_stores if they have no"
            " object in common"
        )
    return Verdict(Outcome.CONFIGURATION, MAYBE_SHARED, hint=text)


def judge(error: BaseException | None, scheme: str) -> Verdict:
    """Return the verdict on a delete.

    :param error: what the driver raised; None if it returned.
    :param scheme: scheme of the URL, by which read-only stores are recognized.
    """
    if error is None:
        return GONE
    detail = type(error).__name__
    if isinstance(error, StoreNotUsableError):
        return Verdict(Outcome.CONFIGURATION, error.reason, hint=error.hint)
    if isinstance(error, store_exceptions.StoreDeleteNotSupported):
        if scheme in {"http", "https"}:
            return Verdict(Outcome.NOT_OURS, "read_only_store", detail)
        return Verdict(Outcome.STORE_TROUBLE, NO_WRITE_ACCESS, detail)
    return _judge_cause(error) or _judge_client(error, detail) or _judge_class(error, detail)


def bad_row(error: Exception) -> Verdict:
    """Return the verdict on an error of reading or writing an image's rows.

    Its detail is only the class of the error, because the text may quote the URL.
    """
    cause = getattr(error, "inner_exception", None) or error
    return Verdict(Outcome.CONFIGURATION, "bad_row", type(cause).__name__)


def _judge_cause(error: BaseException) -> Verdict | None:
    """Judge the cause of an exception of glance_store; None if the cause adds nothing.

    The file driver raises Forbidden for every OSError of unlink, the cinder driver BackendException
    for every error of its client, and the S3 driver BadStoreConfiguration for every error of its
    request before the delete.
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


def _judge_cinder(error: BaseException, detail: str) -> Verdict:
    """Judge the answer of cinder's API to the deletion of a volume."""
    match getattr(error, "code", None):
        case 400 | 409:  # not allowed in its state: attached, has snapshots, migrating
            return Verdict(Outcome.IN_USE, "in_use", detail)
        case 401 | 403:  # denied by a policy, for all volumes
            return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail)
        case 413 | 429 | 503:
            return Verdict(Outcome.TRANSIENT, "throttled", detail)
    return Verdict(Outcome.TRANSIENT, "backend", detail)


def _judge_client(error: BaseException, detail: str) -> Verdict | None:
    """Judge an exception of a client library by its status, code or name; None if none is known."""
    status, code = _answer(error)
    library = _library(error)
    if status in _THROTTLED_STATUSES or code in _THROTTLED_CODES:
        return Verdict(Outcome.TRANSIENT, "throttled", detail)
    if known := _BY_NAME.get((library, type(error).__name__)):
        return Verdict(*known, detail)
    if library in {"rbd", "rados"} and getattr(error, "errno", None) in {errno.EPERM, errno.EACCES}:
        # Permissions of a Ceph user apply to the whole pool.
        return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail)
    if not library:
        return None
    if library in {"botocore", "swiftclient"} and status is not None:
        # The message of swiftclient begins with "Auth" if the request for a token failed.
        of_token = str(getattr(error, "msg", "")).startswith("Auth")
        if of_token or status == HTTPStatus.UNAUTHORIZED or code in _CREDENTIALS_CODES:
            return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail)
        if status in _OBJECT_STATUSES:
            return Verdict(Outcome.REFUSED, "refused", detail)
    if "timeout" in type(error).__name__.lower():
        return Verdict(Outcome.TRANSIENT, "timeout", detail)
    return None


def _judge_class(error: BaseException, detail: str) -> Verdict:
    """Judge an exception by its class alone."""
    for kind, outcome, reason in _BY_CLASS:
        if isinstance(error, kind):
            return Verdict(outcome, reason, detail)
    if _library(error):
        status, _ = _answer(error)
        denied = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED if denied else "client", detail)
    return Verdict(Outcome.UNKNOWN, "unexpected", detail)


def _library(error: BaseException) -> str:
    """Return the known client library that defines an exception's class, or ""."""
    for base in type(error).mro():
        library = base.__module__.partition(".")[0]
        if library in _CLIENT_LIBRARIES:
            return library
    return ""


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    """Return the HTTP status and error code of an S3 or Swift client's exception."""
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
