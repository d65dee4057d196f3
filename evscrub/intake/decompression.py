# SPDX-License-Identifier: Apache-2.0
"""Decompress a body up to a limit. Pure.

Glance compresses if ``[oslo_messaging_rabbit] kombu_compression`` is set. A kilobyte of bzip2 can
decompress to a gigabyte, so each codec is asked for at most one byte more than the limit; a body
that yields that byte is too large.
"""

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from evscrub.intake.notification import MalformedError

#: Memory that a decoder may use, in bytes; in xz and zstd the sender chooses how much it needs.
_DECODER_BYTES = 32 << 20
_DECODER_BYTES_LOG2 = 25


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Brotli:
    """Give brotli's decompressor the interface of the standard library's."""

    def __init__(self) -> None:
        # Kombu knows this codec only where it is installed.
        self._decompressor: Any = import_module("brotli").Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.is_finished())

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        # Before 1.2 there is no such parameter: the TypeError makes the message malformed.
        return bytes(self._decompressor.process(data, output_buffer_limit=max_length))


def _zstd() -> _Decompressor:
    # The module that kombu uses; it is installed if kombu knows this codec.
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    zstd: Any = import_module(name)
    window = zstd.DecompressionParameter.window_log_max
    decompressor: _Decompressor = zstd.ZstdDecompressor(options={window: _DECODER_BYTES_LOG2})
    return decompressor


#: By the content types under which :mod:`kombu.compression` registers its codecs.
_DECOMPRESSORS: Mapping[str, Callable[[], _Decompressor]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lambda: lzma.LZMADecompressor(memlimit=_DECODER_BYTES),
    "application/x-brotli": _Brotli,
    "application/zstd": _zstd,
}


def decompress(data: bytes, content_type: str, limit_bytes: int) -> bytes:
    """Decompress one layer of compression.

    :param content_type: the codec's content type, such as ``application/x-bz2``.
    :param limit_bytes: the largest result.
    :raises MalformedError: there is no bounded decoder for the codec, the data is damaged or
        truncated, or the result exceeds the limit.
    """
    make = _DECOMPRESSORS.get(content_type)
    if make is None:
        raise MalformedError("unknown compression")
    try:
        decompressor = make()
        found = decompressor.decompress(data, limit_bytes + 1)
        complete = decompressor.eof
    except Exception:  # noqa: BLE001 - codecs raise various errors, MemoryError included
        raise MalformedError("cannot be decompressed") from None
    if len(found) > limit_bytes:
        raise MalformedError("too large")
    if not complete:
        raise MalformedError("cannot be decompressed")
    return found
