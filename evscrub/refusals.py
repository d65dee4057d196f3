# SPDX-License-Identifier: Apache-2.0
"""Say why a store refused a delete: who asked, for what, and where an operator should look.

A file store's driver answers Forbidden to every OSError; the error itself is its context. Of other
stores no address is named, for that may hold a credential.
"""

import errno
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from glance_store import exceptions as store_exceptions

from evscrub.verdict import Outcome, Verdict, judge

PERMISSION_DENIED = "permission_denied"
READ_ONLY = "read_only_file_system"
IO_ERROR = "io_error"

_DENIED = frozenset({errno.EPERM, errno.EACCES})
#: Whose rights to look at, by the part of a scheme before its "+".
_WHO = {
    "s3": "the key of s3_store_access_key in glance-api.conf may delete objects in the bucket",
    "swift": "the user of swift_store_config_file, or of swift_store_user, in glance-api.conf may"
    " delete objects in the container",
    "rbd": "the user of rbd_store_user in glance-api.conf, as 'ceph auth get' shows it, may write"
    " to the pool",
    "cinder": "the user of cinder_store_user_name in glance-api.conf may delete volumes",
    "vsphere": "the user of vmware_server_username in glance-api.conf may delete files",
}


def explain(error: Exception, scheme: str, path: Path | None) -> Verdict | None:
    """Judge a refusal.

    :param error: what the driver raised.
    :param path: of the file, in a file store.
    :returns: a verdict with a hint; None for anything but a refusal.
    """
    codes = [found.errno for found in _chain(error) if isinstance(found, OSError)]
    if path is not None:
        if not isinstance(error, store_exceptions.Forbidden) or not codes:
            return None
        return _explain_file(codes[0] or 0, path, type(error).__name__)
    verdict = judge(error, scheme)
    # Ceph's errors are no OSErrors of Python's, but have its numbers.
    if any(getattr(found, "errno", None) in _DENIED for found in _chain(error)):
        verdict = Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, type(error).__name__)
    elif verdict.reason != "refused":
        return None
    who = _WHO.get(scheme.partition("+")[0], "the user of this configuration may delete")
    return Verdict(
        verdict.outcome,
        verdict.reason,
        verdict.detail,
        f"see that {who}, and that its credentials are valid",
    )


def _explain_file(code: int, path: Path, detail: str) -> Verdict:
    directory = path.parent
    said = f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
    if code in _DENIED:
        look = (
            "look at its owner and mode ('ls -ld'), and run evscrub as the user that Glance runs as"
        )
        if code == errno.EPERM:
            look = "look for immutable files ('lsattr') and for a sticky bit ('ls -ld')"
        hint = f"user {_user()} may not delete in {directory}: {said}: {look}"
        return Verdict(Outcome.TRANSIENT, PERMISSION_DENIED, detail, hint)
    if code == errno.EROFS:
        hint = f"{directory} is on a file system that is mounted read-only: mount it for writing"
        return Verdict(Outcome.TRANSIENT, READ_ONLY, detail, hint)
    hint = f"a delete in {directory} failed: {said}: look at its file system and the kernel's log"
    return Verdict(Outcome.TRANSIENT, IO_ERROR, detail, hint)


def _user() -> str:
    uid = os.geteuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:  # as in a container
        return f"with uid {uid}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from, or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
