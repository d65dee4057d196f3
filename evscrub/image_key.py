# SPDX-License-Identifier: Apache-2.0
"""A compact key for an image id.

Glance ids are UUIDs in text, 85 bytes as a Python string. As an integer one takes 48. Glance keeps
an id as its creator wrote it, and some databases compare with case, so anything that is not in the
canonical lower-case form stays a string: the way back always gives the very same text.
"""

from binascii import unhexlify

ImageKey = int | str

_LENGTH = 36
_DIGITS = 32
_DASHES = "----"


def pack(image_id: str) -> ImageKey:
    """Return the smallest key that :func:`unpack` turns back into exactly `image_id`."""
    if len(image_id) == _LENGTH and image_id[8:24:5] == _DASHES:
        digits = image_id.replace("-", "")
        # int() and a look at each digit say the same and take twice as long, for every event.
        try:
            octets = unhexlify(digits)
        except ValueError:
            return image_id
        if octets.hex() == digits and len(digits) == _DIGITS:  # not if there are capitals
            return int.from_bytes(octets)
    return image_id


def unpack(key: ImageKey) -> str:
    """Return the image id that `key` was packed from."""
    if isinstance(key, str):
        return key
    text = f"{key:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
