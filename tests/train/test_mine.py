"""Hard negatives: which candidates of a run become negatives, counted by hand; every candidate is accounted for."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from collections_on_disk import Collection, counts, judged_sources
from shared_files import data

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_train.data.records import read_pointwise
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.mine import MineRule, mine
from rankllm_train.preparation.negatives import Margin, PoolRule

# q1: p is relevant (grade 2), h half so (1), j judged not relevant (0); the others are not judged.
RUN = {"q1": {"a": 12, "p": 10, "b": 9.5, "h": 9, "j": 9.8, "c": 8, "d": 7}, "q2": {"a": 5, "b": 4}}
QRELS = {"q1": {"p": 2, "h": 1, "j": 0}, "q2": {"z": 2}, "q3": {"a": 0}}
QUERIES = {"q1": "one", "q2": "two", "q3": "three"}
CORPUS = {name: f"text of {name}" for name in "abcdhjpz"}


@pytest.fixture
def files(tmp_path):
    """Queries, qrels, corpus and run as files."""
    return Collection(tmp_path)


def mined(files, *, run=RUN, qrels=QRELS, queries=QUERIES, corpus=CORPUS, teacher=None, strict=False, **rule):
    """Mine and return qid -> (positives, negatives), and the tally."""
    sources = judged_sources(files, run=run, qrels=qrels, queries=queries, corpus=corpus, teacher=teacher)
    tally = mine(sources, MineRule(**{"min_relevance": 2} | rule), output=files.path("out.jsonl"), strict=strict)
    records = list(read_pointwise(files.path("out.jsonl")))
    return {r.qid: ([p.docid for p in r.positives], [p.docid for p in r.negatives]) for r in records}, tally


def test_candidates_that_are_not_relevant_are_negatives_in_the_order_of_the_run(files):
    """Negatives come by descending score; a passage with a lower grade is neither positive nor negative; a positive
    outside the run is kept.
    """
    records, tally = mined(files)
    assert records == {"q1": (["p"], ["a", "j", "b", "c", "d"]), "q2": (["z"], ["a", "b"])}
    assert counts(tally) == {
        ("queries", "no passage is judged relevant"): 1,
        ("candidates", "judged relevant"): 1,
        ("candidates", "judged, with a grade above 0 and below --min-relevance"): 1,
    }
    assert tally.read == {"queries": 3, "candidates": 9}
    assert tally.made == {"records": 2, "positives": 2, "negatives of the run": 7}


def test_a_record_is_tevatron_s(files):
    """Keys, titles and texts follow the layout that `train pointwise` reads."""
    mined(files, corpus=CORPUS | {"p": ("Title", "text [1] of caf\u00e9")}, max_queries=1, negatives_per_query=1)
    assert files.read("out.jsonl") == [
        {
            "query_id": "q1",
            "query": "one",
            "positive_passages": [{"docid": "p", "title": "Title", "text": "text [1] of caf\u00e9"}],
            "negative_passages": [{"docid": "a", "title": "", "text": "text of a"}],
        }
    ]


@pytest.mark.parametrize(
    ("pool", "negatives"),
    [
        ({"min_rank": 3, "max_rank": 5}, ["j", "b"]),  # ranks 3 to 5: j 9.8, b 9.5, h 9
        ({"max_rank": 1}, ["a"]),
        ({"margin": Margin()}, ["j", "b", "c", "d"]),  # not a: 12 > 10
        ({"margin": Margin(absolute=1)}, ["j", "c", "d"]),  # at most 9; j is judged, so its 9.8 does not matter
        ({"margin": Margin(absolute=2)}, ["j", "c", "d"]),  # at most 8: c is just there
        ({"margin": Margin(relative=0.25)}, ["j", "d"]),  # at most 7.5
        ({"margin": Margin(absolute=-2)}, ["a", "j", "b", "c", "d"]),  # at most 12
    ],
)
def test_a_window_of_ranks_and_a_margin_narrow_the_candidates(files, pool, negatives):
    """Ranks are 1-based and inclusive; a candidate exactly at the margin is kept."""
    records, _ = mined(files, pool=PoolRule(**pool), queries={"q1": "one"})
    assert records == {"q1": (["p"], negatives)}


@pytest.mark.parametrize(("score", "ceiling"), [(10.0, 8.5), (-10.0, -11.5), (0.0, -0.5)])
def test_a_relative_margin_lowers_negative_scores_too(score, ceiling):
    """The margin is 10 % of the absolute value of the score, plus 0.5."""
    assert Margin(absolute=0.5, relative=0.1).ceiling(score) == pytest.approx(ceiling)


def test_a_margin_is_measured_from_the_best_positive(files):
    """p scores 10 and b 9.5, so candidates scoring at most 10 are kept."""
    records, _ = mined(files, qrels={"q1": {"b": 2, "p": 2}}, queries={"q1": "one"}, pool=PoolRule(margin=Margin()))
    assert records == {"q1": (["b", "p"], ["j", "h", "c", "d"])}


def test_a_margin_needs_a_positive_in_the_run(files):
    """q2's positive has no first-stage score to compare its candidates with."""
    records, tally = mined(files, pool=PoolRule(margin=Margin()))
    assert list(records) == ["q1"]
    assert counts(tally)["queries", "no positive in the run, as a margin requires"] == 1
    assert counts(tally)["candidates", "query skipped"] == 2


