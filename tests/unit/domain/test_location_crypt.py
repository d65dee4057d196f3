# SPDX-License-Identifier: Apache-2.0
"""Location URLs as Glance encrypts them, by Glance's own code."""

import base64
import traceback

import pytest
from glance.common import crypt
from hypothesis import given
from hypothesis import strategies as st

from evscrub.domain.location_crypt import decrypt_url, is_url

KEY = "0123456789abcdef"
URL = "swift+https://account:user:secret@keystone/v3/container/object"

keys = st.sampled_from([16, 24, 32]).flatmap(
    lambda size: st.text(st.characters(codec="ascii"), min_size=size, max_size=size)
)
urls = st.builds(
    "{}://{}".format,
    st.sampled_from(["file", "rbd", "s3", "s3+https", "swift+config", "cinder", "vsphere"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
)


@given(keys, urls, st.sampled_from([16, 64]))
def test_what_glance_encrypts_is_decrypted(key: str, url: str, blocksize: int) -> None:
    sealed = crypt.urlsafe_encrypt(key, url, blocksize)
    assert not is_url(sealed)
    assert decrypt_url(key, sealed) == url


@given(urls)
def test_unencrypted_url_is_returned_unchanged(url: str) -> None:
    assert is_url(url)
    assert decrypt_url(KEY, url) == url
    assert decrypt_url("", url) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file",
        "://host",
        ":/",
        "1file:///a",
        "File:///a",
        " file:///a",
        "\nfile:///a",
        "file\n:///a",
        "C:\\a",
        "no url at all",
    ],
)
def test_what_is_no_url(text: str) -> None:
    assert not is_url(text)


def _refused(key: str, value: str) -> str:
    """The error that a value gives, as it would be logged."""
    with pytest.raises(ValueError, match="cannot be decrypted") as caught:
        decrypt_url(key, value)
    return str(caught.value) + "".join(
        traceback.format_exception(caught.value.with_traceback(None))
    )


@given(keys, keys, urls)
def test_error_of_a_wrong_key_shows_nothing(key: str, wrong: str, url: str) -> None:
    if key == wrong:
        return
    sealed = crypt.urlsafe_encrypt(key, url)
    shown = _refused(wrong, sealed)
    assert sealed not in shown
    assert url not in shown


@pytest.mark.parametrize("key", ["", "short", "a" * 15, "a" * 33, "\N{SNOWMAN}" * 16])
def test_a_key_of_a_wrong_length_is_a_wrong_key(key: str) -> None:
    sealed = crypt.urlsafe_encrypt(KEY, URL)
    shown = _refused(key, sealed)
    assert sealed not in shown
    assert not key or key not in shown


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_junk_is_no_location(value: str) -> None:
    if is_url(value):
        return
    shown = _refused(KEY, value)
    assert len(value) < 8 or value not in shown


def test_a_nul_within_is_not_the_end() -> None:
    odd = "file:///a\0b"
    assert decrypt_url(KEY, crypt.urlsafe_encrypt(KEY, odd)) == odd


def test_text_without_terminator_is_rejected() -> None:
    # Without its last block there is no NUL: some text in front of it must not pass for a URL.
    sealed = base64.urlsafe_b64decode(crypt.urlsafe_encrypt(KEY, "file:///0123456789012345678901"))
    cut = base64.urlsafe_b64encode(sealed[:-16]).decode()
    shown = _refused(KEY, cut)
    assert cut not in shown


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("no url at all", id="no URL"),
        pytest.param("", id="nothing"),
        pytest.param("\0" + URL, id="a NUL first"),
        pytest.param("FILE:///secret", id="a scheme in upper case"),
    ],
)
def test_plaintext_that_is_no_url_is_rejected(text: str) -> None:
    shown = _refused(KEY, crypt.urlsafe_encrypt(KEY, text))
    assert "secret" not in shown


@pytest.mark.parametrize("cut", [1, 4, 16, 24, 32])
def test_truncated_value_is_rejected(cut: int) -> None:
    sealed = crypt.urlsafe_encrypt(KEY, "file:///a")
    shown = _refused(KEY, sealed[:-cut])
    assert sealed[:-cut] not in shown
