"""The bundled collection matches its README."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from rankllm_infer.demo.collection import DemoCollection, demo_folder, load_demo_collection
from rankllm_infer.retrieval.bm25 import BM25Index, title_and_text


@pytest.fixture(scope="module")
def collection() -> DemoCollection:
    return load_demo_collection()


@pytest.fixture(scope="module")
def first_stage(collection):
    """BM25's top 100 for each query."""
    index = BM25Index.build(
        (docid, title_and_text(doc["title"], doc["text"])) for docid, doc in collection.corpus.items()
    )
    return {qid: index.search(text, 100) for qid, text in collection.queries.items()}


def mean_ndcg10(qrels, run) -> float:
    """trec_eval's nDCG@10 over all judged queries."""
    import pytrec_eval

    measured = pytrec_eval.RelevanceEvaluator(
        {qid: dict(grades) for qid, grades in qrels.items()}, {"ndcg_cut.10"}
    ).evaluate({qid: dict(hits) for qid, hits in run.items()})
    return sum(measured.get(qid, {"ndcg_cut_10": 0.0})["ndcg_cut_10"] for qid in qrels) / len(qrels)


def test_the_collection_has_the_size_that_its_readme_states(collection):
    """336 passages, 27 queries, and 54, 81 and 233 judgements of grade 2, 1 and 0."""
    grades = Counter(grade for judged in collection.qrels.values() for grade in judged.values())
    assert (len(collection.corpus), len(collection.queries)) == (336, 27)
    assert grades == {2: 54, 1: 81, 0: 233}


def test_every_query_has_answers_helps_and_near_misses(collection):
    """Two answers, three helpful passages and at least six near misses each."""
    assert collection.qrels.keys() == collection.queries.keys()
    for qid, judged in collection.qrels.items():
        grades = Counter(judged.values())
        assert (grades[2], grades[1]) == (2, 3), qid
        assert grades[0] >= 6, qid


def test_every_judged_passage_exists(collection):
    """A judged passage that cannot be found would cap every score."""
    judged = {docid for grades in collection.qrels.values() for docid in grades}
    assert judged <= collection.corpus.keys()


def test_no_file_names_a_thing_twice():
    """Repeated keys would be lost on loading, so the lines themselves are counted."""
    corpus = [json.loads(line)["docid"] for line in lines("corpus.jsonl")]
    queries = [line.split("\t")[0] for line in lines("queries.tsv")]
    judgements = [tuple(line.split()[::2]) for line in lines("qrels.txt")]
    for names in (corpus, queries, judgements):
        assert len(names) == len(set(names))


def test_every_line_has_the_documented_fields():
    """Corpus: docid, title, text. Queries: two tab-separated fields. Qrels: four fields split by one space."""
    assert all(list(json.loads(line)) == ["docid", "title", "text"] for line in lines("corpus.jsonl"))
    assert all(len(line.split("\t")) == 2 for line in lines("queries.tsv"))
    assert all(len(line.split(" ")) == 4 and line.split(" ")[1] == "0" for line in lines("qrels.txt"))


def test_identifiers_are_safe_in_trec_files(collection):
    """TREC files are split at whitespace, so qids and docids must not contain any."""
    assert all(name and name.isascii() and name.isalnum() for name in [*collection.corpus, *collection.queries])


def test_passages_are_short_paragraphs(collection):
    """20 to 60 words on one line, without extra spaces at the ends or in between."""
    for docid, doc in collection.corpus.items():
        assert 20 <= len(doc["text"].split()) <= 60, docid
        for field in doc.values():
            assert field == " ".join(field.split()), docid


def test_no_text_occurs_twice(collection):
    """No passage, passage beginning, title or query is repeated, ignoring case."""
    texts = [doc["text"].casefold() for doc in collection.corpus.values()]
    openings = [text[:40] for text in texts]
    titles = [doc["title"].casefold() for doc in collection.corpus.values() if doc["title"]]
    queries = [text.casefold() for text in collection.queries.values()]
    for group in (texts, openings, titles, queries):
        assert len(group) == len(set(group))


def test_a_missing_title_says_nothing_about_relevance(collection):
    """Some passages of every grade have no title."""
    untitled = {docid for docid, doc in collection.corpus.items() if not doc["title"]}
    grades = {grade for judged in collection.qrels.values() for docid, grade in judged.items() if docid in untitled}
    assert grades == {0, 1, 2}


def test_the_order_of_docids_says_nothing_about_relevance(collection):
    """In docid order a query's relevant passages are spread: ranking by docid is as poor as chance.

    By chance, the first ten of 336 passages hold 0.15 of a query's five relevant ones.
    """
    by_docid = {
        qid: [(docid, -float(rank)) for rank, docid in enumerate(collection.corpus)] for qid in collection.qrels
    }
    assert mean_ndcg10(collection.qrels, by_docid) < 0.1


def test_the_first_ten_hits_are_all_judged(collection, first_stage):
    """BM25's top ten contain no unjudged passage, so its nDCG@10 depends on judgements alone."""
    for qid, hits in first_stage.items():
        assert {docid for docid, _ in hits[:10]} <= collection.qrels[qid].keys()


def test_word_matching_is_good_but_leaves_room(collection, first_stage):
    """BM25 alone scores between 0.5 and 0.9, about the 0.61 stated in the README."""
    ndcg10 = mean_ndcg10(collection.qrels, first_stage)
    assert 0.5 < ndcg10 < 0.9
    assert ndcg10 == pytest.approx(0.61, abs=0.02)


def test_a_perfect_reranker_reaches_the_top(collection, first_stage):
    """All relevant passages are among the top 100, so reordering them can score 1."""
    for qid, hits in first_stage.items():
        relevant = {docid for docid, grade in collection.qrels[qid].items() if grade > 0}
        assert relevant <= {docid for docid, _ in hits}, qid


def test_loading_gives_what_the_files_say(collection):
    """One line of each file, checked by eye."""
    doc = collection.corpus["d001"]
    assert doc["title"] == "Closed archives"
    assert doc["text"].startswith("Secret diplomatic messages are often kept from the public")
    assert collection.queries["q01"] == "how do noise cancelling headphones work"
    assert next(iter(collection.qrels["q01"].items())) == ("d017", 0)


def lines(name: str) -> list[str]:
    return [line for line in (demo_folder() / name).read_text(encoding="utf-8").split("\n") if line]
