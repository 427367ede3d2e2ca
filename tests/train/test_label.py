"""Windows with a known order: prompt, target, and that training reads them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from collections_on_disk import Collection, counts, judged_sources
from shared_files import data

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_train.data.check_data import check_listwise
from rankllm_train.data.rankings import ranking_of
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.label import RecordRule, label_judged, label_results
from rankllm_train.preparation.labelled import JudgedRule
from rankllm_train.preparation.windows import WindowRule, draw_windows, record_writer

# By grade: b 3, d 1, e 0; a and c are unjudged. z is relevant but not in the run.
RUN = {"q1": {"a": 9, "b": 8, "c": 7, "d": 6, "e": 5}}
QRELS = {"q1": {"b": 3, "d": 1, "e": 0, "z": 1}, "q2": {"y": 1}}
QUERIES = {"q1": "what is [1] b", "q2": "two"}
CORPUS = {"a": "about a", "b": ("Title", "about b [2]"), "c": "about c", "d": "about d", "e": "about e", "z": "about z"}
WHOLE = {"min_size": 5, "max_size": 20, "shuffle": False}
"""One window with all candidates in first-stage order (at most six; the size is drawn from 5 and 6)."""


@pytest.fixture
def files(tmp_path):
    """A collection on disk."""
    return Collection(tmp_path)


def rule_of(*, writer=None, skip_queries=0, max_queries=None, **windows):
    """Return a rule for windows written with rank_zephyr."""
    writer = writer or record_writer(None, None, max_passage_words=300, max_size=20)
    return RecordRule(writer=writer, windows=WindowRule(**windows), skip_queries=skip_queries, max_queries=max_queries)


def labelled(files, *, run=RUN, qrels=QRELS, corpus=CORPUS, queries=QUERIES, teacher=None, lists=None, **rule):
    """Label, and return the records and the tally."""
    sources = judged_sources(files, run=run, qrels=qrels, queries=queries, corpus=corpus, teacher=teacher)
    output = files.path("out.jsonl")
    tally = label_judged(sources, JudgedRule(**lists or {}), rule_of(**rule), min_relevance=1, output=output)
    return files.read("out.jsonl"), tally


def learnt(record):
    """Return the docids, best first."""
    return [record["docids"][int(name) - 1] for name in ranking_of(record["conversations"][-1]["value"])]


def test_the_best_grade_comes_first_and_unjudged_ones_last(files):
    """Ties in the order of the run, followed by relevant passages that it lacks."""
    (record,), tally = labelled(files, **WHOLE | {"min_size": 6})
    assert record["docids"] == ["a", "b", "c", "d", "e", "z"]
    assert learnt(record) == ["b", "d", "z", "e", "a", "c"]
    assert record["positive_docids"] == ["b", "d", "z"]
    assert tally.made == {"records": 1, "passages in them": 6, "queries in them": 1}
    assert counts(tally) == {("queries", "not in the run"): 1}


def test_a_record_is_what_training_reads(files):
    """System, human and gpt turn with rank_zephyr's wording; titles are shown, and nothing imitates an identifier."""
    (record,), _ = labelled(files, lists={"depth": 2, "add_relevant": False}, min_size=2, shuffle=False)
    assert record == {
        "id": "q1_1",
        "query": "what is [1] b",
        "docids": ["a", "b"],
        "positive_docids": ["b"],
        "conversations": [
            {
                "from": "system",
                "value": "You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to "
                "the query",
            },
            {
                "from": "human",
                "value": "I will provide you with 2 passages, each indicated by a numerical identifier []. Rank the "
                "passages based on their relevance to the search query: what is (1) b.\n[1] about a\n"
                "[2] Title: Title Content: about b (2)\nSearch Query: what is (1) b.\nRank the 2 passages above based "
                "on their relevance to the search query. All the passages should be included and listed using "
                "identifiers, in descending order of relevance. The output format should be [] > [], e.g., [2] > [1], "
                "Answer concisely and directly and only respond with the ranking results, do not say any word or "
                "explain.",
            },
            {"from": "gpt", "value": "[2] > [1]"},
        ],
    }


