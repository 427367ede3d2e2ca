"""Indexes on disk: reused if they match, rebuilt with a stated reason, complete or absent."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from rankllm_core.errors import DataError, RankLLMError
from rankllm_infer.retrieval.bm25_cache import open_index

CORPUS = '{"docid": "a", "title": "Cats", "text": "purr"}\n{"docid": "b", "text": "dogs bark"}\n'


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two documents."""
    path = tmp_path / "corpus.jsonl"
    path.write_text(CORPUS, encoding="utf-8")
    return path


@pytest.fixture
def told(tmp_path, corpus):
    """Open the index; return its messages and search results."""

    def open_it(query="cat", **options):
        lines = []
        index = open_index(corpus, **{"folder": tmp_path / "index", "tell": lines.append, **options})
        return "\n".join(lines), [docid for docid, _ in index.search(query, 10)]

    return open_it


def hidden(folder):
    """Hidden files next to the index."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_an_index_is_made_once(told, tmp_path):
    """The second time it is loaded; titles are indexed along with texts."""
    assert told() == (f"Built the index of {tmp_path}/corpus.jsonl with 2 documents in {tmp_path}/index", ["a"])
    assert told() == (f"Using the index of {tmp_path}/corpus.jsonl in {tmp_path}/index", ["a"])
    assert hidden(tmp_path) == []


def test_a_changed_corpus_makes_a_new_index(told, corpus, tmp_path):
    """Even if neither name nor length has changed; the reason is reported."""
    told()
    corpus.write_text(CORPUS.replace("Cats", "Owls"), encoding="utf-8")
    lines, found = told()
    assert f"Rebuilding the index in {tmp_path}/index: the corpus has changed" in lines
    assert found == []
    assert told("owl")[1] == ["a"]
    assert hidden(tmp_path) == []


def test_changed_settings_make_a_new_index(told):
    """The old and new values are reported."""
    told()
    assert ": k1 was 0.9, is 1.2" in told(k1=1.2)[0]
    assert ": b was 0.4, is 0.75" in told(k1=1.2, b=0.75)[0]


@pytest.mark.parametrize("damage", ["data.csc.index.npy", "docids.json", "rankllm-bm25.json", "vocab.index.json"])
def test_a_damaged_index_is_made_anew(told, tmp_path, damage):
    """A truncated file is detected instead of searched."""
    told()
    (tmp_path / "index" / damage).write_bytes(b"")
    lines, found = told()
    assert "Rebuilding the index" in lines
    assert found == ["a"]


def test_a_flipped_byte_never_changes_what_is_found(corpus, tmp_path):
    """At any position in any file of the index: it is rebuilt and the file named, or the folder is rejected."""
    texts = [f"word{n % 7} word{n % 11} word{n % 13} cat{n % 3}" for n in range(60)]
    corpus.write_text("".join(json.dumps({"docid": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    queries = ("word1 cat2", "word5 word3", "word10 cat1 word0")

    def found(folder, lines):
        index = open_index(corpus, folder=folder, tell=lines.append)
        return [index.search(query, 60) for query in queries]

    whole, n_rebuilt = found(tmp_path / "whole", []), 0
    for number in range(120):
        draw = random.Random(number)
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", folder)
        path = draw.choice(sorted(folder.iterdir()))
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        lines = []
        try:
            hits = found(folder, lines)
        except RankLLMError as error:  # the manifest could be anything's
            hits, lines = whole, [str(error)]
        else:
            n_rebuilt += "Rebuilding the index" in lines[0]
        assert hits == whole, (number, path.name)
        assert path.name in lines[0] or path.name == "rankllm-bm25.json"
        assert str(folder) in lines[0]
        shutil.rmtree(folder)
    assert n_rebuilt > 90


def test_files_of_another_index_are_noticed(told, corpus, tmp_path):
    """Each is intact, but not the one written here."""
    told()
    before = (tmp_path / "index" / "docids.json").read_bytes()
    (tmp_path / "index" / "docids.json").write_bytes(before.replace(b'"a", "b"', b'"b", "a"'))
    lines, found = told()
    assert ": it is damaged (the checksum of docids.json does not match)" in lines
    assert found == ["a"]
    (tmp_path / "index" / "vocab.index.json").unlink()
    assert ": it is damaged (vocab.index.json is missing)" in told()[0]


def test_the_default_folder_is_in_the_users_cache(told, tmp_path, monkeypatch):
    """Each configuration has its own folder there, so switching back and forth rebuilds nothing."""
    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path / "cache"))
    told(folder=None)
    told(folder=None, k1=1.2)
    assert "Using the index" in told(folder=None)[0]
    assert len(list((tmp_path / "cache" / "bm25").iterdir())) == 2


def test_a_broken_corpus_leaves_nothing_behind(told, corpus, tmp_path):
    """An existing index is preserved."""
    told()
    before = json.loads((tmp_path / "index" / "rankllm-bm25.json").read_text(encoding="utf-8"))
    corpus.write_text(CORPUS + "{oops\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"corpus\.jsonl:3: not JSON"):
        told()
    assert json.loads((tmp_path / "index" / "rankllm-bm25.json").read_text(encoding="utf-8")) == before
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("notes.txt", "mine", r"contains other files than an index \(such as notes.txt\); use a new folder"),
        ("index.json", "{}", r"contains other files than an index \(such as index.json\)"),
        ("docids.json", "[]", r"contains other files than an index \(it has no rankllm-bm25.json\)"),
        ("rankllm-bm25.json", '{"mine": 1}', r"its rankllm-bm25.json does not describe an index"),
        ("segments_1", "mine", "contains a Lucene index; search it with --index"),
    ],
)
def test_a_folder_with_something_else_is_left_alone(told, tmp_path, name, text, message):
    """It might be the user's only copy."""
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / name).write_text(text, encoding="utf-8")
    with pytest.raises(RankLLMError, match=message):
        told()
    assert (tmp_path / "index" / name).read_text(encoding="utf-8") == text


