"""A random negative is never anything that a run, teacher or judge considers relevant, under any docid."""

from __future__ import annotations

import random

import pytest
from collections_on_disk import Collection, counts

from rankllm_train.data.rankings import ranking_of
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.label import RecordRule, label_judged
from rankllm_train.preparation.labelled import JudgedRule
from rankllm_train.preparation.mine import MineRule, mine
from rankllm_train.preparation.negatives import Margin, PoolRule
from rankllm_train.preparation.selection import EasyNegatives, RankedDocids
from rankllm_train.preparation.windows import WindowRule, record_writer

RUN = {"q1": {"d1": 9, "d2": 8, "d3": 1}, "q2": {"d2": 9, "d4": 1}}
QRELS = {"q1": {"d1": 1}, "q2": {"d2": 1}}
TEACHER = {"q1": {"d2": 9.5, "d1": 9, "d3": -5}, "q2": {"d2": 9, "d4": -5}}
QUERIES = {"q1": "first question", "q2": "second question"}
CORPUS = {f"d{i}": f"text number {i}" for i in range(1, 10)}
SHORT = ("random negatives", "requested, but no further eligible passages")


@pytest.fixture
def files(tmp_path):
    """A collection on disk."""
    return Collection(tmp_path)


def sources(files, *, run=RUN, qrels=QRELS, queries=QUERIES, corpus=CORPUS, teacher=None):
    """Return the files of a collection, by default those of the examples."""
    return JudgedSources(
        run=files.run(run),
        qrels=files.qrels(qrels),
        queries=files.queries(queries),
        corpus=files.corpus(corpus),
        teacher_run=None if teacher is None else files.run(teacher, "teacher.trec"),
    )


def mined(files, *, rule=None, **more):
    """Map qid -> docids of its negatives, with the tally."""
    tally = mine(sources(files, **more), MineRule(**rule or {}), output=files.path("out.jsonl"))
    records = files.read("out.jsonl")
    return {r["query_id"]: [p["docid"] for p in r["negative_passages"]] for r in records}, tally


def labelled(files, *, lists, **more):
    """Map qid -> docids best first, with the tally."""
    writer = record_writer(None, None, max_passage_words=300, max_size=20)
    rule = RecordRule(writer=writer, windows=WindowRule(min_size=2, max_size=20, per_query=30, shuffle=False))
    tally = label_judged(
        sources(files, **more), JudgedRule(**lists), rule, min_relevance=1, output=files.path("out.jsonl")
    )
    longest = {}
    for record in files.read("out.jsonl"):
        order = [record["docids"][int(name) - 1] for name in ranking_of(record["conversations"][-1]["value"])]
        longest.setdefault(record["id"].partition("_")[0], []).append(order)
    return {qid: max(orders, key=len) for qid, orders in longest.items()}, tally


def test_what_a_teacher_finds_too_near_is_not_drawn_either(files):
    """d2, the only positive of another query, was just rejected; q2 may still get d1, which no run ranks for it."""
    negatives, tally = mined(files, teacher=TEACHER, rule={"random_negatives": 3})
    assert negatives == {"q1": ["d3"], "q2": ["d4", "d1"]}
    assert counts(tally)["candidates", "teacher score too close to the best positive"] == 1
    assert counts(tally)[SHORT] == 3 + 2
    assert tally.made["random negatives"] == 1


@pytest.mark.parametrize(
    "pool",
    [
        PoolRule(min_rank=3),
        PoolRule(max_rank=1),
        PoolRule(margin=Margin(absolute=1.5)),
        PoolRule(margin=Margin(relative=0.5)),
    ],
)
def test_what_a_rank_or_a_margin_removed_is_not_drawn(files, pool):
    """d2 has rank 2 and a score of 8, next to the positive's 9."""
    negatives, _ = mined(files, rule={"random_negatives": 3, "pool": pool})
    assert "d2" not in negatives.get("q1", [])


def test_the_run_counts_below_the_depth_of_a_label(files):
    """Only q1's first candidate is labelled; d2, at rank 2, is no random negative and is not appended."""
    orders, tally = labelled(files, lists={"depth": 1, "random_negatives": 1})
    assert orders == {"q2": ["d2", "d1"]}
    assert counts(tally)[SHORT] == 1
    orders, _ = labelled(files, lists={"depth": 1, "random_negatives": 1}, run=RUN | {"q1": {"d1": 9}})
    assert orders == {"q1": ["d1", "d2"], "q2": ["d2", "d1"]}


def test_what_only_the_teacher_ranks_is_not_drawn(files):
    """Its run goes deeper than the first stage's, for `mine` and for `label`."""
    run = {"q1": {"d1": 9, "d3": 1}, "q2": {"d2": 9, "d4": 1}}
    negatives, _ = mined(files, run=run, teacher=TEACHER, rule={"random_negatives": 2})
    assert negatives["q1"] == ["d3"]
    orders, _ = labelled(files, run=run, teacher=TEACHER, lists={"random_negatives": 2})
    assert orders["q1"] == ["d1", "d3"]


