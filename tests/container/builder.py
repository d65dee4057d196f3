# SPDX-License-Identifier: Apache-2.0
"""Build images with buildah without privileges of its own, and run programs in them.

A registry need not be reachable: the base is then Debian's, made from its packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
#: As in etc/container/Containerfile.
BASE = "docker.io/library/debian:trixie-slim"
_SUITE = "trixie"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PULL_SECONDS = 120
#: What runs in an image sees its files as they are in a container with --read-only --tmpfs /tmp.
_READ_ONLY = """
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1 user=$2 shared=$3
shift 3
mount --bind "$shared" "$root/mnt"
exec chroot --userspec="$user" "$root" "$@"
"""


class Builder:
    """buildah, with images in a folder of its own.

    :param folder: where images are kept; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._command = (
            *("buildah", "--storage-driver", "vfs"),
            *("--root", str(folder / "images"), "--runroot", str(folder / "run")),
        )

    def run(self, *arguments: str, timeout: float | None = None) -> str:
        """Run buildah; return what it prints.

        :raises RuntimeError: it failed; with the end of what it printed.
        """
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self._folder)},
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-4000:]
            raise RuntimeError(f"buildah {arguments[0]} failed: {said}")
        return done.stdout.strip()

    def base(self, cache: Path) -> str:
        """Return the base image, made of packages if its registry cannot be reached.

        :param cache: where a base that was made is kept.
        """
        try:
            self.run("pull", "--quiet", BASE, timeout=_PULL_SECONDS)
        except (RuntimeError, subprocess.TimeoutExpired):
            archive = cache / f"{_SUITE}.tar"
            if not archive.exists():
                _make_base(archive)
            container = self.run("from", "scratch")
            self.run("add", "--quiet", container, str(archive), "/")
            return self.run("commit", "--quiet", "--rm", container, "localhost/base")
        return BASE

    def build(self, base: str) -> str:
        """Build evscrub's image on a base; return its id."""
        # pip trusts what this host trusts.
        bundle = "/run/certificates.crt"
        trust = ("--volume", f"{_CERTIFICATES}:{bundle}:ro", "--build-arg", f"PIP_CERT={bundle}")
        return self.run(
            *("build", "--quiet", "--format", "docker", "--layers=false"),
            *("--build-arg", f"BASE={base}"),
            *(trust if _CERTIFICATES.exists() else ()),
            *("--file", str(REPOSITORY / "etc/container/Containerfile"), str(REPOSITORY)),
        )

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Provide the files of an image."""
        container = self.run("from", image)
        yield Path(self.run("mount", container))
        self.run("umount", container)
        self.run("rm", container)


def command(root: Path, user: str, shared: Path, arguments: Sequence[str]) -> list[str]:
    """Return a command that runs a program on the files of an image, which it cannot change.

    :param root: the image's files.
    :param user: ``UID:GID``.
    :param shared: a folder that the program sees as ``/mnt``.
    """
    unshared = ["unshare", "--mount", "--propagation", "private"]
    return [*unshared, "sh", "-euc", _READ_ONLY, "sh", str(root), user, str(shared), *arguments]


def _make_base(archive: Path) -> None:
    """Make a minimal Debian from the archive that this host's packages come from."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirror = _output(targets).splitlines()[0]
    options = archive.with_suffix(".conf")
    dump = _output(["apt-config", "dump"]).splitlines()
    options.write_text("".join(f"{line}\n" for line in dump if line.startswith("Acquire::")))
    made = archive.with_suffix(".new.tar")
    debootstrap = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--aptopt={options}"]
    subprocess.run([*debootstrap, _SUITE, str(made), mirror], check=True)
    shutil.move(made, archive)


def _output(arguments: Sequence[str]) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