TEACHER = {"q1": {"b": 0.9, "p": 0.8, "c": 0.7, "j": 0.95, "d": -3}, "q2": {"z": 1, "a": 0.5, "b": 2}}


def test_what_a_teacher_puts_above_the_positive_is_no_negative(files):
    """b scores above p; a was not scored and is dropped; j is judged and kept. In q2, b scores above z."""
    records, tally = mined(files, teacher=TEACHER)
    assert records == {"q1": (["p"], ["j", "c", "d"]), "q2": (["z"], ["a"])}
    assert counts(tally)["candidates", "teacher score too close to the best positive"] == 2
    assert counts(tally)["candidates", "not scored by the teacher"] == 1


def test_a_teacher_s_margin_is_its_own(files):
    """The teacher's margin applies to its scores: c has 0.7, and the limit is 0.8 - 0.2 = 0.6."""
    records, _ = mined(files, teacher=TEACHER, teacher_margin=Margin(absolute=0.2))
    assert records["q1"][1] == ["j", "d"]


def test_teacher_scores_go_into_the_records(files):
    """Every passage gets a score, as `--objective kl` requires; a positive without a score is skipped."""
    records, tally = mined(
        files,
        qrels=QRELS | {"q1": {"p": 2, "z": 2, "j": 0}},
        teacher=TEACHER,
        teacher_margin=Margin(absolute=-math.inf),
        with_teacher_scores=True,
    )
    assert records == {"q1": (["p"], ["j", "b", "c", "d"]), "q2": (["z"], ["a", "b"])}
    assert counts(tally)["positives", "not scored by the teacher"] == 1
    first, second = read_pointwise(files.path("out.jsonl"))
    assert [p.teacher_score for p in (*first.positives, *first.negatives)] == [0.8, 0.95, 0.9, 0.7, -3]
    assert second.has_teacher


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"pool": PoolRule(margin=Margin(absolute=1))}, "run.trec"),
        ({"pool": PoolRule(margin=Margin(relative=0.05))}, "run.trec"),
        ({"teacher_margin": Margin(absolute=-2)}, "teacher.trec"),
        ({"teacher_margin": Margin(relative=0.05)}, "teacher.trec"),
        ({"with_teacher_scores": True}, "teacher.trec"),
    ],
)
def test_a_distance_is_not_measured_in_ranks(files, rule, name):
    """A three-column run with 1, 2, 3, ... contains ranks only, not scores."""
    with pytest.raises(ConfigError, match=rf"{name}: contains ranks but no scores; leave out --"):
        mined_by_ranks(files, **rule)


def test_a_margin_of_zero_needs_an_order_only(files):
    """Candidates ranked above the positive are dropped: a by the run's order, b by the teacher's."""
    assert mined_by_ranks(files, pool=PoolRule(margin=Margin())) == ["j", "c", "d"]
    assert mined_by_ranks(files) == ["a", "j", "c", "d"]


