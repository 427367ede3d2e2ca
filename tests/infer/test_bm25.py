"""BM25: formula, ties, edge cases, and figures on a published dataset."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
import weakref

import pytest
from shared_files import data

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.retrieval.bm25 import BM25Index, title_and_text


def test_scores_follow_the_lucene_formula():
    """Three documents of 3, 2 and 1 words (2 on average), computed by hand with k1 0.9 and b 0.4."""
    index = BM25Index.build([("a", "cat cat dog"), ("b", "dog bird"), ("c", "fish")])

    # N = 3. "cat" is in one document, "dog" in two: idf = ln(1 + (N - df + 0.5) / (df + 0.5)).
    idf_cat = math.log(1 + 2.5 / 1.5)
    idf_dog = math.log(1 + 1.5 / 2.5)
    # k1 * (1 - b + b * length / average): 0.9 * (0.6 + 0.4 * 1.5) = 1.08 for a, 0.9 * (0.6 + 0.4 * 1) = 0.9 for b.
    score_a = idf_cat * 2 / (2 + 1.08) + idf_dog * 1 / (1 + 1.08)
    score_b = idf_dog * 1 / (1 + 0.9)

    hits = index.search("cat dog", 10)
    assert [docid for docid, _ in hits] == ["a", "b"]
    assert [score for _, score in hits] == pytest.approx([score_a, score_b], rel=1e-6)


def test_case_endings_and_stop_words_do_not_matter():
    """`the CATS` finds the same as `cat` with the same score; stop words do not lengthen a document."""
    index = BM25Index.build([("a", "The cat and the dog"), ("b", "a bird")])
    assert index.search("Is it the CATS?", 5) == index.search("cat", 5)
    # Two words against one: 1.5 on average; idf = ln(1 + 1.5 / 1.5); 0.9 * (0.6 + 0.4 * 2 / 1.5) = 1.02.
    assert index.search("cat", 5) == [("a", pytest.approx(math.log(2) / 2.02, rel=1e-6))]


@pytest.mark.parametrize("query", ["", "the of and", "zebra", "?!"])
def test_a_query_without_known_words_finds_nothing(query):
    """No match is not an error: the list is empty."""
    assert BM25Index.build([("a", "cat"), ("b", "")]).search(query, 5) == []


def test_documents_without_a_query_word_are_left_out():
    """The list is shorter than the depth instead of being padded with zero scores."""
    index = BM25Index.build([("a", "cat"), ("b", "dog"), ("c", "")])
    assert [docid for docid, _ in index.search("dog", 3)] == ["b"]


def test_equal_scores_stay_in_the_order_of_the_collection():
    """Forty equal documents with ids in reverse order, and a better one among them."""
    documents = [(f"d{99 - number}", "cat dog") for number in range(40)]
    documents.insert(25, ("best", "cat cat"))
    hits = BM25Index.build(documents).search("cat", 30)
    assert [docid for docid, _ in hits] == ["best", *(f"d{99 - number}" for number in range(29))]


def test_depth_cuts_the_list():
    """At most `depth` hits; all if there are fewer."""
    index = BM25Index.build([("a", "cat"), ("b", "cat cat"), ("c", "cat cat cat")])
    assert len(index.search("cat", 2)) == 2
    assert len(index.search("cat", 99)) == 3


def test_scores_are_plain_floats():
    """So that they can be written to JSON and run files."""
    [(docid, score)] = BM25Index.build([("a", "cat")]).search("cat", 1)
    assert (type(docid), type(score)) == (str, float)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "collection is empty"),
        ([("a", "cat"), ("a", "dog")], "docid 'a' occurs twice"),
        ([("a", "the"), ("b", "")], "none of the 2 documents contains a word"),
    ],
)
def test_a_collection_that_cannot_be_indexed_is_refused(documents, message):
    """The message states what was found and what to do."""
    with pytest.raises(RankLLMError, match=message):
        BM25Index.build(documents)


def test_a_depth_below_one_is_refused():
    """Zero hits are never intended."""
    with pytest.raises(ConfigError, match="expected depth of at least 1, found 0"):
        BM25Index.build([("a", "cat")]).search("cat", 0)


def test_a_title_precedes_the_text_where_there_is_one():
    """Separated by one space, with none at the ends."""
    assert title_and_text("Cats", "They purr.") == "Cats They purr."
    assert title_and_text("", "They purr.") == "They purr."


def test_building_and_searching_print_nothing(capfd):
    """Progress bars belong to the command line."""
    BM25Index.build([("a", "cat"), ("b", "dog")]).search("cat", 2)
    assert capfd.readouterr() == ("", "")


def test_importing_loads_nothing_heavy():
    """`--help` stays fast: neither module imports numpy, bm25s or torch until needed."""
    program = (
        "import sys, rankllm_infer.retrieval.bm25, rankllm_infer.demo.collection;"
        "print(sorted({'numpy', 'bm25s', 'Stemmer', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_scifact_scores_as_recorded():
    """nDCG@10 and recall of BM25 on SciFact's 300 test claims, as recorded with the dataset."""
    import pytrec_eval

    recorded = json.loads(data("scifact/bm25.json").read_text())["main"]
    with gzip.open(data("scifact/corpus.jsonl.gz"), "rt", encoding="utf-8") as stream:
        documents = [json.loads(line) for line in stream]
    index = BM25Index.build((doc["docid"], title_and_text(doc["title"], doc["text"])) for doc in documents)
    queries = dict(line.split("\t", 1) for line in data("scifact/queries.tsv").read_text().splitlines())
    qrels: dict[str, dict[str, int]] = {}
    for line in data("scifact/qrels.txt").read_text().splitlines():
        qid, _, docid, grade = line.split()
        qrels.setdefault(qid, {})[docid] = int(grade)

    run = {qid: dict(index.search(queries[qid], 100)) for qid in qrels}
    measured = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100"}).evaluate(run)

    assert len(measured) == recorded["queries"]
    for measure, expected in (("ndcg_cut_10", recorded["ndcg10"]), ("recall_100", recorded["recall100"])):
        mean = sum(query[measure] for query in measured.values()) / len(measured)
        assert mean == pytest.approx(expected, abs=0.002), measure


