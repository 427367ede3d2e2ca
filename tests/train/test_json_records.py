"""JSON objects from files: lines or an array, in chunks, with every error located."""

from __future__ import annotations

import gzip
import json
import lzma
import os

import pytest

from rankllm_core.errors import DataError, RankLLMError
from rankllm_train.data import json_records
from rankllm_train.data.json_records import read_json_records

RECORDS = [
    {"id": number, "text": 'a "quoted" [1] }, {\\ é 😀' * number, "list": [number, [], {}]} for number in range(9)
]


def written(folder, name, text):
    path = folder / name
    opener = gzip.open if name.endswith(".gz") else lzma.open if name.endswith(".xz") else open
    with opener(path, "wt", encoding="utf-8") as stream:
        stream.write(text)
    return path


def values(path):
    return [record.value for record in read_json_records(path)]


LAYOUTS = {
    "lines": "\n".join(map(json.dumps, RECORDS)),
    "lines and blanks": "\n\n".join(map(json.dumps, RECORDS)) + "\n\n",
    "array": json.dumps(RECORDS),
    "array, unescaped": json.dumps(RECORDS, ensure_ascii=False),
    "array, indented": "\n\n" + json.dumps(RECORDS, indent=2) + "\n",
    "array, a line each": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]",
    "array, byte-order mark": "\ufeff" + json.dumps(RECORDS),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["records.json", "records.jsonl", "records", "records.jsonl.gz", "records.json.xz"])
def test_every_layout_is_read_whatever_its_name(tmp_path, layout, name):
    """The format is detected from the first character."""
    assert values(written(tmp_path, name, LAYOUTS[layout])) == RECORDS


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.startswith("array")])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_an_array_can_be_cut_anywhere(tmp_path, monkeypatch, layout, chunk):
    """Inside strings, escapes, numbers and between records: the chunks do not matter."""
    monkeypatch.setattr(json_records, "_CHUNK_CHARACTERS", chunk)
    assert values(written(tmp_path, "records.json", LAYOUTS[layout])) == RECORDS


def test_lines_are_numbered_from_one(tmp_path):
    """The line where a record starts, in JSON Lines and arrays, counting blank lines."""
    assert [r.line for r in read_json_records(written(tmp_path, "a", '{"a": 1}\n\n{"a": 2}\n'))] == [1, 3]
    array = '\n[\n  {"a":\n 1},\n\n  {"a": 2}, {"a": 3}\n]'
    assert [r.line for r in read_json_records(written(tmp_path, "b", array))] == [3, 6, 6]


@pytest.mark.parametrize("text", ["", "\n \n", "[]", " [ ] \n"])
def test_an_empty_file_holds_nothing(tmp_path, text):
    """No record, no error."""
    assert values(written(tmp_path, "empty.json", text)) == []


def test_records_come_before_the_file_is_read_to_its_end(tmp_path, monkeypatch):
    """The first record of an array is yielded although the file is damaged later."""
    monkeypatch.setattr(json_records, "_CHUNK_CHARACTERS", 16)
    records = read_json_records(written(tmp_path, "a.json", '[{"a": 1}, {"a": 2}, ' + "x" * 100))
    assert [next(records).value, next(records).value] == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match=r"a\.json:1: not JSON: Expecting value, found 'xxx"):
        next(records)


def test_a_bad_line_is_named_and_the_next_is_read(tmp_path):
    """A line that is not JSON, not an object, or nested too deeply does not hide the others."""
    deep = "[" * 100_000
    lines = ['{"a": 1}', '{"a": ', "[1]", '{"a": ' + deep, '{"a": ' + "9" * 5000 + "}", '{"a": 2}']
    found = values(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert [value for value in found if not isinstance(value, DataError)] == [{"a": 1}, {"a": 2}]
    messages = [str(value).partition("a.jsonl:")[2] for value in found if isinstance(value, DataError)]
    assert messages[0].startswith("2: not JSON: Expecting value at column")
    assert messages[1] == "3: line: expected an object, found an array"
    assert messages[2].startswith("4: not usable")
    assert messages[3].startswith("5: not usable")


def test_an_array_element_that_is_no_object_is_named_and_the_next_is_read(tmp_path):
    """Its end is known, so reading continues."""
    found = values(written(tmp_path, "a.json", '[{"a": 1},\n7,\n{"a": 2}]'))
    assert [found[0], found[2]] == [{"a": 1}, {"a": 2}]
    assert str(found[1]).endswith("a.json:2: array element: expected an object, found the number 7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}', r"a\.json:1: not JSON: expected ',' or '\]' after this record"),
        ('[{"a": 1},\n{"a": 2} {"a": 3}]', r"a\.json:2: not JSON: expected ',' or '\]' after this record"),
        ('[{"a": 1},\n{"a": "x}]', r"a\.json:2: not JSON: Unterminated string"),
        ('[{"a": 1},\n{"a"\n: ?}]', r"a\.json:3: not JSON: Expecting value, found '\?\}\]'"),
        ("[", r"a\.json:1: not JSON: Expecting value, found the end"),
        ('[{"a": 1},]', r"a\.json:1: not JSON: Expecting value"),
        ('[{"a": 1}]\n\n[', r"a\.json:3: not JSON: expected nothing after the array"),
        ("[" * 100_000, r"a\.json:1: not usable"),
    ],
)
@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_an_array_that_is_not_json_stops_with_the_place(tmp_path, monkeypatch, text, message, chunk):
    """With line and the text found there."""
    monkeypatch.setattr(json_records, "_CHUNK_CHARACTERS", chunk)
    with pytest.raises(DataError, match=message):
        values(written(tmp_path, "a.json", text))


@pytest.mark.parametrize("name", ["a.json.gz", "a.json.xz"])
@pytest.mark.parametrize("array", [True, False])
def test_a_cut_archive_is_an_error_in_one_line(tmp_path, name, array):
    """An incomplete download."""
    whole = RECORDS * 200
    path = written(tmp_path, name, json.dumps(whole) if array else "\n".join(map(json.dumps, whole)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged archive"):
        values(path)


LATIN_1 = '{"a": "é"}'.encode("latin-1")


def test_an_array_that_is_not_utf8_is_an_error_in_one_line(tmp_path):
    """The start of its next record is unknown."""
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + LATIN_1)
    with pytest.raises(DataError, match=r"a\.json:1: not UTF-8"):
        values(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("n_before", [0, 1, 100_000])
def test_a_line_that_is_not_utf8_is_one_bad_record(tmp_path, pack, n_before):
    """The first, the second, or one far beyond the first block; the lines around it are read."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(pack(b'{"b": "\xc3\xa9"}\r\n' * n_before + LATIN_1 + b'\n{"c": 1}\n\xff'))
    found = list(read_json_records(path))
    assert [record.line for record in found] == list(range(1, n_before + 4))
    assert all(record.value == {"b": "é"} for record in found[:n_before])
    bad, good, last = found[n_before:]
    assert str(bad.value).startswith(f"{path}:{n_before + 1}: not UTF-8 (")
    assert good.value == {"c": 1}
    assert str(last.value) == f"{path}:{n_before + 3}: not UTF-8 (invalid start byte)"


def test_a_missing_file_is_an_error_in_one_line(tmp_path):
    """A typing error causes no traceback."""
    with pytest.raises(RankLLMError, match="no such file"):
        values(tmp_path / "none.json")


def test_a_pipe_is_refused(tmp_path):
    """What was read to detect the format could not be read again."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RankLLMError, match=r"pipe: is a pipe, but must be read twice; give a file$"):
        values(tmp_path / "pipe")
