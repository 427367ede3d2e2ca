"""Checksums: a short one for a line, a strong one for a file."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path


def crc32_hex(data: bytes) -> str:
    """CRC-32 as 8 lower-case hexadecimal digits: finds every damage of up to 32 bits in a row, at little cost."""
    return f"{zlib.crc32(data):08x}"


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes as 64 lower-case hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
