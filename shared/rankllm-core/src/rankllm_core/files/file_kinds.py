"""Detection of file formats by their first bytes, independent of the name."""

from __future__ import annotations

from typing import NamedTuple

HEAD_BYTES = 512
"""Number of bytes that `packing_of` and `unreadable_kind` inspect; a tar archive is recognized by bytes 257 to 262."""


class Unreadable(NamedTuple):
    """Kind of content that cannot be read as text."""

    name: str
    advice: str


_PACKINGS = {
    "gzip": (b"\x1f\x8b",),
    "xz": (b"\xfd7zXZ\x00", b"\x5d\x00\x00"),  # the second is the older .lzma
    "bzip2": tuple(b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")),
}
# The others start a file with an empty frame.
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)))
_UNPACK = "unpack it first"
_EXPORT = "export it as JSON Lines or TSV"
_UNREADABLE = (
    *((magic, "compressed with zstd", "unpack it first: zstd -d FILE") for magic in _ZSTD),
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"PK\x05\x06", "a ZIP archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x1f\x9d", "compressed with compress (.Z)", _UNPACK),
    (b"\x1f\xa0", "compressed with compress (.Z)", _UNPACK),
    (b"LZIP", "compressed with lzip", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed with LZ4", "unpack it first: lz4 -d FILE"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed with Snappy", _UNPACK),
    (b"\x89LZO", "compressed with lzop", _UNPACK),
    (b"PAR1", "an Apache Parquet file", _EXPORT),
    (b"PARE", "an encrypted Apache Parquet file", _EXPORT),
    (b"ARROW1", "an Apache Arrow file", _EXPORT),
    (b"\xff\xff\xff\xff", "an Apache Arrow stream", _EXPORT),
    (b"FEA1", "a Feather file", _EXPORT),
    (b"ORC", "an Apache ORC file", _EXPORT),
    (b"Obj\x01", "an Apache Avro file", _EXPORT),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office file", _EXPORT),
    (b"%PDF-", "a PDF file", _EXPORT),
    (b"\x89PNG\r\n", "a PNG image", "give a text file"),
    (b"\x7fELF", "an executable", "give a text file"),
    (b"GGUF", "a GGUF model", "give a text file"),
    *((b"\x80" + bytes([protocol]), "a Python pickle", _EXPORT) for protocol in range(2, 6)),
)
# UTF-32 first: its mark in little-endian order begins with that of UTF-16.
_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def packing_of(head: bytes) -> str | None:
    """Return `gzip`, `xz` or `bzip2`; None if the content is not compressed with these. head: the first HEAD_BYTES."""
    return next((name for name, magics in _PACKINGS.items() if head.startswith(magics)), None)


def unreadable_kind(head: bytes) -> Unreadable | None:
    """Return what content other than UTF-8 text is, and what to do about it; None if it may be text."""
    for mark, name in _ENCODINGS:
        if head.startswith(mark):
            return _encoded(name)
    # Text may also start with an id such as PAR1 or ORC.
    is_binary = any(byte < 9 or 13 < byte < 32 for byte in head)
    for magic, name, advice in _UNREADABLE:
        if head.startswith(magic) and (is_binary or not magic.isalnum()):
            return Unreadable(name, advice)
    if b"\x00" not in head:
        return None
    if head[257:262] == b"ustar":
        return Unreadable("a tar archive", "unpack it first: tar -xf FILE")
    return _unmarked_encoding(head)


def _unmarked_encoding(head: bytes) -> Unreadable | None:
    """Detect UTF-16 or UTF-32 without a byte-order mark: in Western text, every other byte or three of four are
    zero."""
    for width, positions in (("UTF-32LE", (1, 2, 3)), ("UTF-32BE", (0, 1, 2)), ("UTF-16LE", (1,)), ("UTF-16BE", (0,))):
        size = 4 if len(positions) == 3 else 2
        units = [head[start : start + size] for start in range(0, len(head) - size + 1, size)]
        fitting = [unit for unit in units if all(unit[position] == 0 for position in positions) and any(unit)]
        if units and len(fitting) * 10 >= len(units) * 6:
            return _encoded(width)
    return None


def _encoded(name: str) -> Unreadable:
    return Unreadable(f"text in {name}", f"convert it with: iconv -f {name} -t UTF-8 FILE > NEW_FILE")