def mined_by_ranks(files, **rule):
    """Mine q1's negatives from an MS MARCO run (a p j b c d) and teacher (b p a c d)."""
    mined(files)
    for name, order in (("run.trec", "apjbcd"), ("teacher.trec", "bpacd")):
        lines = [f"q1\t{docid}\t{rank}\n" for rank, docid in enumerate(order, start=1)]
        files.path(name).write_text("".join(lines), encoding="utf-8")
    sources = JudgedSources(
        run=files.path("run.trec"),
        qrels=files.path("qrels.txt"),
        queries=files.path("queries.tsv"),
        corpus=files.path("corpus.jsonl"),
        teacher_run=files.path("teacher.trec"),
    )
    mine(sources, MineRule(**{"min_relevance": 2} | rule), output=files.path("out.jsonl"))
    (record,) = read_pointwise(files.path("out.jsonl"))
    return [passage.docid for passage in record.negatives]


def test_a_query_that_the_teacher_does_not_know_is_left_out(files):
    """Without teacher scores, its candidates cannot be checked for false negatives."""
    _, tally = mined(files, teacher={"q1": TEACHER["q1"]})
    assert counts(tally)["queries", "not scored by the teacher"] == 1
    _, tally = mined(files, teacher=TEACHER | {"q2": {"a": 1}})
    assert counts(tally)["queries", "no positive scored by the teacher"] == 1


def test_what_the_corpus_lacks_is_replaced_by_what_comes_next(files):
    """A passage with empty or missing text is skipped and counted, and the next candidate takes its place."""
    corpus = {name: text for name, text in CORPUS.items() if name != "a"} | {"j": " "}
    records, tally = mined(files, corpus=corpus, negatives_per_query=2, queries={"q1": "one"})
    assert records == {"q1": (["p"], ["b", "c"])}
    assert counts(tally)["candidates", "not in the corpus"] == 1
    assert counts(tally)["candidates", "empty text"] == 1
    assert counts(tally)["candidates", "usable, but not selected"] == 1


def test_a_text_is_in_a_record_once(files):
    """A copy of the positive is a false negative; of two identical texts, the first is kept. Case and punctuation are
    ignored.
    """
    corpus = CORPUS | {"b": "Text of P.", "d": "TEXT, of c"}
    records, tally = mined(files, corpus=corpus, queries={"q1": "one"})
    assert records == {"q1": (["p"], ["a", "j", "c"])}
    assert counts(tally)["candidates", "same title and text as a positive"] == 1
    assert counts(tally)["candidates", "same title and text as another candidate"] == 1


def test_a_text_under_another_title_is_another_passage(files):
    """The same text about another title is a hard negative, since titles are part of the input; case in titles is
    ignored.
    """
    corpus = {
        "p": ("AML", "It is treated early."),
        "a": ("CML", "It is treated early."),
        "b": ("aml", "it is treated early"),
    }
    records, tally = mined(
        files, run={"q1": {"a": 3, "b": 2, "p": 1}}, qrels={"q1": {"p": 2}}, queries={"q1": "one"}, corpus=corpus
    )
    assert records == {"q1": (["p"], ["a"])}
    assert counts(tally)["candidates", "same title and text as a positive"] == 1


def test_a_query_without_a_positive_or_negatives_is_left_out(files):
    """Its positive has no text, or too few negatives remain."""
    corpus = {name: text for name, text in CORPUS.items() if name != "z"}
    records, tally = mined(files, corpus=corpus)
    assert list(records) == ["q1"]
    assert counts(tally)["queries", "no positive with a text in the corpus"] == 1
    records, tally = mined(files, min_negatives=3)
    assert list(records) == ["q1"]
    assert counts(tally)["queries", "fewer negatives than --min-negatives 3"] == 1


MANY = {f"q{i}": {f"d{(i * 7 + j) % 40}": 50 - j for j in range(30)} for i in range(6)}
MANY_QRELS = {qid: {list(ranking)[4]: 1} for qid, ranking in MANY.items()}
MANY_FILES = {
    "run": MANY,
    "qrels": MANY_QRELS,
    "queries": {qid: f"question {qid}" for qid in MANY},
    "corpus": {f"d{i}": f"passage number {i}" for i in range(40)},
    "min_relevance": 1,
}


def test_random_negatives_of_the_run_are_drawn_by_seed_in_the_run_s_order(files):
    """The same seed draws the same negatives, another seed draws others; every negative is a candidate."""
    drawn, _ = mined(files, sample="random", negatives_per_query=5, seed=1, **MANY_FILES)
    again, _ = mined(files, sample="random", negatives_per_query=5, seed=1, **MANY_FILES)
    other, _ = mined(files, sample="random", negatives_per_query=5, seed=2, **MANY_FILES)
    assert drawn == again != other
    for qid, (positives, negatives) in drawn.items():
        order = [docid for docid in MANY[qid] if docid not in positives]
        assert len(set(negatives)) == 5
        assert sorted(negatives, key=order.index) == negatives