def test_a_saved_index_finds_the_same(tmp_path):
    """Documents, scores and order survive saving; a query without known words still finds nothing."""
    index = BM25Index.build([("a", "cat cat dog"), ("b", "dog bird"), ("c", "fish")], k1=1.2, b=0.75)
    index.save(tmp_path / "index")
    loaded = BM25Index.load(tmp_path / "index")
    assert loaded.search("cats and dogs", 10) == index.search("cats and dogs", 10) != []
    assert loaded.search("zebra", 10) == []


def test_settings_reach_the_formula():
    """k1 1.2 and b 0.75, computed by hand: one matching one-word document; lengths 2 and 1, 1.5 on average."""
    [(docid, score)] = BM25Index.build([("a", "cat"), ("b", "dog bird")], k1=1.2, b=0.75).search("cat", 5)
    assert (docid, score) == ("a", pytest.approx(math.log(2) / (1 + 1.2 * (0.25 + 0.75 / 1.5)), rel=1e-6))


@pytest.mark.parametrize("settings", [{"k1": -0.1}, {"b": 1.1}, {"b": -0.1}, {"k1": math.nan}])
def test_impossible_settings_are_refused(settings):
    """They are meaningless in the formula."""
    with pytest.raises(ConfigError, match="expected k1 of at least 0 and b from 0 to 1"):
        BM25Index.build([("a", "cat")], **settings)


def test_texts_are_not_kept():
    """Of 9,000 documents that arrive one by one, only a few batches are alive at any time."""
    alive = weakref.WeakSet()
    most = 0

    class Text(str):
        """A text that supports weak references."""

    def documents():
        nonlocal most
        for number in range(9_000):
            text = Text(f"word{number} cat")
            alive.add(text)
            most = max(most, len(alive))
            yield f"d{number}", text

    index = BM25Index.build(documents())
    assert len(index.docids) == 9_000
    assert most <= 4_001


def test_words_keep_their_meaning_over_many_batches():
    """5,000 documents, more than one tokenization batch; the word order differs between batches."""
    words = ["cat", "dog", "bird", "fish", "horse"]
    documents = [(f"d{n}", " ".join(words[n % 5 :] + words[: n % 5]) + f" only{n}") for n in range(5_000)]
    index = BM25Index.build(iter(documents))
    assert [docid for docid, _ in index.search("only4321", 9)] == ["d4321"]
    assert [docid for docid, _ in index.search("horses", 3)] == ["d0", "d1", "d2"]


def _recorded(folder, run):
    from rankllm_core.data.collections import read_corpus, read_queries
    from rankllm_core.trec import read_qrels, read_run

    source = data(folder)
    corpus = read_corpus(next(source.glob("corpus.jsonl*")))
    index = BM25Index.build((docid, title_and_text(doc["title"], doc["text"])) for docid, doc in corpus)
    queries = read_queries(source / "queries.tsv")
    recorded = read_run(source / "runs" / run)
    return recorded, {qid: index.search(queries[qid], 100) for qid in recorded}, read_qrels(source / "qrels.txt")


@pytest.mark.parametrize(("folder", "run"), [("nq_qed", "bm25.run.gz"), ("nfcorpus", "bm25.run")])
def test_recorded_runs_come_out(folder, run):
    """Every score of a run generated by bm25s itself, to all five decimals, and its exact nDCG@10."""
    from rankllm_infer.evaluation.evaluate import evaluate

    recorded, found, qrels = _recorded(folder, run)
    for qid, ranking in recorded.items():
        assert [score for _, score in found[qid]] == pytest.approx([score for _, score in ranking], abs=1e-5), qid
    # Equal scores stand in another order here; evaluation orders them by docid in both.
    figures = [evaluate(qrels, which, ["nDCG@10"]).means["nDCG@10"] for which in (recorded, found)]
    assert figures[1] == pytest.approx(figures[0], abs=1e-9)
