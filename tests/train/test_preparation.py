"""Building blocks of the data commands: passages on disk, text identity, and counts that add up."""

from __future__ import annotations

import tracemalloc

import pytest
from collections_on_disk import Collection

from rankllm_core.errors import RankLLMError
from rankllm_train.data.sameness import digest, normalised
from rankllm_train.preparation.passages import PassageStore, collect_passages
from rankllm_train.preparation.ranked_queries import read_ranked_queries
from rankllm_train.preparation.tally import Tally


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who  owns\tMGM ?", "who owns mgm"),
        ("\uff37ho owns \u201cMGM\u201d\u2014", "who owns mgm"),
        ("Stra\u00dfe", "strasse"),
        ("\u0915\u0940", "\u0915\u0940"),
        ("?!", "?!"),
        ("  ", ""),
    ],
)
def test_texts_are_the_same_but_for_case_blanks_and_punctuation(text, expected):
    """Combining marks are kept (Hindi ki is not k), and so is a text that consists of punctuation only."""
    assert normalised(text) == expected


def test_a_digest_is_the_same_in_every_process():
    """Expected: 64-bit BLAKE2b of the empty text, from the reference implementation."""
    assert digest("") == 0xE4A6A0577479B2B4
    assert digest("\ud800") != digest("")


def test_passages_come_back_as_they_were(tmp_path):
    """Any content is returned unchanged, in any order, and also after more passages were added."""
    with PassageStore(beside=tmp_path / "out") as store:
        store.add("a", title="T\n", text="caf\u00e9 \ud800 \U0001f600 \u2028")
        store.add("b", title="", text="")
        assert store.doc("a") == {"title": "T\n", "text": "caf\u00e9 \ud800 \U0001f600 \u2028"}
        store.add("c", title="only a title", text=" ")
        assert [store.doc(docid)["title"] for docid in "cab"] == ["only a title", "T\n", ""]
        assert store.words_digest("b") == 0
        assert store.words_digest("c") == digest("only a title\n")
        assert store.words_digest("a") == digest("t\ncaf\u00e9 \ud800 \U0001f600")
        assert "d" not in store
        store.add("a", title="T\n", text="caf\u00e9 \ud800 \U0001f600 \u2028")
        with pytest.raises(RankLLMError, match="docid 'a' occurs twice, with different contents"):
            store.add("a", title="", text="another")
    assert not list(tmp_path.iterdir())


def test_a_large_corpus_is_not_held_in_memory(tmp_path):
    """Passages beyond the memory limit, here 1 MB, are kept on disk and deleted at the end: 3 MB need less than 0.3 MB
    of memory.
    """
    text = "word " * 2_000
    with PassageStore(beside=tmp_path / "out", in_memory_bytes=1_000_000) as store:
        for number in range(200):
            store.add(f"d{number}", title="", text=f"{number} {text}")
        tracemalloc.start()
        for number in range(200, 500):
            store.add(f"d{number}", title="", text=f"{number} {text}")
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 300_000
        assert [store.doc(f"d{number}")["text"].split()[0] for number in (0, 199, 499)] == ["0", "199", "499"]
    assert not list(tmp_path.iterdir())


def test_a_conflict_in_the_corpus_names_the_file(tmp_path):
    """Conflicting texts for one docid and a text that is not a string are reported with file and docid."""
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("a\tone\na\ttwo\n", encoding="utf-8")
    with (
        PassageStore(beside=tmp_path / "out") as store,
        pytest.raises(RankLLMError, match=r"corpus.tsv: docid 'a' occurs twice"),
    ):
        collect_passages(corpus, store, needed={"a"})
    corpus = Collection(tmp_path).jsonl([{"docid": "a", "text": ["x"]}], "corpus.jsonl")
    with (
        PassageStore(beside=tmp_path / "out") as store,
        pytest.raises(RankLLMError, match=r"corpus.jsonl:1: docid 'a': .*text: expected text, found list"),
    ):
        collect_passages(corpus, store, needed={"a"})


def test_queries_of_a_run_are_ordered_by_score(tmp_path):
    """The rank column is ignored; ties keep the order of the file."""
    path = Collection(tmp_path).run({"q": {"a": 1, "b": 3, "c": 3, "d": 2}, "r": {"a": 1}})
    first, second = read_ranked_queries(path)
    assert first.candidates == (("b", 3), ("c", 3), ("d", 2), ("a", 1))
    assert second == ("r", (("a", 1),))


def test_a_tally_is_a_table_and_json():
    """It lists what was read and written, then each reason with its first three names."""
    tally = Tally()
    tally.see("queries", 1234)
    tally.make("records", 2)
    for name in "abcd":
        tally.leave_out("queries", "for a reason", name)
    tally.leave_out("candidates", "never", n=0)
    assert tally.lines() == [
        "read            1,234  queries",
        "made                2  records",
        "skipped             4  queries  for a reason (a, b, c, ...)",
    ]
    reason = {"what": "queries", "reason": "for a reason", "n": 4, "examples": ["a", "b", "c"]}
    assert tally.to_dict() == {"read": {"queries": 1234}, "made": {"records": 2}, "left_out": [reason], "notes": []}
    assert tally.n_left_out("queries") == 4