def test_easy_negatives_are_answers_to_other_queries(files):
    """They follow the run's negatives, never include the query's own candidates or positives, and need no run. Of six
    answers, q0's run contains four, all but the first below --max-rank: these are not easy negatives, which leaves
    two.
    """
    answers = {docid for judged in MANY_QRELS.values() for docid in judged}
    records, tally = mined(
        files,
        pool=PoolRule(max_rank=2),
        random_negatives=3,
        negatives_per_query=2,
        **MANY_FILES | {"run": {"q0": MANY["q0"]}},
    )
    assert len(records) == 6
    for qid, (positives, negatives) in records.items():
        hard = list(MANY["q0"])[:2] if qid == "q0" else []
        easy = negatives[len(hard) :]
        assert negatives[: len(hard)] == hard
        assert len(set(easy)) == (2 if qid == "q0" else 3)
        assert set(easy) <= answers - set(positives) - (set(MANY["q0"]) if qid == "q0" else set())
    assert tally.made["random negatives"] == 17
    assert counts(tally)["random negatives", "requested, but no further eligible passages"] == 1


def test_what_is_relevant_to_a_question_is_no_negative_of_it_under_any_qid(files):
    """q1 and q2 have the same text, so a positive of one is neither a hard nor an easy negative of the other. The same
    holds for a copy of it (c) and for a partially relevant passage (h) of the other qid. n is judged under the
    other qid, so the margin does not apply to it. q3 is a different question.
    """
    records, tally = mined(
        files,
        run={"q1": {"n": 9, "p": 8, "z": 7, "h": 6, "c": 5, "d": 4}, "q2": {"p": 9, "z": 8, "d": 3}, "q3": {"p": 1}},
        qrels={"q1": {"p": 2}, "q2": {"z": 2, "h": 1, "n": 0}, "q3": {"y": 2}},
        queries={"q1": "What is AML?", "q2": "what is aml", "q3": "what is bml"},
        corpus={name: f"text of {name}" for name in "pzhdyn"} | {"c": "TEXT of z"},
        pool=PoolRule(margin=Margin(absolute=1)),
    )
    assert records == {"q1": (["p"], ["n", "d"]), "q2": (["z"], ["d"])}
    reasons = counts(tally)
    assert reasons["candidates", "judged relevant to the same question under another qid"] == 2
    assert reasons["candidates", "judged, with a grade above 0 and below --min-relevance"] == 1
    assert reasons["candidates", "same title and text as a positive"] == 1
    easy = {"run": {"q1": {"d": 1}}, "random_negatives": 9, "negatives_per_query": 0}
    records, _ = mined(
        files,
        qrels={"q1": {"p": 2}, "q2": {"z": 2}, "q3": {"y": 2}},
        queries={"q1": "What is AML?", "q2": "what is aml", "q3": "what is bml"},
        corpus={name: f"text of {name}" for name in "pzyd"},
        **easy,
    )
    assert {qid: set(negatives) for qid, (_, negatives) in records.items()} == {
        "q1": {"y"},
        "q2": {"y"},
        "q3": {"p", "z"},
    }


def test_queries_are_skipped_and_limited_in_the_order_of_their_file(files):
    """The order of the run does not matter; the limit counts usable queries."""
    records, tally = mined(files, skip_queries=1, max_queries=2, **MANY_FILES | {"run": dict(reversed(MANY.items()))})
    assert list(records) == ["q1", "q2"]
    assert counts(tally)["queries", "skipped by --skip-queries"] == 1
    assert counts(tally)["queries", "beyond --max-queries"] == 3


