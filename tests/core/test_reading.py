"""Files are read by content, within limits, and errors are one line with the file name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tracemalloc

import pytest

from rankllm_core.data.records import read_requests
from rankllm_core.errors import DataError, RankLLMError, one_line
from rankllm_core.files import (
    open_text,
    read_json,
    read_jsonl,
    read_lines,
    read_sound_lines,
    read_text,
    reading,
    unpacked_name,
)

TEXT = "q1 Q0 d1 1 9.5 t\nq2 Q0 größe 1 1 t\n"
LINES = [(1, "q1 Q0 d1 1 9.5 t"), (2, "q2 Q0 größe 1 1 t")]
PACKERS = [gzip.compress, lzma.compress, bz2.compress, lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)]


def written(tmp_path, data, name="f"):
    """A file with these bytes."""
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("name", ["run", "a.gz", "a.GZ", "a.xz", "a.bz2", "a.txt"])
@pytest.mark.parametrize("pack", [bytes, *PACKERS])
def test_what_a_file_holds_decides_and_not_its_name(tmp_path, name, pack):
    """Compressed content under any name, and plain text with a compressed file's suffix."""
    assert list(read_lines(written(tmp_path, pack(TEXT.encode()), name))) == LINES


@pytest.mark.parametrize("pack", PACKERS[:3])
@pytest.mark.parametrize("padding", [b"", b"\x00" * 8])
def test_every_member_of_an_archive_is_read(tmp_path, pack, padding):
    """As in `cat a.gz b.gz`; tapes and xz pad with zeros."""
    first, second = (line.encode() for line in TEXT.splitlines(keepends=True))
    path = written(tmp_path, pack(first) + padding + pack(second) + pack(b"") + padding)
    assert list(read_lines(path)) == LINES


@pytest.mark.parametrize("pack", PACKERS[:3])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-5], "it is truncated"),
        (lambda data: data[: len(data) // 2], "it is truncated"),
        (lambda data: data + b"q3 Q0 d 1 1 t\n", "trailing data after its end"),
        (lambda data: data[:-8] + bytes([data[-8] ^ 255]) + data[-7:], ""),
    ],
)
def test_a_damaged_archive_is_one_line_for_every_reader(tmp_path, pack, damage, says):
    """Including readers of the complete text, where an EOFError was mistaken for Ctrl-C."""
    path = written(tmp_path, damage(pack(('{"a": 1}\n' * 5000).encode())), "a.json")
    for read in (read_lines, read_text, read_json, read_jsonl, read_requests):
        with pytest.raises(DataError, match=rf"a\.json.*: damaged archive \((gzip|xz|bzip2)\): .*{says}"):
            list(read(path))


@pytest.mark.parametrize("cut", [2, 3, 5, 9])
def test_the_first_bytes_of_an_archive_are_no_text(tmp_path, cut):
    """A download that was interrupted right after it began."""
    with pytest.raises(DataError):
        list(read_jsonl(written(tmp_path, gzip.compress(b"{}")[:cut])))


