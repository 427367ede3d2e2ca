"""Conversion: recorded files of the originals, round trips, and reports."""

from __future__ import annotations

import json

import pytest
from shared_files import data

from rankllm_core.errors import ConfigError, DataError
from rankllm_core.trec import read_run, trec_order
from rankllm_infer.formats.convert import convert, detect_format

# Recorded by running texttron/tevatron@dd06310 src/tevatron/utils/format/convert_result_to_trec.py and
# convert_result_to_marco.py on these lines.
RESULT = "q1\td2\t5.5\nq1\tq1\t5.0\nq1\td1\t4.0\nq2\td9\t1.0\n"
TREC = "q1 Q0 d2 1 5.5 dense\nq1 Q0 q1 2 5.0 dense\nq1 Q0 d1 3 4.0 dense\nq2 Q0 d9 1 1.0 dense\n"
TREC_WITHOUT_QUERY = "q1 Q0 d2 1 5.5 dense\nq1 Q0 d1 2 4.0 dense\nq2 Q0 d9 1 1.0 dense\n"
MSMARCO = "q1\td2\t1\nq1\tq1\t2\nq1\td1\t3\nq2\td9\t1\n"


def record(qid, scores, *, doc=None):
    """A line of a requests file: docids d0, d1, ... with these scores."""
    candidates = [
        {"docid": f"d{number}", "score": score, "doc": doc or {"text": f"text {number}"}}
        for number, score in enumerate(scores)
    ]
    return {"query": {"text": f"what is {qid}?", "qid": qid}, "candidates": candidates}


def write(path, content):
    lines = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
    path.write_text(lines, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("to", "remove_query", "expected"),
    [
        ("trec", False, TREC),
        ("trec", True, TREC_WITHOUT_QUERY),
        ("msmarco", False, MSMARCO),
        ("msmarco", True, "q1\td2\t1\nq1\td1\t2\nq2\td9\t1\n"),
        ("tsv", False, RESULT),
        ("tsv", True, "q1\td2\t5.5\nq1\td1\t4.0\nq2\td9\t1.0\n"),
    ],
)
def test_result_files_convert_as_tevatron_converts_them(tmp_path, to, remove_query, expected):
    """Byte for byte, with the original's tag; ranks are counted after the query's own row is removed."""
    source = write(tmp_path / "result.tsv", RESULT)
    report = convert(source, tmp_path / "out", to=to, remove_query=remove_query, tag="dense")
    assert (tmp_path / "out").read_text() == expected
    assert (report.n_queries, report.n_candidates, report.n_removed) == (2, 4 - remove_query, int(remove_query))
    assert report.reordered_qids == report.rescored_qids == report.emptied_qids == ()


def test_trec_and_result_files_turn_into_each_other(tmp_path):
    """Scores that differ in single precision survive both directions."""
    source = write(tmp_path / "result.tsv", RESULT)
    convert(source, tmp_path / "run", to="trec", tag="dense")
    convert(tmp_path / "run", tmp_path / "back.tsv", to="tsv")
    assert (tmp_path / "back.tsv").read_text() == RESULT


def test_ties_keep_the_order_of_the_file_and_are_lowered(tmp_path):
    """The original keeps equal scores, which trec_eval then orders by docid; here the file's order is kept."""
    source = write(tmp_path / "result.tsv", "q\ta\t2.0\nq\tb\t2.0\nq\tc\t2.0\n")
    report = convert(source, tmp_path / "run", to="trec")
    ranking = read_run(tmp_path / "run")["q"]
    assert [docid for docid, _ in trec_order(ranking)] == ["a", "b", "c"]
    assert report.reordered_qids == ()


def test_a_run_that_is_not_sorted_is_sorted_and_reported(tmp_path):
    """Scores decide, regardless of the stated ranks; the query is named."""
    source = write(tmp_path / "run", "q1 Q0 a 1 1.0 t\nq1 Q0 b 2 3.0 t\nq2 Q0 c 1 1.0 t\n")
    report = convert(source, tmp_path / "out", to="msmarco")
    assert (tmp_path / "out").read_text() == "q1\tb\t1\nq1\ta\t2\nq2\tc\t1\n"
    assert report.reordered_qids == ("q1",)


def test_ranks_become_scores_that_fall(tmp_path):
    """An MS MARCO run keeps its order in every format."""
    source = write(tmp_path / "msmarco", MSMARCO)
    convert(source, tmp_path / "run", to="trec")
    assert [docid for docid, _ in trec_order(read_run(tmp_path / "run")["q1"])] == ["d2", "q1", "d1"]
    convert(tmp_path / "run", tmp_path / "back", to="msmarco")
    assert (tmp_path / "back").read_text() == MSMARCO


def test_a_real_run_keeps_its_order_through_every_layout(tmp_path):
    """40,001 ties: the order of the lines is kept, and no ties remain."""
    source = data("trec_io/runs/rank_llm.REP_LLAMA.dl19.trec.txt.gz")
    convert(source, tmp_path / "tsv", to="tsv")
    convert(tmp_path / "tsv", tmp_path / "run", to="trec")
    before, after = read_run(source), read_run(tmp_path / "run")
    assert list(after) == list(before)
    for qid, candidates in before.items():
        assert [docid for docid, _ in trec_order(after[qid])] == [docid for docid, _ in candidates]


def test_results_become_a_run_in_the_order_of_the_list(tmp_path):
    """Scores of results JSONL are kept if they decrease along the list."""
    source = write(tmp_path / "results.jsonl", [record("q1", [3.0, 2.5]), record("q2", [1.0])])
    report = convert(source, tmp_path / "run", to="trec")
    assert (tmp_path / "run").read_text() == (
        "q1 Q0 d0 1 3.0 rankllm\nq1 Q0 d1 2 2.5 rankllm\nq2 Q0 d0 1 1.0 rankllm\n"
    )
    assert report.rescored_qids == ()


