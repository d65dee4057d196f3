# SPDX-License-Identifier: Apache-2.0
"""Where to listen: what is read from the configuration, and what is refused."""

import pytest

from evscrub.domain.address import Address, parse


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", None),
        (" None ", None),
        ("127.0.0.1:9753", Address("127.0.0.1", 9753)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:80", Address("localhost", 80)),
    ],
)
def test_an_address_is_read(text: str, wanted: Address | None) -> None:
    assert parse(text) == wanted
    if wanted is not None:
        assert parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "9753",
        "host",
        "host:",
        ":9753",
        "host:port",
        "host:65536",
        "::1",
        "[::1:80",
        f"{'h' * 64}:80",
        "a..b:80",
        "a b:80",
        "a\0b:80",
        "agent\u20111:80",
        "b\xfccher.example:80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT, or none"):
        parse(text)
