"""What a report shows about a ranking: figures, ranks, moves, texts and calls, each computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_files import TRACE, write_files

from rankllm_core.trec import read_qrels
from rankllm_core.types import Query, Result, Usage, WindowTrace
from rankllm_infer.formats.convert import convert
from rankllm_infer.jobs.outputs import trace_to_dict
from rankllm_infer.report.charts import gains_chart, grade_class, heads_chart
from rankllm_infer.report.content import Sources, outline, run_costs, shown_queries
from rankllm_infer.report.page import displayable, split_snippet
from rankllm_infer.report.passages import Passage, texts_of_collection, texts_of_requests
from rankllm_infer.report.ranked_files import read_ranked
from rankllm_infer.report.traces import read_traces, usage_of


@pytest.fixture
def folder(tmp_path):
    """The small ranking."""
    write_files(tmp_path)
    return tmp_path


@pytest.fixture
def sources(folder):
    """Its results against its baseline, with the trace."""
    return Sources(
        qrels=read_qrels(folder / "qrels"),
        files={"old": read_ranked(folder / "base.run"), "new": read_ranked(folder / "new.jsonl")},
        traces=read_traces(folder / "new.trace", prompt_characters=10),
    )


def queries(folder, sources, **options):
    plan = outline(sources, ["RR"], **options)
    texts = texts_of_requests(folder / "new.jsonl", plan.docids, characters=5)
    return list(shown_queries(sources, plan, texts))


def ranks(passages):
    """(docid, rank, rank before, ranks gained, grade, score) of each passage."""
    return [(p.docid, p.rank, p.was, p.rise, p.grade, p.score) for p in passages]


def test_queries_come_by_falling_gain_with_the_values_of_both_runs(folder, sources):
    """RR: q1 from 1/3 to 1, q2 from 1 to 1/2, q3 from 1 to missing."""
    shown = queries(folder, sources)
    assert [(q.qid, q.change) for q in shown] == [("q1", "better"), ("q2", "worse"), ("q3", "worse")]
    assert [q.gain for q in shown] == pytest.approx([2 / 3, -1 / 2, -1])
    assert [value for q in shown for value in q.values] == [
        ("RR", pytest.approx(1 / 3), 1.0),
        ("RR", 1.0, 0.5),
        ("RR", 1.0, 0.0),
    ]


def test_each_passage_has_both_ranks_grade_and_score(folder, sources):
    """c rises from 4 to 1; x, relevant and lost, follows the list; b has no judgement and no model score."""
    first = queries(folder, sources)[0]
    assert ranks(first.top) == [("c", 1, 4, 3, 2, 2.5), ("a", 2, 1, -1, 0, 1.5), ("b", 3, 2, -1, None, None)]
    assert ranks(first.further) == [("x", None, 3, None, 1, None)]
    assert first.heads == ([0, None, 1, 2], [2, 0, None])


def test_depth_cuts_the_list_but_not_what_matters(folder, sources):
    """The first of three passages; then the baseline's top and the relevant one, in ranking order."""
    first = queries(folder, sources, depth=1)[0]
    assert ([p.docid for p in first.top], [p.docid for p in first.further]) == (["c"], ["a", "b", "x"])
    assert first.n_candidates == 3


def test_a_query_that_the_run_lacks_is_shown_without_a_list(folder, sources):
    """The baseline's passages are shown after it."""
    last = queries(folder, sources)[-1]
    assert (last.text, last.top, [p.docid for p in last.further]) == (None, [], ["a"])


def test_the_queries_that_changed_most_can_be_shown_alone(folder, sources):
    """|gain|: q3 1, q1 2/3, q2 1/2; the figures remain those of all queries."""
    plan = outline(sources, ["RR"], max_queries=2)
    assert list(plan.docids) == ["q1", "q3"]
    assert plan.comparison.n_queries == 3


def test_cost_is_a_mean_over_the_queries_that_tell_it(sources):
    """Two results with 120 tokens each; a TREC run records no cost."""
    old, new = run_costs(sources, outline(sources, ["RR"]))
    assert (old.n_recorded, old.statuses) == (0, {})
    assert (new.n_recorded, new.calls, new.prompt_tokens, new.completion_tokens) == (2, 1, 100, 20)
    assert (new.tokens, dict(new.statuses)) == (120, {"ok": 1, "repaired": 1})


