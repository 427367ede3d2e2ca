"""Ids that look identical or that a library cannot handle are rejected."""

from __future__ import annotations

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_core.files.json_text import check_id
from rankllm_core.trec import read_run


@pytest.mark.parametrize(
    "letter",
    "\ufeff\u200b\u200d\u00ad\u034f\ufe0f\u3164\u115f\uffa0\u180e\u202e\u206a\U000e0031\u2028\ufffe\uffff",
    ids=ascii,
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_character_without_width_is_refused_anywhere(letter, place):
    """Format characters, fillers, variation selectors, tags, line separators, a reversed byte-order mark."""
    text = "D1"[:place] + letter + "D1"[place:]
    with pytest.raises(RankLLMError, match=r"docid: .*U\+"):
        check_id(text, what="docid")


@pytest.mark.parametrize("text", ["D1", "clueweb22-en0000", "Müller", "日本", "a\u00a0b", "e\u0301", "😀", "doc 1"])
def test_ids_that_show_are_kept(text):
    """Other scripts, no-break spaces used by some collections, combining accents, emoji."""
    assert check_id(text, what="docid") == text


def test_a_run_is_checked_as_well(tmp_path):
    """The error gives the line."""
    path = tmp_path / "run"
    path.write_text("q Q0 d1 1 2 t\nq Q0 d\u3164 2 1 t\n", encoding="utf-8")
    with pytest.raises(RankLLMError, match=r"run:2: docid: .*U\+3164"):
        read_run(path)