def test_what_is_judged_under_one_qid_of_a_question_is_judged_under_all(files):
    """q2 is the same question as q1: a, which it grades 2, ranks below b (3); d is graded 1 and 3, and the better grade
    counts.

    q2's own judgements lack b and d; q3, which is unjudged, gets the answers of the others.
    """
    run = {qid: dict(RUN["q1"]) for qid in ("q1", "q2", "q3")}
    qrels = {"q1": QRELS["q1"], "q2": {"a": 2, "d": 3}}
    queries = {"q1": "what is b", "q2": "What is B?", "q3": "what is: b"}
    records, tally = labelled(files, run=run, qrels=qrels, queries=queries, **WHOLE | {"min_size": 6})
    assert {record["id"]: learnt(record) for record in records} == {f"q{i}_1": list("bdazec") for i in (1, 2, 3)}
    assert tally.made["queries in them"] == 3


def test_a_teacher_orders_candidates_of_one_grade(files):
    """z above d, both of grade 1; c above a, both unjudged; e keeps its rank although the teacher prefers it."""
    teacher = {"q1": {"e": 9, "z": 8, "c": 7, "d": 6, "a": 5}}
    (record,), _ = labelled(files, teacher=teacher, **WHOLE | {"min_size": 6})
    assert record["docids"] == ["a", "b", "c", "d", "e", "z"]
    assert learnt(record) == ["b", "z", "d", "e", "c", "a"]


def test_what_a_teacher_has_not_scored_is_behind_what_it_has(files):
    """Unjudged a has no score, c has a low one."""
    (record,), _ = labelled(files, teacher={"q1": {"c": -9, "d": 1}}, **WHOLE | {"min_size": 6})
    assert learnt(record) == ["b", "d", "z", "e", "c", "a"]


def test_copies_of_a_relevant_passage_are_left_out(files):
    """They would be ranked separately; the same applies to two copies of another passage."""
    corpus = CORPUS | {"a": "About D.", "e": "ABOUT c"}
    (record,), tally = labelled(files, corpus=corpus, min_size=4, max_size=4, shuffle=False)
    assert record["docids"] == ["b", "c", "d", "z"]
    assert counts(tally)["candidates", "same title and text as a positive"] == 1
    assert counts(tally)["candidates", "same title and text as another candidate"] == 1


def test_of_two_copies_the_better_grade_stays(files):
    """d, of grade 1, has the text of b; b has grade 3 and comes later in the run."""
    run = {"q1": {"d": 9, "b": 8, "c": 7}}
    (record,), _ = labelled(files, run=run, corpus=CORPUS | {"d": ("title", "about B [2]?")}, min_size=3, shuffle=False)
    assert learnt(record) == ["b", "z", "c"]


def test_copies_of_a_relevant_passage_that_the_run_lacks_are_left_out(files):
    """With --no-add-relevant, r1, the best answer, is in no list; a passage with the same text is not unjudged."""
    lists = {"add_relevant": False}
    (record,), tally = labelled(
        files,
        run={"q1": {"copy": 9, "a": 8, "r2": 7}},
        qrels={"q1": {"r1": 2, "r2": 1}},
        queries={"q1": "one"},
        corpus={"r1": "the best answer", "copy": "The best answer!", "a": "about a", "r2": "about r2"},
        lists=lists,
        min_size=2,
        shuffle=False,
    )
    assert record["docids"] == ["a", "r2"]
    assert learnt(record) == ["r2", "a"]
    assert counts(tally) == {("candidates", "same title and text as a positive"): 1}


def test_copies_of_a_relevant_passage_are_not_drawn_either(files):
    """The answer to q2 has the text of r1, which is relevant to q1 and not in its run: nothing is left to draw."""
    records, _ = labelled(
        files,
        run={"q1": {"a": 8, "r2": 7}, "q2": {"copy": 2, "a": 1}},
        qrels={"q1": {"r1": 2, "r2": 1}, "q2": {"copy": 1}},
        queries={"q1": "one", "q2": "two"},
        corpus={"r1": "the best answer", "copy": "The best answer!", "a": "about a", "r2": "about r2"},
        lists={"add_relevant": False, "random_negatives": 5},
        **WHOLE | {"min_size": 2, "max_size": 2, "per_query": 20},
    )
    shown = {docid for record in records if record["id"].startswith("q1_") for docid in record["docids"]}
    assert shown == {"a", "r2"}