def test_the_trace_tells_the_cost_of_a_run_that_does_not(folder, sources):
    """The same as a TREC run: the only query in the trace."""
    files = {"old": sources.files["old"], "new": read_ranked(folder / "base.run")}
    traced = Sources(qrels=sources.qrels, files=files, traces=sources.traces)
    assert [(cost.n_recorded, cost.tokens) for cost in run_costs(traced, outline(traced, ["RR"]))] == [(0, 0), (1, 120)]


def test_a_call_is_read_as_it_was_written(folder):
    """Prompts are truncated, with the number of missing characters."""
    (call,) = read_traces(folder / "new.trace", prompt_characters=8)["q2"]
    assert (call.prompt, call.n_prompt_characters) == ("Rank [1]", 38)
    assert (call.docids, call.order, call.status, call.defects) == (("b", "a"), (1, 0), "repaired", ("missing [1]",))
    assert usage_of((call, call)) == Usage(calls=2, prompt_tokens=200, completion_tokens=40)


def test_of_calls_with_one_passage_each_the_first_stands_for_all(folder, sources):
    """A pointwise run has a hundred per query, with scores in the list. A window is always shown."""
    window = queries(folder, sources)[1]
    assert [number for number, _ in window.shown_calls] == [1]
    (call,) = sources.traces["q2"]
    single = replace(call, docids=("a",), order=(0,), status="ok")
    assert [number for number, _ in replace(window, calls=(single, single, call)).shown_calls] == [1, 2, 3]
    failed = replace(single, status="fallback")
    assert [number for number, _ in replace(window, calls=(single, single, failed)).shown_calls] == [1, 3]


def test_of_many_comparisons_the_first_hundred_are_shown(folder, sources):
    """All pairs of a hundred candidates are 9,900 calls. Repaired ones are always shown."""
    window = queries(folder, sources)[1]
    (call,) = sources.traces["q2"]
    good, bad = replace(call, status="ok"), replace(call, status="repaired")
    shown = replace(window, calls=(*[good] * 130, bad, good)).shown_calls
    assert [number for number, _ in shown] == [*range(1, 101), 131]


def test_texts_of_requests_are_those_that_are_shown(folder, sources):
    """Truncated, with the number of omitted characters; missing texts are recorded."""
    plan = outline(sources, ["RR"])
    texts = texts_of_requests(folder / "new.jsonl", plan.docids, characters=5)
    assert texts.passages["q1"]["c"] == Passage(title="", text="Cedar", n_left_out=7)
    assert (texts.missing_qids(plan.docids), texts.missing_docids(plan.docids)) == (["q3"], ["x"])


def test_texts_of_a_collection_are_joined(folder, sources):
    """Queries and corpus as read by `prepare`."""
    (folder / "queries.tsv").write_text("q1\ttrees?\n", encoding="utf-8")
    (folder / "corpus.tsv").write_text("a\tAlder trees.\nz\tZelkova.\n", encoding="utf-8")
    plan = outline(sources, ["RR"])
    texts = texts_of_collection(folder / "queries.tsv", folder / "corpus.tsv", plan.docids, characters=99)
    assert texts.queries == {"q1": "trees?"}
    assert dict(texts.passages["q1"]) == {"a": Passage(title="", text="Alder trees.", n_left_out=0)}


def test_a_run_is_ranked_as_trec_eval_does(folder):
    """By score, ties by decreasing docid; for results, in list order."""
    (folder / "tied.run").write_text("q1 Q0 a 1 1 t\nq1 Q0 b 2 1 t\nq1 Q0 c 3 5 t\n", encoding="utf-8")
    assert [docid for docid, _ in read_ranked(folder / "tied.run").run["q1"]] == ["c", "b", "a"]
    assert [docid for docid, _ in read_ranked(folder / "new.jsonl").run["q1"]] == ["c", "a", "b"]


def test_a_run_of_ranks_tells_no_scores(folder):
    """MS MARCO: its order is the ranking; three columns with scores do contain scores."""
    (folder / "ranks.tsv").write_text("q1\tc\t1\nq1\ta\t2\n", encoding="utf-8")
    (folder / "scores.tsv").write_text("q1\tc\t2.5\nq1\ta\t1.5\n", encoding="utf-8")
    for name, scores in (("ranks.tsv", []), ("scores.tsv", [{"c": 2.5, "a": 1.5}])):
        found = read_ranked(folder / name)
        assert [docid for docid, _ in found.run["q1"]] == ["c", "a"]
        assert [outcome.scores for outcome in found.outcomes.values()] == scores


