# SPDX-License-Identifier: Apache-2.0
"""Decrypt location URLs as Glance encrypts them under ``metadata_encryption_key``.

The format is Glance's (``glance.common.crypt``): AES in CBC mode, base64url, the initialization
vector in front, the text ended by a NUL and random padding. It has no check sum, so a wrong key is
told by what comes out not being a URL.
"""

import base64
import re

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_URL = re.compile(r"[a-z][a-z0-9+.-]*:/").match
_BLOCK_BYTES = 16
#: Lengths of a key of AES, bytes.
KEY_BYTES = (16, 24, 32)


def is_url(text: str) -> bool:
    """Whether `text` looks like a location URL in the clear."""
    return _URL(text) is not None


def is_encrypted(text: str) -> bool:
    """Whether `text` looks like an encrypted location: base64url of whole blocks."""
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii"))
    except ValueError:
        return False
    return not is_url(text) and len(raw) > _BLOCK_BYTES and len(raw) % _BLOCK_BYTES == 0


def decrypt_url(key: str, value: str) -> str:
    """Return the URL that `value` holds.

    A value in the clear comes back as it is: such rows were written before the key was set.

    :param key: ``metadata_encryption_key``, 16, 24 or 32 bytes as UTF-8.
    :raises ValueError: it cannot be decrypted with this key. The message holds nothing of it.
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