def test_answers_to_other_queries_come_last_though_judged(files):
    """y, relevant to q2, is judged 0 for q1; it ranks below the unjudged a and c, and below e from the run."""
    records, _ = labelled(
        files,
        run=RUN | {"q2": {"y": 1, "a": 0.5}},
        qrels={"q1": QRELS["q1"] | {"y": 0}, "q2": {"y": 1}},
        corpus=CORPUS | {"y": "about y"},
        lists={"random_negatives": 1},
        **WHOLE | {"min_size": 7, "max_size": 7},
    )
    (record,) = (record for record in records if record["id"].startswith("q1_"))
    assert learnt(record) == ["b", "d", "z", "e", "a", "c", "y"]


def test_answers_to_other_queries_come_last(files):
    """As random negatives, last in prompt and target."""
    run = RUN | {"q2": {"y": 1, "a": 0.5}}
    corpus = CORPUS | {"y": "about y"}
    queries = {"q1": "one", "q2": "two"}
    records, _ = labelled(
        files,
        run=run,
        corpus=corpus,
        queries=queries,
        lists={"random_negatives": 1},
        **WHOLE | {"min_size": 2, "per_query": 40},
    )
    first = [record for record in records if record["id"].startswith("q1_") and "y" in record["docids"]]
    assert first
    for record in first:
        assert record["docids"][-1] == learnt(record)[-1] == "y"


def test_a_window_without_a_relevant_passage_is_left_out_and_counted(files):
    """Of pairs from five passages with two relevant ones, 3 in 10 have none: they are kept only on request."""
    windows = {"per_query": 60, "min_size": 2, "max_size": 2, "sample": "uniform"}
    lists = {"add_relevant": False}
    records, tally = labelled(files, lists=lists, **windows)
    without = counts(tally)["windows", "without a relevant passage"]
    assert without + counts(tally)["windows", "drawn before"] + len(records) == 60
    assert without > 5
    assert all({"b", "d"} & set(record["docids"]) for record in records)
    records, tally = labelled(files, lists=lists | {"require_relevant": False}, **windows | {"require_relevant": False})
    assert any(not {"b", "d"} & set(record["docids"]) for record in records)
    assert ("windows", "without a relevant passage") not in counts(tally)


def test_a_query_is_left_out_for_a_reason(files):
    """No relevant candidate; too few candidates."""
    _, tally = labelled(files, run=RUN | {"q2": {"a": 2, "b": 1}}, corpus=CORPUS, lists={"add_relevant": False})
    assert counts(tally)["queries", "no relevant passage among the candidates"] == 1
    run = RUN | {"q2": {"y": 1}}
    records, tally = labelled(files, run=run, corpus=CORPUS | {"y": "about y"})
    assert counts(tally) == {("queries", "fewer candidates than --min-window 2"): 1}
    assert tally.read["queries"] == tally.made["queries in them"] + tally.n_left_out("queries") == 2
    assert {record["id"] for record in records} == {"q1_1"}


def test_windows_have_all_lengths_and_are_shuffled():
    """2 to 20 passages uniformly, each once, with a relevant one in each, which is equally likely at every index."""
    rule = WindowRule(per_query=3000)
    windows = list(draw_windows(50, rule, relevant={7}, key="q"))
    lengths = Counter(map(len, windows))
    assert set(lengths) == set(range(2, 21))
    # 3,000 / 19 is 158; five standard deviations of a binomial count are 61.
    assert all(97 < n < 219 for n in lengths.values())
    assert all(len(set(window)) == len(window) and 7 in window for window in windows)
    of_ten = [window.index(7) for window in windows if len(window) == 10]
    assert set(of_ten) == set(range(10))
    # Unshuffled, they are in first-stage order.
    shown = list(draw_windows(50, WindowRule(per_query=50, shuffle=False), relevant={7}, key="q"))
    assert all(list(window) == sorted(window) for window in shown)


def test_windows_are_a_function_of_seed_list_and_number():
    """More windows do not change the first ones."""
    few = list(draw_windows(30, WindowRule(per_query=2), relevant={1}, key="q"))
    many = list(draw_windows(30, WindowRule(per_query=5), relevant={1}, key="q"))
    assert many[:2] == few
    assert list(draw_windows(30, WindowRule(per_query=2, seed=1), relevant={1}, key="q")) != few
    assert list(draw_windows(30, WindowRule(per_query=2), relevant={1}, key="r")) != few


