"""Compressed files as one stream of bytes: all members, no trailing data, no decompression bombs."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, Any, Protocol

from rankllm_core.errors import DataError
from rankllm_core.files.file_kinds import packing_of

_CHUNK_BYTES = 1 << 17
_DICTIONARY_BYTES = 512 << 20
"""Maximum memory for decompressing an .xz file; `xz -9` needs 65 MiB."""
_HARMLESS_BYTES = 32 << 20
_GREATEST_RATIO = 200
"""Text compresses to a third or a tenth, hardly ever to a hundredth. Beyond `_HARMLESS_BYTES`, a higher ratio is a
bomb."""


class _Decompressor(Protocol):
    """Common interface of `bz2` and `lzma`."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor for gzip members, which verifies checksums, with the same interface."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self._may_hold_more = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not (self._inner.unconsumed_tail or self._may_hold_more)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        unpacked = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        self._may_hold_more = len(unpacked) == max_length
        return unpacked


def _new_decompressor(packing: str) -> _Decompressor:
    if packing == "gzip":
        return _Gzip()
    if packing == "bzip2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(memlimit=_DICTIONARY_BYTES)


class UnpackedFile(io.RawIOBase):
    """Content of a compressed file. Raises DataError if the archive is damaged, truncated or a decompression bomb."""

    def __init__(self, packed: IO[bytes], packing: str, *, path: str | Path) -> None:
        self._packed = packed
        self._packing = packing
        self._path = path
        self._decompressor = _new_decompressor(packing)
        self._pending = b""
        self._bytes_in = 0
        self._bytes_out = 0
        self._is_at_end = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer and return the number of bytes, 0 at the end."""
        data = b""
        while not data and not self._is_at_end:
            try:
                data = self._unpack(len(buffer))
            except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error, MemoryError) as error:
                raise self._damaged(str(error) or type(error).__name__) from None
        buffer[: len(data)] = data
        self._bytes_out += len(data)
        if self._bytes_out > max(_HARMLESS_BYTES, _GREATEST_RATIO * self._bytes_in):
            problem = (
                f"decompresses to more than {_GREATEST_RATIO} times its size; if that is expected, decompress it first"
            )
            raise DataError(problem, path=self._path)
        return len(data)

    def _unpack(self, size: int) -> bytes:
        data = b""
        if self._decompressor.needs_input:
            data, self._pending = self._pending or self._read(), b""
            if not data:
                raise self._damaged("it is truncated")
        unpacked = self._decompressor.decompress(data, size)
        if self._decompressor.eof:
            self._start_next_member()
        return unpacked

    def _read(self) -> bytes:
        data = self._packed.read(_CHUNK_BYTES)
        self._bytes_in += len(data)
        return data

    def _start_next_member(self) -> None:
        """Continue after a member: with padding, another member, or the end."""
        rest = self._decompressor.unused_data
        while not (rest := rest.lstrip(b"\x00")):  # tape archives and xz pad with zeros
            rest = self._read()
            if not rest:
                self._is_at_end = True
                return
        if len(rest) < 16:
            rest += self._read()
        if packing_of(rest) != self._packing:
            raise self._damaged("trailing data after its end")
        self._decompressor = _new_decompressor(self._packing)
        self._pending = rest

    def _damaged(self, why: str) -> DataError:
        return DataError(f"damaged archive ({self._packing}): {why}", path=self._path)