@pytest.mark.parametrize(
    ("docids", "scores", "passage_scores", "yes_no"),
    [
        (("a", "b"), (2.5, None), (2.5, None), None),
        (("a",), (2.5,), (2.5,), None),
        (("a",), (17.5, 15.0), (), (17.5, 15.0)),
        (("a", "b"), (1.0, 2.0, 3.0), (), None),
        (("a",), (), (), None),
    ],
)
def test_scores_are_of_passages_or_of_yes_and_no(sources, docids, scores, passage_scores, yes_no):
    """As many as passages; two for a single passage; any other number is ignored."""
    (call,) = sources.traces["q2"]
    told = replace(call, docids=docids, scores=scores)
    assert (told.passage_scores, told.yes_no) == (passage_scores, yes_no)


def test_of_many_passages_that_the_run_lost_the_first_are_shown(folder):
    """10 of 20,000 in the baseline that the run lacks; comparing all pairs would take 400 million steps."""
    n = 20_000
    for name, prefix in (("many.run", "a"), ("others.run", "b")):
        lines = (f"q1 Q0 {prefix}{place} {place + 1} {n - place} t\n" for place in range(n))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    files = {"old": read_ranked(folder / "many.run"), "new": read_ranked(folder / "others.run")}
    plan = outline(Sources(qrels={"q1": {"a0": 1, "b9": 0}}, files=files), ["RR"], depth=2)
    assert plan.docids["q1"] == ["b0", "b1", *(f"a{place}" for place in range(10))]


@pytest.mark.parametrize("to", ["requests", "rerank-input"])
@pytest.mark.parametrize("name", ["plain.jsonl", "array.json"])
def test_what_was_reranked_is_read_as_a_ranking(folder, to, name):
    """In any format that `rerank` reads: list order."""
    convert(folder / "requests.jsonl", folder / name, to=to)
    found = read_ranked(folder / name)
    assert {qid: [docid for docid, _ in ranking] for qid, ranking in found.run.items()} == {
        "q1": ["a", "b", "c"],
        "q2": ["b", "a"],
        "q3": ["a"],
    }
    assert found.has_texts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("short", ("short", "")),
        ("a" * 275, ("a" * 275, "")),
        ("word " * 60, ("word " * 43 + "word", "word " * 16)),
        ("字" * 300, ("字" * 220, "字" * 80)),
    ],
)
def test_a_long_text_is_cut_at_a_blank_and_loses_nothing(text, parts):
    """220 characters, or at the last space before; a slightly longer text is kept whole."""
    assert split_snippet(text) == parts


def test_what_html_cannot_carry_is_replaced():
    """Control characters and lone surrogates; line ends and tabs are kept."""
    assert displayable("a\x00b\ud800c\x1b[0m\td\n") == "a\ufffdb\ufffdc\ufffd[0m\td\n"


@pytest.mark.parametrize(
    ("grade", "greatest", "name"),
    [
        (None, 3, "gu"),
        (-1, 3, "g0"),
        (0, 3, "g0"),
        (1, 3, "g1"),
        (2, 3, "g2"),
        (3, 3, "g3"),
        (1, 1, "g3"),
        (2, 4, "g2"),
    ],
)
def test_a_grade_has_a_shade_by_its_share_of_the_greatest(grade, greatest, name):
    """Three shades for any scale."""
    assert grade_class(grade, greatest) == name


def test_drawings_say_in_words_what_they_show():
    """One cell per rank, one bar per query, each with its text, escaped."""
    heads = heads_chart([0, None], [2], max_grade=2)
    assert heads.count("<rect") == 3
    assert 'aria-label="Grades of the top ranks, before: 0 -; after: 2"' in heads
    gains = gains_chart([("#q1", 0.5, "<b>"), ("#q2", 0.0, "none"), ("#q3", -0.5, "loss")])
    assert [gains.count(f'class="{name}"') for name in ("better", "same", "worse")] == [1, 1, 1]
    assert "<title>&lt;b&gt;</title>" in gains


def test_the_trace_of_the_fixture_is_what_rerank_writes(folder):
    """Its keys equal the writer's, so that the format read here is the one written there."""
    call = WindowTrace(start=0, docids=("b",), prompt="p", response="r", order=(0,), status="ok")
    (written,) = trace_to_dict(Result(query=Query(qid="q", text="t"), candidates=(), trace=(call,)))[
        "invocations_history"
    ]
    assert written.keys() == TRACE[0]["invocations_history"][0].keys()