def result(qid, docids, **more):
    """A line of results JSONL."""
    n = len(docids)
    candidates = [
        {"docid": d, "score": float(n - i), "doc": {"text": f"about {d}"}, "model_score": None}
        for i, d in enumerate(docids)
    ]
    return {"query": {"text": f"query {qid}", "qid": qid}, "candidates": candidates, "status": "ok"} | more


def by_results(files, results, *, run=None, depth=100, worst="repaired", **rule):
    """Label by results, and return the records and the tally."""
    path = files.jsonl(results, "results.jsonl")
    output = files.path("out.jsonl")
    rule = rule_of(**{"sample": "uniform", "require_relevant": False} | rule)
    run = None if run is None else files.run(run)
    tally = label_results(path, rule, output=output, depth=depth, worst_status=worst, run=run)
    return files.read("out.jsonl"), tally


def test_the_order_of_results_is_the_order_to_learn(files):
    """Shuffled in the prompt; from the first `depth` candidates."""
    (record,), tally = by_results(files, [result("q1", "dbcae")], depth=4, min_size=4)
    assert learnt(record) == ["d", "b", "c", "a"]
    assert "positive_docids" not in record  # nothing was judged
    assert tally.read == {"queries": 1, "candidates": 4}


def test_results_can_be_shown_in_first_stage_order(files):
    """Passages missing from the run (x) come last; a query missing from it is skipped."""
    records, tally = by_results(
        files, [result("q1", "xdba"), result("q7", "ab")], run=RUN, shuffle=False, min_size=2, max_size=20, per_query=30
    )
    (whole,) = (record for record in records if len(record["docids"]) == 4)
    assert whole["docids"] == ["a", "b", "d", "x"]
    assert learnt(whole) == ["x", "d", "b", "a"]
    assert counts(tally)["queries", "not in the run"] == 1


def test_results_that_no_model_has_ordered_are_left_out(files):
    """A fallback is the first stage's order; a repaired result is used unless excluded."""
    results = [result("1", "ab"), result("2", "ab", status="repaired"), result("3", "ab", status="fallback")]
    records, tally = by_results(files, results)
    assert [record["id"] for record in records] == ["1_1", "2_1"]
    assert counts(tally) == {("queries", "results of status fallback"): 1}
    records, _ = by_results(files, results, worst="ok")
    assert [record["id"] for record in records] == ["1_1"]


def test_queries_are_skipped_and_limited(files):
    """Only usable queries count."""
    results = [result(str(i), "ab"[: 1 + i % 2]) for i in range(8)]
    records, tally = by_results(files, results, skip_queries=1, max_queries=2)
    assert [record["id"] for record in records] == ["3_1", "5_1"]
    assert counts(tally) == {
        ("queries", "fewer candidates than --min-window 2"): 4,
        ("queries", "skipped by --skip-queries"): 1,
        ("queries", "beyond --max-queries"): 1,
    }


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([result("1", "ab"), result("1", "ab")], "results.jsonl:2: query '1' occurs again (first on line 1)"),
        ([result("1", "ab", status="great")], "results.jsonl:1: status: expected one of ok, repaired"),
        ([{"qid": "1"}], "results.jsonl:1: request: expected the key 'query'"),
        (
            [result("1", "ab"), result("2", "") | {"candidates": [{"docid": "a", "score": 1.0, "doc": {}}]}],
            "results.jsonl:2: query '2', docid 'a': passage without text: expected one of",
        ),
    ],
)
def test_results_that_cannot_be_read_are_an_error_with_their_line(files, results, message):
    """And nothing is written."""
    with pytest.raises(DataError) as caught:
        by_results(files, results)
    assert message in str(caught.value)
    assert not files.path("out.jsonl").exists()


def test_nothing_to_write_is_an_error(files):
    """It gives the most common reason for skipping."""
    with pytest.raises(RankLLMError, match="most common reason for skipping: 1 queries, fewer candidates"):
        by_results(files, [result("1", "a")])