def test_a_copy_of_what_is_ranked_or_judged_is_not_drawn(files):
    """d5, positive for q2, equals d3, which q1's run contains; d6 equals d7, which is graded for q1."""
    corpus = CORPUS | {"d5": "Text number 3.", "d6": "TEXT number 7"}
    qrels = {"q1": {"d1": 2, "d7": 1}, "q2": {"d5": 2, "d6": 2, "d8": 2}}
    rule = {"random_negatives": 9, "negatives_per_query": 0, "min_relevance": 2}
    negatives, _ = mined(files, corpus=corpus, qrels=qrels, rule=rule)
    assert negatives["q1"] == ["d8"]


def test_other_qids_of_the_question_count(files):
    """q3 is the same question as q1: what is ranked or judged relevant for it is excluded for q1 too."""
    queries = QUERIES | {"q3": "First  question?", "q4": "fourth"}
    run = RUN | {"q3": {"d8": 5, "d4": 4}, "q4": {"d9": 1}}
    qrels = {"q1": {"d1": 1}, "q2": {"d2": 1, "d4": 1, "d6": 1}, "q3": {"d7": 1}, "q4": {"d8": 1}}
    negatives, _ = mined(files, queries=queries, run=run, qrels=qrels, rule={"random_negatives": 9})
    # Of the positives d1 d2 d4 d6 d7 d8, q1 and q3 have d1 d7 themselves, and d2 d3 d4 d8 in their runs.
    assert set(negatives["q1"]) - {"d2", "d3"} == {"d6"}
    assert set(negatives["q3"]) - {"d4", "d8"} == {"d6"}
    orders, _ = labelled(files, queries=queries, run=run, qrels=qrels, lists={"random_negatives": 9})
    assert set(orders["q1"]) == {"d1", "d7", "d2", "d3", "d6"}


def test_a_copy_of_what_was_left_out_as_too_near_is_no_hard_negative(files):
    """The teacher ranks d2 above the positive; d3 has the same text with a low score, and is as relevant.

    Judged 0, it is known not to be relevant, whatever has the same text.
    """
    corpus = CORPUS | {"d3": "Text number 2."}
    run = {"q1": {"d1": 9, "d2": 8, "d3": 1, "d4": 0.5}}
    teacher = {"q1": {"d2": 9.5, "d1": 9, "d3": -5, "d4": -6}}
    negatives, tally = mined(files, run=run, teacher=teacher, corpus=corpus)
    assert negatives["q1"] == ["d4"]
    assert counts(tally)["candidates", "same title and text as a rejected candidate"] == 1
    negatives, _ = mined(files, run=run, teacher=teacher, corpus=corpus, qrels=QRELS | {"q1": {"d1": 1, "d3": 0}})
    assert negatives["q1"] == ["d3", "d4"]


def test_over_many_collections_nothing_that_is_ranked_or_relevant_is_drawn(files):
    """60 random collections with copies; the same seed gives identical bytes."""
    for seed in range(60):
        draw = random.Random(seed)
        docids = [f"d{i}" for i in range(30)]
        corpus = {docid: f"words {draw.randrange(20)}" for docid in docids}
        queries = {f"q{i}": f"question {draw.randrange(6)}" for i in range(8)}
        run = {qid: {d: draw.randrange(9) + 1 for d in draw.sample(docids, 6)} for qid in queries}
        qrels = {qid: {d: draw.randrange(3) for d in draw.sample(docids, 3)} for qid in queries}
        given = {"run": run, "queries": queries, "qrels": qrels, "corpus": corpus}
        rule = {"random_negatives": 4, "negatives_per_query": 0, "min_relevance": 1, "seed": seed}
        negatives, _ = mined(files, rule=rule, **given)
        first = files.path("out.jsonl").read_bytes()
        mined(files, rule=rule, **given)
        assert files.path("out.jsonl").read_bytes() == first
        for qid, drawn in negatives.items():
            same = [other for other in queries if queries[other] == queries[qid]]
            taken = {d for other in same for d in run[other]}
            taken |= {d for other in same for d, grade in qrels[other].items() if grade > 0}
            assert not {corpus[d] for d in drawn} & {corpus[d] for d in taken}
            assert len({corpus[d] for d in drawn}) == len(drawn)


def test_rankings_are_kept_for_each_question():
    """A qid without text has none; the docids of all qids of a question are one set."""
    ranked = RankedDocids({"a": 1, "b": 1, "c": 2})
    for qid, docids in (("a", "xy"), ("b", "yz"), ("nobody", "w")):
        ranked.add(qid, docids)
    ranked_for = ranked.finder()
    assert [ranked_for(qid) for qid in "abc"] == [set("xyz"), set("xyz"), set()]
    assert sorted(ranked.docids) == ["x", "y", "z"]


def test_all_are_drawn_where_more_are_wanted():
    """Each once, in an order determined by the seed and the qid."""
    easy = EasyNegatives("dbca", seed=1)
    drawn = easy.draw("q", 9, is_usable=lambda docid: docid != "c")
    assert sorted(drawn) == ["a", "b", "d"]
    assert drawn == EasyNegatives("abcd", seed=1).draw("q", 9, is_usable=lambda docid: docid != "c")
