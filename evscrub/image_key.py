# SPDX-License-Identifier: Apache-2.0
"""A compact key for an image id.

Glance ids are UUIDs in text, 85 bytes as a Python string. As an integer one takes 48. Glance keeps
an id as its creator wrote it, and some databases compare with case, so anything that is not in the
canonical lower-case form stays a string: the way back always gives the very same text.
"""

ImageKey = int | str

_DIGITS = 32
_HEXADECIMAL = "0123456789abcdef"


def pack(image_id: str) -> ImageKey:
    """Return the smallest key that :func:`unpack` turns back into exactly `image_id`."""
    digits = image_id.replace("-", "")
    # A regular expression says this more plainly and takes twice as long, for every event. int()
    # alone would also take signs, prefixes, underscores and other scripts' digits.
    if (
        len(digits) == _DIGITS
        and len(image_id) == _DIGITS + 4
        and image_id[8:24:5] == "----"
        and not digits.strip(_HEXADECIMAL)
    ):
        return int(digits, 16)
    return image_id


def unpack(key: ImageKey) -> str:
    """Return the image id that `key` was packed from."""
    if isinstance(key, str):
        return key
    text = f"{key:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