@pytest.mark.parametrize(
    ("template", "kind", "message"),
    [
        ("rank_zephyr", "alpha", "--identifiers alpha: template rank_zephyr uses numeric identifiers"),
        ("rank_gpt", None, "template rank_gpt: has one turn per passage"),
        ("rankllama", None, "template rankllama: expected a listwise template, found a pointwise one"),
        ("duot5", None, "template duot5: expected a listwise template, found a pairwise one"),
        ("insert_rank", None, "template insert_rank: shows first-stage scores"),
        ("rank_lrl", None, "template rank_lrl: produces records that `train listwise` cannot read"),
        (None, "alpha", "--max-window 30: alpha identifiers only go up to Z"),
    ],
)
def test_templates_whose_records_cannot_be_trained_on_are_refused(template, kind, message):
    """Before any file is read."""
    with pytest.raises(ConfigError) as caught:
        record_writer(template, kind, max_passage_words=300, max_size=30)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("template", "kind", "expected"),
    [
        (None, None, ("rank_zephyr", "numeric")),
        (None, "alpha", ("rank_zephyr_alpha", "alpha")),
        ("rank_zephyr_alpha", None, ("rank_zephyr_alpha", "alpha")),
        ("rank_vicuna", None, ("rank_vicuna", "numeric")),
    ],
)
def test_identifiers_and_template_follow_from_each_other(template, kind, expected):
    """Unless both are given."""
    writer = record_writer(template, kind, max_passage_words=300, max_size=20)
    assert (writer.template.name, writer.identifiers) == expected


def test_passages_are_cut_to_their_first_words(files):
    """`Title: Title Content:` counts as three of b's words."""
    writer = record_writer(None, None, max_passage_words=4, max_size=20)
    (record,), _ = labelled(files, writer=writer, **WHOLE | {"min_size": 6})
    shown = re.findall(r"^\[\d\] (.*)$", record["conversations"][1]["value"], re.MULTILINE)
    assert shown[:2] == ["about a", "Title: Title Content: about"]


def command_for(files, *more):
    """Return `train label` for the files, as words."""
    named = {"run": "run.trec", "qrels": "qrels.txt", "queries": "queries.tsv", "corpus": "corpus.jsonl"}
    paths = [word for name, file in named.items() for word in (f"--{name}", str(files.path(file)))]
    return [sys.executable, "-m", "rankllm_train", "label", *paths, *more]


def test_the_same_seed_gives_the_same_bytes_in_every_process(files):
    """Python's string hash differs between processes."""
    labelled(files, run=RUN | {"q2": {"y": 2, "a": 1}}, corpus=CORPUS | {"y": "about y"})
    written = []
    for hash_seed in ("0", "1"):
        output = files.path(f"out{hash_seed}.jsonl")
        command = command_for(
            files, "--windows-per-query", "5", "--random-negatives", "1", "--output-path", str(output)
        )
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True)
        written.append(output.read_bytes())
    assert written[0] == written[1] != b""


@pytest.mark.parametrize("kind", ["numeric", "alpha"])
def test_records_of_real_data_pass_the_check(tmp_path, kind):
    """Natural Questions: `check-data` finds nothing; the relevant passage is first in every record."""
    folder = data("nq_qed")
    sources = JudgedSources(
        run=folder / "runs/bm25.run.gz",
        qrels=folder / "qrels.txt",
        queries=folder / "queries.tsv",
        corpus=folder / "corpus.jsonl.gz",
    )
    writer = record_writer(None, kind, max_passage_words=60, max_size=20)
    rule = rule_of(writer=writer, per_query=2, max_queries=100)
    output = tmp_path / "out.jsonl"
    tally = label_judged(sources, JudgedRule(depth=30), rule, min_relevance=1, output=output)
    report = check_listwise(output)
    assert report.problems == ()
    assert report.n_by_kind == {kind: tally.made["records"]}
    assert tally.made["queries in them"] == 100
    assert tally.read["queries"] == 100 + tally.n_left_out("queries") == 1355
    assert max(report.n_by_length) == 20


def test_a_template_with_words_behind_the_passage_is_refused(tmp_path):
    """It could not be separated from the passage in a record."""
    template = tmp_path / "behind.yaml"
    template.write_text(
        'method: singleturn_listwise\nprefix: "{num} for {query}:\\n"\nbody: "[{rank}] {candidate} (for {query})\\n"\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="has text after the passage on the same line"):
        record_writer(str(template), None, max_passage_words=300, max_size=20)
