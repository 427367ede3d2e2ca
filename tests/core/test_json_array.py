"""Arrays are read one record at a time, and errors give line and column for any chunk size."""

from __future__ import annotations

import json
import time

import pytest

from rankllm_core.errors import DataError
from rankllm_core.files.json_array import holds_array, read_array


def read(path, size=1 << 18):
    """All elements, with `place` in the message."""
    described = read_array(path, describe=lambda problem, column, text: f"{problem} at {column}", chunk_characters=size)
    return list(described)


@pytest.mark.parametrize("size", [1, 2, 5, 1 << 18])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a": ?}]', "f:2: not JSON: Expecting value at 8"),
        ('[{"a": 1}, {"a": ?}]', "f:1: not JSON: Expecting value at 18"),
        ('[{"a": 1},\n', "f:1: not JSON: Expecting value at 11"),
        ('[{"a": 1}\n{"a": 2}]', "f:2: not JSON: expected ',' or ']' after this record"),
        ('[{"a": 1}]\n\nx', "f:3: not JSON: expected nothing after the array"),
        ("[" * 200 + "]" * 200, "f:1: not usable: JSON is nested too deeply"),
        ("[" + "1" * 5000 + "]", "f:1: not usable: a number of more than 4300 digits"),
        ('[1,\n{"docid": "\\ud800"}]', "f:2: not usable: docid '\\ud800' contains a lone surrogate"),
    ],
)
def test_an_error_names_the_place_whatever_is_in_memory(tmp_path, size, text, message):
    """Chunks may end at any position."""
    (tmp_path / "f").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "f", size)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_hundreds_of_thousands_of_elements_on_one_line_take_linear_time(tmp_path):
    """Searching the start of the line for each element would take quadratic time."""
    (tmp_path / "f").write_text("[" + ",".join(["{}"] * 300_000) + "]", encoding="utf-8")
    began = time.process_time()
    assert len(read(tmp_path / "f", 1 << 20)) == 300_000
    assert time.process_time() - began < 6


def test_blanks_do_not_hide_an_array(tmp_path):
    """Any amount of leading whitespace is accepted; an object or an empty file is not an array."""
    for text, is_array in ((" \n" * 100_000 + "[]", True), ('{"a": []}', False), ("", False), ("\ufeff[1]", True)):
        (tmp_path / "f").write_text(text, encoding="utf-8")
        assert holds_array(tmp_path / "f") is is_array


def test_elements_come_with_their_lines(tmp_path):
    """Each element has the line where it begins."""
    records = [{"a": 1}, {"a": "x\ny"}, 3]
    (tmp_path / "f").write_text(json.dumps(records, indent=1), encoding="utf-8")
    assert read(tmp_path / "f", 3) == [(2, {"a": 1}), (5, {"a": "x\ny"}), (8, 3)]