@pytest.mark.parametrize(
    ("data", "kind", "advice"),
    [
        (b"\x28\xb5\x2f\xfd\x04\x00", "compressed with zstd", "zstd -d FILE"),
        (b"PK\x03\x04rest", "a ZIP archive", "unpack it first"),
        (b"7z\xbc\xaf\x27\x1crest", "a 7-Zip archive", "unpack it first"),
        (b"\x04\x22\x4d\x18rest", "compressed with LZ4", "lz4 -d FILE"),
        (b"PAR1\x15\x04\x15", "an Apache Parquet file", "export it as JSON Lines or TSV"),
        (b"ARROW1\x00\x00", "an Apache Arrow file", "export it as JSON Lines or TSV"),
        (b"\x80\x04\x95rest", "a Python pickle", "export it"),
        (b"a" * 257 + b"ustar\x0000", "a tar archive", "tar -xf FILE"),
        (TEXT.encode("utf-16"), "text in UTF-16", "iconv -f UTF-16 -t UTF-8 FILE"),
        (TEXT.encode("utf-16-le"), "text in UTF-16LE", "iconv -f UTF-16LE"),
        (TEXT.encode("utf-16-be"), "text in UTF-16BE", "iconv -f UTF-16BE"),
        (TEXT.encode("utf-32"), "text in UTF-32", "iconv -f UTF-32"),
        (TEXT.encode("utf-32-be"), "text in UTF-32BE", "iconv -f UTF-32BE"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_is_no_utf8_text_is_named_with_the_way_out(tmp_path, data, kind, advice, pack):
    """Also inside an archive."""
    path = written(tmp_path, pack(data), "f.jsonl")
    for read in (read_lines, read_text):
        with pytest.raises(DataError) as caught:
            list(read(path))
        assert str(caught.value).startswith(f"{path}: {kind}, expected UTF-8 text; ")
        assert advice in str(caught.value)


@pytest.mark.parametrize(
    "text", ["PAR1\tx", "ORC 0 d 1", "ARROW1\tsegment", "FEA1 x", "GGUF x", "LZIP\tx", "BZh\tx", "%P x"]
)
def test_an_id_that_looks_like_a_magic_number_is_text(tmp_path, text):
    """These magic numbers are letters; in binary files, other bytes follow them."""
    assert list(read_lines(written(tmp_path, text))) == [(1, text)]


def test_a_file_that_is_packed_twice_is_named(tmp_path):
    """An accidental `.gz.gz`."""
    path = written(tmp_path, gzip.compress(bz2.compress(b"x")))
    with pytest.raises(DataError, match=r"compressed twice \(gzip, then bzip2\); unpack it once"):
        list(read_lines(path))


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\ufeff"])
def test_a_byte_order_mark_is_dropped_at_the_start_of_any_line(tmp_path, mark):
    """As in `cat a.run b.run` if an editor added marks to both. Inside a line, the mark is kept for the reader of the
    field.
    """
    text = f"{mark}a\nb\n{mark}c\r\n{mark}\n{mark}  \nd{mark}e\n{mark}f"
    assert list(read_lines(written(tmp_path, text))) == [(1, "a"), (2, "b"), (3, "c"), (6, f"d{mark}e"), (7, "f")]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_lines_do_not_depend_on_where_blocks_end(tmp_path, monkeypatch, size):
    """Marks, letters of several bytes and `\\r\\n` may be cut anywhere."""
    path = written(tmp_path, "\ufeffab\r\n\ufeffé数\n\n\rlast\ufeff")
    monkeypatch.setattr(reading, "_BLOCK_BYTES", size)
    assert list(read_lines(path)) == [(1, "ab"), (2, "é数"), (5, "last\ufeff")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\nc\xff\n", "f:3: not UTF-8 (invalid start byte)"),
        (b"a\nb\xc3", "f:2: not UTF-8 (unexpected end of data)"),
        (b"a\r\rb\x00c\n", "f:3: contains a NUL byte"),
        ("é\n".encode("latin-1"), "f:1: not UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path, data, message):
    """The line number is exact."""
    with pytest.raises(DataError) as caught:
        list(read_lines(written(tmp_path, data)))
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_a_line_that_is_no_text_does_not_end_the_file(tmp_path):
    """Each error has the message of the strict reader; the text lines are the same."""
    data = "é\r".encode() + b"\xff\n\n\xed\xa0\x80\r\nb\x00c\n" + "\ufeff数\n".encode() + b"d\xc3"
    path = written(tmp_path, data)
    found = {number: line if isinstance(line, str) else str(line) for number, line in read_sound_lines(path)}
    assert found == {
        1: "é",
        2: f"{path}:2: not UTF-8 (invalid start byte)",
        4: f"{path}:4: not UTF-8 (invalid continuation byte)",
        5: f"{path}:5: contains a NUL byte, expected text; is this a binary or damaged file?",
        6: "数",
        7: f"{path}:7: not UTF-8 (unexpected end of data)",
    }
    assert list(read_sound_lines(written(tmp_path, TEXT.encode()))) == LINES


def test_lines_that_end_nothing_are_bounded_all_the_same(tmp_path, monkeypatch):
    """Endless zeros, and a damaged archive."""
    monkeypatch.setattr(reading, "MAX_LINE_CHARACTERS", 1 << 20)
    with pytest.raises(DataError, match=r"f:2: line longer than 1,048,576 characters"):
        list(read_sound_lines(written(tmp_path, b"a\n" + bytes(2 << 20))))
    with pytest.raises(DataError, match="damaged archive"):
        list(read_sound_lines(written(tmp_path, gzip.compress(TEXT.encode() * 99)[:-20])))


def test_a_line_without_an_end_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    """For any length: here 200 MB in an archive of 200 KB."""
    monkeypatch.setattr(reading, "MAX_LINE_CHARACTERS", 1 << 20)
    path = written(tmp_path, gzip.compress(b"first\n" + bytes(65 for _ in range(1000)) * 200_000, 1))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"f:2: line longer than 1,048,576 characters"):
        list(read_lines(path))
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_an_archive_that_unpacks_for_ever_is_refused(tmp_path):
    """80 MB of blank lines in a few bytes, repeated."""
    path = written(tmp_path, bz2.compress(b" \n" * (1 << 20)) * 40)
    with pytest.raises(DataError, match=r"decompresses to more than 200 times its size"):
        list(read_lines(path))


def test_a_small_file_may_shrink_as_much_as_it_likes(tmp_path):
    """A million equal lines are not a decompression bomb."""
    path = written(tmp_path, gzip.compress(b"same\n" * 1_000_000))
    assert sum(1 for _ in read_lines(path)) == 1_000_000


def test_what_cannot_be_opened_is_one_line(tmp_path):
    """Missing, a folder, or a name that is too long or invalid."""
    for name, message in [
        ("none", "no such file"),
        (".", "is a folder, expected a file"),
        ("x" * 300, "cannot be opened (File name too long)"),
        ("a\x00b", "cannot be opened (embedded null byte)"),
    ]:
        for read in (read_lines, read_text):
            with pytest.raises(RankLLMError) as caught:
                list(read(f"{tmp_path}/{name}"))
            assert str(caught.value) == f"{tmp_path}/{name}: {message}"


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")
def test_a_device_without_end_is_refused_at_once():
    """`--corpus /dev/zero`."""
    with pytest.raises(DataError, match="/dev/zero:1: contains a NUL byte"):
        list(read_lines("/dev/zero"))


def test_a_stream_is_read_like_a_file():
    """Standard input may be compressed and contain byte-order marks."""
    source = io.BytesIO(gzip.compress("\ufeffa\nb\n".encode()))
    assert list(read_lines("-", source=source)) == [(1, "a"), (2, "b")]
    assert not source.closed


def test_a_text_that_is_too_long_to_hold_is_refused(tmp_path):
    """Settings and example arrays are small."""
    path = written(tmp_path, "x" * 11)
    assert read_text(path, limit=11) == "x" * 11
    with pytest.raises(DataError, match="more than 10 characters"):
        read_text(path, limit=10)


def test_an_open_stream_reports_damage_too(tmp_path):
    """For callers that need a stream."""
    with pytest.raises(DataError, match="not UTF-8"), open_text(written(tmp_path, b"a\xff")) as stream:
        stream.read()


def test_names_are_known_without_what_packs_them():
    """Case is ignored."""
    assert [unpacked_name(name) for name in ("a/B.JSONL.GZ", "b.json.bz2", "c.tsv", "d.xz")] == [
        "b.jsonl", "b.json", "c.tsv", "d",
    ]  # fmt: skip


def test_a_message_is_one_line_whatever_it_quotes():
    """File names and ids may contain escape sequences, line breaks and lone surrogates."""
    assert one_line("a\n\x1b[31mb\udcff\u200b é数\u00a0") == "a\\n\\x1b[31mb\\udcff\\u200b é数\u00a0"
    assert len(one_line("x" * 10_000)) < 2_010
