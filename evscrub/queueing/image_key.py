# SPDX-License-Identifier: Apache-2.0
"""Pack image ids into compact keys.

Glance's ids are UUIDs in text, 85 bytes as a Python string; as an integer one takes 48. Glance
keeps an id as its creator wrote it, and some databases compare case-sensitively, so an id that is
not in canonical lower-case form stays a string: unpacking always returns the identical text.
"""

from binascii import unhexlify

ImageKey = int | str

_LENGTH = 36
_DIGITS = 32
_DASHES = "----"
_from_bytes = int.from_bytes  # looking it up takes as long as the call


def pack(image_id: str) -> ImageKey:
    """Return the smallest key that :func:`unpack` turns back into exactly `image_id`."""
    if len(image_id) == _LENGTH and image_id[8:24:5] == _DASHES:
        digits = image_id.replace("-", "")
        if len(digits) == _DIGITS and digits.lower() == digits:
            # int() also accepts signs, underscores and other scripts' digits, and rejecting those
            # would take twice as long.
            try:
                return _from_bytes(unhexlify(digits))
            except ValueError:
                pass
    return image_id


def unpack(key: ImageKey) -> str:
    """Return the image id that `key` was packed from."""
    if isinstance(key, str):
        return key
    text = f"{key:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
