# SPDX-License-Identifier: Apache-2.0
"""Decrypt location URLs that Glance encrypted with ``metadata_encryption_key``. Pure.

The format is that of ``glance.common.crypt``: AES in CBC mode, base64url, with the initialization
vector first and the text terminated by a NUL and random padding. There is no checksum; a wrong key
is detected because the result is not a URL.
"""

import base64
import re

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_URL = re.compile(r"[a-z][a-z0-9+.-]*:/").match
_BLOCK_BYTES = 16
#: Valid lengths of an AES key, bytes.
KEY_BYTES = (16, 24, 32)


def is_url(text: str) -> bool:
    """Return whether a text looks like an unencrypted location URL."""
    return _URL(text) is not None


def is_encrypted(text: str) -> bool:
    """Return whether a text looks like an encrypted location: base64url of whole AES blocks."""
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii"))
    except ValueError:
        return False
    return not is_url(text) and len(raw) > _BLOCK_BYTES and len(raw) % _BLOCK_BYTES == 0


def decrypt_url(key: str, value: str) -> str:
    """Return the location URL of a stored value.

    An unencrypted URL is returned unchanged: rows written before the key was set have one.

    :param key: ``metadata_encryption_key``, 16, 24 or 32 bytes in UTF-8.
    :raises ValueError: the value cannot be decrypted with this key. The message contains nothing
        of it.
    """
    if is_url(value):
        return value
    try:
        raw = base64.urlsafe_b64decode(value.encode("ascii"))
        vector, sealed = raw[:_BLOCK_BYTES], raw[_BLOCK_BYTES:]
        decryptor = Cipher(algorithms.AES(key.encode()), modes.CBC(vector)).decryptor()
        padded = decryptor.update(sealed) + decryptor.finalize()
        text = padded[: padded.rindex(b"\0")].decode()
    except ValueError:
        raise ValueError("the location cannot be decrypted") from None
    if not is_url(text):
        raise ValueError("the location cannot be decrypted")
    return text
