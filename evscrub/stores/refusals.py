# SPDX-License-Identifier: Apache-2.0
"""Explain why a store refused a delete: which user, which object, and what to check.

The file driver raises Forbidden for every OSError, with the OSError as its context. For other
stores no address is named, because it may contain credentials.
"""

import errno
import os
import pwd
from dataclasses import replace
from pathlib import Path

from glance_store import exceptions as store_exceptions

from evscrub.domain import verdict as verdicts
from evscrub.domain.quoting import shorten
from evscrub.domain.verdict import PERMISSION_DENIED, Verdict, judge

#: Whose permissions to check, by the part of a scheme before "+".
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
    """Judge an exception of a delete that is a refusal.

    :param error: what the driver raised.
    :param scheme: scheme of the URL.
    :param path: path of the file, in a file store; else None.
    :returns: a verdict with a hint; None if the exception is not a refusal.
    """
    verdict = judge(error, scheme)
    if path is not None:
        cause = error.__cause__ or error.__context__
        if not isinstance(error, store_exceptions.Forbidden) or not isinstance(cause, OSError):
            return None
        return replace(verdict, hint=_hint_of_file(cause.errno or 0, path, verdict.reason))
    if verdict.reason not in {PERMISSION_DENIED, "refused"}:
        return None
    who = _WHO.get(scheme.partition("+")[0], "the user of this configuration may delete")
    return replace(verdict, hint=f"check that {who}, and that its credentials are valid")


def _hint_of_file(code: int, path: Path, reason: str) -> str:
    directory = shorten(str(path.parent))
    said = f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
    match reason:
        case verdicts.PERMISSION_DENIED:
            look = (
                "check its owner and mode ('ls -ld'), and run evscrub as the user that Glance"
                " runs as"
            )
            if code == errno.EPERM:
                look = "look for immutable files ('lsattr') and for a sticky bit ('ls -ld')"
            return f"user {_user()} may not delete in {directory}: {said}: {look}"
        case verdicts.READ_ONLY:
            return (
                f"{directory} is on a file system that is mounted read-only: mount it for writing"
            )
        case verdicts.IO_ERROR:
            look = "check its file system and the kernel log"
        case _:
            look = "check what exists under this name"
    return f"a delete of {shorten(path.name)} in {directory} failed: {said}: {look}"


def _user() -> str:
    uid = os.geteuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:  # no entry, as in some containers
        return f"with uid {uid}"