@pytest.mark.parametrize("scores", [[1.0, 5.0, 2.0], [0.0, 0.0, 0.0]])
def test_the_list_is_the_ranking_where_scores_contradict_it_or_say_nothing(tmp_path, scores):
    """Such a query gets scores n - rank + 1 and is named."""
    source = write(tmp_path / "results.jsonl", [record("q1", scores), record("q2", [2.0, 1.0])])
    report = convert(source, tmp_path / "out.tsv", to="tsv")
    assert (tmp_path / "out.tsv").read_text() == "q1\td0\t3.0\nq1\td1\t2.0\nq1\td2\t1.0\nq2\td0\t2.0\nq2\td1\t1.0\n"
    assert report.rescored_qids == ("q1",)


def test_requests_and_rerank_input_turn_into_each_other(tmp_path):
    """Lossless: ids, texts, scores and passage fields."""
    source = write(tmp_path / "requests.jsonl", [record("q1", [3.0, 2.5]), record("q2", [1.0])])
    convert(source, tmp_path / "rows.jsonl", to="rerank-input")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows[1] == {"docid": "d1", "text": "text 1", "score": 2.5, "query_id": "q1", "query": "what is q1?"}
    convert(tmp_path / "rows.jsonl", tmp_path / "back.jsonl", to="requests")
    assert (tmp_path / "back.jsonl").read_text() == source.read_text()
    convert(tmp_path / "rows.jsonl", tmp_path / "run", to="msmarco")
    assert (tmp_path / "run").read_text() == "q1\td0\t1\nq1\td1\t2\nq2\td0\t1\n"


def test_the_query_itself_is_removed_from_requests(tmp_path):
    """A query that loses its only candidate is named."""
    source = write(tmp_path / "requests.jsonl", [record("d0", [3.0, 2.5]), record("q2", [1.0])])
    report = convert(source, tmp_path / "kept.jsonl", to="requests", remove_query=True)
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [[candidate["docid"] for candidate in line["candidates"]] for line in kept] == [["d1"], ["d0"]]
    assert (report.n_removed, report.n_candidates) == (1, 2)
    source = write(tmp_path / "run", "q1 Q0 q1 1 2 t\nq2 Q0 d 1 2 t\n")
    report = convert(source, tmp_path / "out", to="tsv", remove_query=True)
    assert report.emptied_qids == ("q1",)
    assert (tmp_path / "out").read_text() == "q2\td\t2.0\n"


@pytest.mark.parametrize("to", ["requests", "rerank-input"])
def test_a_run_is_joined_with_its_texts(tmp_path, to):
    """Every candidate, by score, with the texts of query and passage; missing ones are reported."""
    run = write(tmp_path / "run", "q1 Q0 d1 1 1.0 t\nq1 Q0 d2 2 3.0 t\nq1 Q0 q1 3 9.0 t\nq1 Q0 d404 4 0.5 t\n")
    queries = write(tmp_path / "queries.tsv", "q1\twhat?\n")
    passages = [{"docid": docid, "title": "", "text": f"text of {docid}"} for docid in ("d1", "d2", "q1")]
    corpus = write(tmp_path / "corpus.jsonl", passages)
    report = convert(run, tmp_path / "out.jsonl", to=to, queries=queries, corpus=corpus, remove_query=True)
    convert(tmp_path / "out.jsonl", tmp_path / "out.tsv", to="tsv", source_format=to)
    assert (tmp_path / "out.tsv").read_text() == "q1\td2\t3.0\nq1\td1\t1.0\n"
    assert "text of d2" in (tmp_path / "out.jsonl").read_text()
    assert (report.n_queries, report.n_candidates, report.n_removed) == (1, 2, 1)
    assert report.prepared.missing_docids == ("d404",)


def test_texts_are_asked_for_only_where_they_are_needed(tmp_path):
    """A run contains no texts; a conversion that needs none rejects them."""
    run = write(tmp_path / "run", TREC)
    with pytest.raises(
        ConfigError, match=r"run: is a run, which contains no texts; converting it to requests needs queries"
    ):
        convert(run, tmp_path / "out", to="requests", queries=run)
    with pytest.raises(ConfigError, match="queries and corpus have no effect from run to tsv"):
        convert(run, tmp_path / "out", to="tsv", queries=run)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (TREC, "run"),
        (RESULT, "run"),
        (json.dumps(record("q", [1.0])), "requests"),
        (json.dumps({"query": "old", "hits": []}), "requests"),
        ("[\n" + json.dumps(record("q", [1.0])) + "\n]", "requests"),
        (json.dumps({"docid": "d", "query_id": "q", "query": "?", "score": 1}), "rerank-input"),
    ],
)
def test_the_first_line_tells_the_format(tmp_path, text, kind):
    """Runs, requests (new and old, lines or an array) and rerank-input files."""
    assert detect_format(write(tmp_path / "file", text)) == kind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file: is empty"),
        ('{"id": 1}', "file:1: expected the keys of requests .* found 'id'"),
        ('{\n "query": {}\n}', "file:1: not JSON Lines"),
    ],
)
def test_other_files_are_an_error(tmp_path, text, message):
    """An unknown format is not guessed."""
    with pytest.raises(DataError, match=message):
        detect_format(write(tmp_path / "file", text))


@pytest.mark.parametrize("options", [{"to": "csv"}, {"to": "trec", "source_format": "csv"}])
def test_unknown_formats_are_an_error(tmp_path, options):
    """The message lists the known ones."""
    with pytest.raises(ConfigError, match="format 'csv': expected one of"):
        convert(write(tmp_path / "run", TREC), tmp_path / "out", **options)
