"""Untrusted JSON is bounded, and unusable JSON gives a one-line error."""

from __future__ import annotations

import json

import pytest

from rankllm_core.data.records import read_requests, read_rerank_input
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import read_json, read_jsonl
from rankllm_core.files.json_text import as_id, check_id, parse_json

HALF = "\\ud800"


def refused(text, **place):
    """Return the error message."""
    with pytest.raises(DataError) as caught:
        parse_json(text, path="f", **place)
    return str(caught.value)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"text": "[[{{", "a": [[],'])
@pytest.mark.parametrize("depth", [102, 2_000, 200_000])
def test_deep_nesting_is_refused_whether_closed_or_not(opening, depth):
    """Python's parser fails at some depth and accepts values that cannot be written again."""
    for text in (opening * depth, "[" * depth + "]" * depth):
        assert refused(text, line=3).startswith("f:3: not ")


def test_brackets_in_text_are_no_nesting():
    """Many records on one line are not nested either."""
    text = json.dumps({"text": "[{" * 500, "candidates": [{"docid": "d", "doc": {}}] * 500})
    assert parse_json(text, path="f") == json.loads(text)
    assert parse_json("[" * 100 + "]" * 100, path="f")


def test_numbers_are_bounded():
    """The message omits Python's advice to call sys.set_int_max_str_digits."""
    assert refused("[" + "1" * 5000 + "]", line=1) == "f:1: not usable: a number of more than 4300 digits"


def test_a_line_of_millions_of_values_is_refused():
    """6 MB of `{},` would need half a gigabyte of memory."""
    assert "more than 2,000,000 values in one record" in refused("[" + "{}," * 2_000_000 + "{}]")


def test_syntax_errors_name_line_and_column(tmp_path):
    """The line is counted in files that contain a single value."""
    (tmp_path / "f.json").write_text('{"a": 1,\n "b": ?}', encoding="utf-8")
    with pytest.raises(DataError, match=r"f\.json:2: not JSON: Expecting value at column 7"):
        read_json(tmp_path / "f.json")
    assert refused("{") == "f:1: not JSON: Expecting property name enclosed in double quotes at column 2"


def test_the_last_of_equal_keys_counts():
    """This is the usual JSON behavior."""
    assert parse_json('{"a": 1, "a": 2}', path="f") == {"a": 2}


@pytest.mark.parametrize("key", ["qid", "docid", "_id", "id", "pid", "query_id"])
def test_half_a_character_in_an_id_is_refused_with_the_line(tmp_path, key):
    """A lone surrogate makes pytrec_eval crash with a segmentation fault."""
    path = tmp_path / "f.jsonl"
    path.write_text(f'{{"a": 1}}\n{{"x": [{{"{key}": "a{HALF}"}}]}}\n', encoding="ascii")
    with pytest.raises(DataError, match=rf"f\.jsonl:2: not usable: {key} .*a lone surrogate"):
        list(read_jsonl(path))


def test_half_a_character_in_a_text_is_kept():
    """Tokenization replaces a lone surrogate, and writing escapes it."""
    assert parse_json(f'{{"text": "a{HALF}", "id": "\\ud83d\\ude00"}}', path="f") == {"text": "a\ud800", "id": "😀"}


@pytest.mark.parametrize("field", ["qid", "docid"])
@pytest.mark.parametrize("letter", ["\\u0000", "\\u200b", "\\ufeff", "\\u200d", "\\u2060", "\\u001b", HALF])
def test_ids_that_look_alike_or_are_cut_are_refused_when_read(tmp_path, field, letter):
    """Either ID, in requests and in rerank-input."""
    ids = {"qid": "q", "docid": "d"} | {field: f"x{letter}y"}
    request = '{"query": {"text": "t", "qid": "%(qid)s"}, "candidates": [{"docid": "%(docid)s", "doc": {"text": "x"}}]}'
    row = '{"query_id": "%(qid)s", "query": "t", "docid": "%(docid)s", "text": "x"}'
    for text, read in ((request, read_requests), (row, read_rerank_input)):
        (tmp_path / "f.jsonl").write_text(text % ids, encoding="ascii")
        with pytest.raises(DataError, match=r"f\.jsonl:1: "):
            list(read(tmp_path / "f.jsonl"))


@pytest.mark.parametrize("text", ["d1", "größe", "数", "a b", "a\u00a0b", "😀", "<http://x/y?z=1#2>", "\ufffd", "a\tb"])
def test_ids_of_all_languages_pass(text):
    """Separators are restricted by the file format, not here."""
    assert check_id(text, what="docid") == as_id(text, what="docid") == text


def test_the_message_names_the_character():
    """The character is invisible."""
    with pytest.raises(RankLLMError, match=r"docid: 'a\\ufeffb' contains a byte-order mark \(U\+FEFF\); remove it"):
        check_id("a\ufeffb", what="docid")