def test_what_a_person_puts_beside_an_index_is_not_deleted(told, corpus, tmp_path):
    """For example a run written into the folder of an outdated index, before or during the rebuild."""
    told()
    corpus.write_text(CORPUS.replace("Cats", "Owls"), encoding="utf-8")

    def write_run(number):
        (tmp_path / "index" / "my.run").write_text("mine", encoding="utf-8")

    for progress in (write_run, lambda number: None):
        with pytest.raises(RankLLMError, match=r"contains other files than an index \(such as my\.run\)"):
            told(progress=progress)
        assert (tmp_path / "index" / "my.run").read_text(encoding="utf-8") == "mine"
        assert hidden(tmp_path) == []


def test_a_folder_under_the_name_of_an_indexs_file_is_left_alone(told, tmp_path):
    """Its contents belong to the user."""
    told()
    (tmp_path / "index" / "docids.json").unlink()
    (tmp_path / "index" / "docids.json").mkdir()
    with pytest.raises(RankLLMError, match=r"contains other files than an index \(such as docids\.json\)"):
        told()
    assert (tmp_path / "index" / "docids.json").is_dir()


def test_a_linked_folder_stays_a_link(told, tmp_path):
    """The index is built and rebuilt in the link's target."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "index").symlink_to(tmp_path / "disk")
    told()
    assert told(k1=1.2)[1] == ["a"]
    assert (tmp_path / "index").is_symlink()
    assert (tmp_path / "disk" / "rankllm-bm25.json").is_file()


def test_the_current_folder_is_read_and_never_replaced(told, tmp_path, monkeypatch):
    """Replacing it would leave the user's shell in a deleted folder."""
    told()
    monkeypatch.chdir(tmp_path / "index")
    assert told(folder=Path()) == (f"Using the index of {tmp_path}/corpus.jsonl in .", ["a"])
    with pytest.raises(RankLLMError, match="is the current folder; use another folder"):
        told(folder=Path(), k1=1.2)


def test_an_index_that_another_process_made_meanwhile_is_used(told, tmp_path):
    """Two processes that start at the same time both succeed, with the first complete index."""
    others = []

    def make_another(number):
        if not others:
            others.append(told()[0])

    lines, found = told(progress=make_another)
    assert others == [f"Built the index of {tmp_path}/corpus.jsonl with 2 documents in {tmp_path}/index"]
    assert (lines, found) == (f"Using the index of {tmp_path}/corpus.jsonl in {tmp_path}/index", ["a"])
    assert hidden(tmp_path) == []


def test_places_that_cannot_hold_or_give_anything_are_named(told, corpus, tmp_path):
    """A file in place of the folder, a missing corpus, a corpus that is not text."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RankLLMError, match="file: is a file, expected a folder"):
        told(folder=tmp_path / "file")
    with pytest.raises(RankLLMError, match="the index cannot be written"):
        told(folder=tmp_path / "file" / "below")
    corpus.write_text('{"docid": "a", "text": ["x"]}\n', encoding="utf-8")
    with pytest.raises(RankLLMError, match="docid 'a': passage: text: expected text, found list"):
        told()
    corpus.unlink()
    with pytest.raises(RankLLMError, match="no such file"):
        told()
