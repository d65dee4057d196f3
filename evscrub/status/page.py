# SPDX-License-Identifier: Apache-2.0
"""The page for people: one file, put together from its parts, and what it may do in a browser."""

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

_STYLE = "/*STYLE*/"
_SCRIPT = "/*SCRIPT*/"


@dataclass(frozen=True, slots=True)
class Page:
    """The page.

    :param policy: its Content-Security-Policy: no code, style or data but its own.
    """

    html: str
    policy: str


def load() -> Page:
    """Read the page."""
    folder = files("evscrub.status") / "assets"
    html, style, script = (
        (folder / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:;"
        f" style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html.replace(_STYLE, style).replace(_SCRIPT, script), policy)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
