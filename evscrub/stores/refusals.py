# SPDX-License-Identifier: Apache-2.0
"""Say why a store refused a delete: who asked, for what, and where an operator should look.

A file store's driver answers Forbidden to every OSError; the error itself is its context. Of other
stores no address is named, for that may hold a credential.
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
    verdict = judge(error, scheme)
    if path is not None:
        cause = error.__cause__ or error.__context__
        if not isinstance(error, store_exceptions.Forbidden) or not isinstance(cause, OSError):
            return None
        return replace(verdict, hint=_hint_of_file(cause.errno or 0, path, verdict.reason))
    if verdict.reason not in {PERMISSION_DENIED, "refused"}:
        return None
    who = _WHO.get(scheme.partition("+")[0], "the user of this configuration may delete")
    return replace(verdict, hint=f"see that {who}, and that its credentials are valid")


def _hint_of_file(code: int, path: Path, reason: str) -> str:
    directory = shorten(str(path.parent))
    said = f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
    match reason:
        case verdicts.PERMISSION_DENIED:
            look = (
                "look at its owner and mode ('ls -ld'), and run evscrub as the user that Glance"
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
            look = "look at its file system and the kernel's log"
        case _:
            look = "look at what is there in its place"
    return f"a delete of {shorten(path.name)} in {directory} failed: {said}: {look}"


def _user() -> str:
    uid = os.geteuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:  # as in a container
        return f"with uid {uid}"
