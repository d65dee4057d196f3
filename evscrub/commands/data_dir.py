# SPDX-License-Identifier: Apache-2.0
"""Find the files that come with evscrub: sample configuration, units, alerts, dashboard, man page.

A wheel installs them to ``share/evscrub`` of its environment, by the same names as in ``etc`` of a
checkout.
"""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from evscrub.domain.refusals import CannotRunError

#: A file that every installation has, relative to the folder.
_KNOWN = Path("evscrub/evscrub.conf.sample")
_INSTALLED = Path("share/evscrub")


def data_dir() -> Path:
    """Return the folder with the files that come with evscrub.

    :raises CannotRunError: this installation has no such folder.
    """
    for folder in _candidates():
        if (folder / _KNOWN).is_file():
            return folder.resolve()
    raise CannotRunError(
        f"this installation has no folder {_INSTALLED}: look for evscrub.conf.sample in the package"
        " that installed evscrub, or install evscrub with pip"
    )


def _candidates() -> Iterator[Path]:
    yield Path(__file__).parents[2] / "etc"  # a checkout
    # What the installer wrote down, which may be below another prefix than Python's.
    for file in metadata.files("evscrub") or ():
        if file.match(str(_INSTALLED / _KNOWN)):
            yield Path(str(file.locate())).parents[1]
    yield Path(sys.prefix) / _INSTALLED