def test_the_same_seed_gives_the_same_bytes_in_every_process(files):
    """String hashing differs between Python processes and must not affect the output."""
    mined(files, **MANY_FILES)
    command = [sys.executable, "-m", "rankllm_train", "mine", "--sample", "random", "--random-negatives", "4"]
    for name, file in (
        ("run", "run.trec"),
        ("qrels", "qrels.txt"),
        ("queries", "queries.tsv"),
        ("corpus", "corpus.jsonl"),
    ):
        command += [f"--{name}", str(files.path(file))]
    written = []
    for hash_seed in ("0", "1"):
        output = files.path(f"out{hash_seed}.jsonl")
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([*command, "--output-path", str(output)], check=True, env=environment, capture_output=True)
        written.append(output.read_bytes())
    assert written[0] == written[1] != b""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"x": {"a": 1}}}, "run.trec: contains none of the 2 queries with a relevant passage"),
        ({"qrels": {}}, "qrels.txt: contains no judgements"),
        ({"qrels": {"x": {"a": 1}}}, "qrels.txt: judges none of the 3 queries"),
        ({"corpus": {"x": "text"}}, "corpus.jsonl: contains none of the 7 passages needed, such as 'a'"),
        ({"teacher": {"x": {"a": 1}}}, "teacher.trec: contains scores for none of the 2 queries"),
        (
            {"qrels": {"q1": {"p": 1}}},
            "no records to write; most common reason for skipping: 3 queries, no passage is judged relevant",
        ),
        ({"strict": True, "run": RUN | {"q9": {"a": 1}}}, "queries of the run: 'q9' is without a text"),
        ({"strict": True, "corpus": {n: "x" for n in "abcdhj"}}, "positives: 'p' is not in the corpus"),
    ],
)
def test_files_that_do_not_belong_together_are_an_error(files, change, message):
    """A one-line error names the file, and no output is written."""
    with pytest.raises(RankLLMError) as caught:
        mined(files, **change)
    assert message in str(caught.value)
    assert not files.path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("q1 Q0 a 1 2 t\nq2 Q0 a 1 2 t\nq1 Q0 b 2 1 t\n", "run.trec:3: query 'q1' occurs again (first on line 1)"),
        ("q1 Q0 a 1 2 t\nq1 Q0 a 2 1 t\n", "run.trec:2: query 'q1': docid 'a' occurs again (first on line 1)"),
    ],
)
def test_a_run_out_of_order_is_an_error_with_its_line(files, lines, message):
    """Only one query is held in memory, so its lines must be consecutive."""
    mined(files)
    files.path("run.trec").write_text(lines, encoding="utf-8")
    sources = JudgedSources(
        run=files.path("run.trec"),
        qrels=files.path("qrels.txt"),
        queries=files.path("queries.tsv"),
        corpus=files.path("corpus.jsonl"),
    )
    with pytest.raises(DataError) as caught:
        mine(sources, MineRule(), output=files.path("new.jsonl"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "rule",
    [
        {"min_negatives": 0},
        {"min_negatives": 20},
        {"with_teacher_scores": True},
        {"with_teacher_scores": True, "random_negatives": 2},
    ],
)
def test_rules_that_contradict_themselves_are_refused(files, rule):
    """Contradictions are reported before any file is read."""
    with pytest.raises(ConfigError):
        mined(files, **rule)
    with pytest.raises(ConfigError):
        PoolRule(min_rank=5, max_rank=4)
    with pytest.raises(ConfigError):
        Margin(absolute=math.nan)
    with pytest.raises(ConfigError):
        Margin(relative=math.inf)


def test_every_query_and_candidate_of_real_data_is_accounted_for(tmp_path):
    """Natural Questions: 7,167 queries with 50 candidates each; copies of the positive are not used as negatives."""
    folder = data("nq_qed")
    sources = JudgedSources(
        run=folder / "runs/bm25.train.top50.run.gz",
        qrels=folder / "qrels.train.txt",
        queries=folder / "queries.train.tsv",
        corpus=folder / "corpus.jsonl.gz",
    )
    rule = MineRule(pool=PoolRule(max_rank=20, margin=Margin(relative=0.05)), negatives_per_query=8, max_queries=500)
    tally = mine(sources, rule, output=tmp_path / "out.jsonl")
    assert tally.read["queries"] == 7167 == tally.made["records"] + tally.n_left_out("queries")
    assert tally.read["candidates"] == tally.made["negatives of the run"] + tally.n_left_out("candidates")
    records = list(read_pointwise(tmp_path / "out.jsonl"))
    assert len(records) == tally.made["records"] == 500
    for record in records:
        docids = [passage.docid for passage in (*record.positives, *record.negatives)]
        assert len(set(docids)) == len(docids)
        assert not {passage.text for passage in record.positives} & {passage.text for passage in record.negatives}
