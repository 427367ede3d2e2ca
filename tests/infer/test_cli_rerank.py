"""`rankllm-infer rerank` as a user sees it: inputs, methods, outputs, figures."""

from __future__ import annotations

import json
import math
import os
import threading

import pytest
from chat_server import serving
from ranking_server import request, respond, write_jsonl

from rankllm_core.data.records import read_requests

REQUESTS = (request("q1", 3, 9, 5), request("q2", 2, 1), request("q3", 1, 2, 3, 4))
"""The best orders: q1: d2 d3 d1, q2: d1 d2, q3: d4 d3 d2 d1."""
BEST_RUN = """\
q1 Q0 d2 1 3.0 rankllm
q1 Q0 d3 2 2.0 rankllm
q1 Q0 d1 3 1.0 rankllm
q2 Q0 d1 1 2.0 rankllm
q2 Q0 d2 2 1.0 rankllm
q3 Q0 d4 1 4.0 rankllm
q3 Q0 d3 2 3.0 rankllm
q3 Q0 d2 3 2.0 rankllm
q3 Q0 d1 4 1.0 rankllm
"""


@pytest.fixture(scope="module")
def oracle():
    """Options for a server whose model knows how much each passage is worth."""
    with serving(respond) as server:
        yield ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]


@pytest.fixture
def requests(tmp_path):
    """A requests file with three queries."""
    return write_jsonl(tmp_path / "requests.jsonl", *REQUESTS)


def records(path):
    """The lines of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def order(path):
    """qid -> docids of a results file."""
    return {record["query"]["qid"]: [c["docid"] for c in record["candidates"]] for record in records(path)}


BEST = {"q1": ["d2", "d3", "d1"], "q2": ["d1", "d2"], "q3": ["d4", "d3", "d2", "d1"]}


def test_a_generated_ranking_becomes_a_run(tmp_path, rankllm, oracle, requests):
    """Status 0, the run in TREC's layout, a summary on standard error, nothing on standard output."""
    done = rankllm("rerank", *oracle, "--requests", requests, "--output", tmp_path / "out.trec")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "out.trec").read_text(encoding="utf-8") == BEST_RUN
    assert "3/3" in done.err
    assert "3 queries in " in done.err
    assert ": ok 3; 3 model calls, 33 prompt tokens, 15 generated" in done.err
    assert done.err.endswith(f"Wrote {tmp_path / 'out.trec'}\n")
    assert "Warning" not in done.err


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        (["--use-logits", "--use-alpha"], [0.0, -1.0, -2.0]),
        (["--use-logits"], [0.0, -1.0, -2.0]),
        (["--method", "pointwise"], [-1 / 10 + 10, -1 / 6 + 6, -1 / 4 + 4]),
    ],
    ids=["FIRST", "FIRST with numbers", "yes or no"],
)
def test_log_probabilities_become_scores(tmp_path, rankllm, oracle, requests, options, scores):
    """FIRST reads one an identifier, yes/no the difference of the two; the results keep them as `model_score`."""
    out, run = tmp_path / "results.jsonl", tmp_path / "out.trec"
    done = rankllm("rerank", *oracle, *options, "--requests", requests, "--output-jsonl", out, "--output", run)
    assert done.code == 0, done.err
    assert order(out) == BEST
    assert [c["model_score"] for c in records(out)[0]["candidates"]] == pytest.approx(scores)
    lines = [line.split() for line in run.read_text(encoding="utf-8").splitlines()]
    assert [fields[2] for fields in lines] == BEST["q1"] + BEST["q2"] + BEST["q3"]
    if "pointwise" in options:
        assert [float(fields[4]) for fields in lines[:3]] == pytest.approx(scores)
    else:
        assert [fields[4] for fields in lines[:3]] == ["3.0", "2.0", "1.0"]


@pytest.mark.parametrize(
    ("options", "calls", "rounds"),
    [
        # q3 has four candidates, the others three and two, windows hold two: q3 in 3, 2 + 1, ... calls.
        (["--strategy", "sliding", "--window-size", "2", "--stride", "1"], 3 + 2 + 1, 3),
        # The second pass over two of each: a window more.
        (
            ["--window-size", "2", "--stride", "1", "--num-passes", "2", "--pass-depth", "2"],
            (3 + 1) + (2 + 1) + (1 + 1),
            4,
        ),
        (["--strategy", "full"], 1 + 1 + 1, 1),
        (["--strategy", "tournament", "--window-size", "2"], 3 + 2 + 1, 2),
        (["--strategy", "tournament", "--window-size", "3", "--rank-top-k", "1"], 2 + 1 + 1, 2),
        (["--strategy", "top-down", "--window-size", "3"], 3 + 1 + 1, 3),
        (["--strategy", "full", "--permutations", "3", "--seed", "5"], 3 + 3 + 3, 1),
    ],
)
def test_every_strategy_brings_the_best_to_the_top(tmp_path, rankllm, oracle, requests, options, calls, rounds):
    """Followed by hand for three small queries: calls of all, rounds of the longest, and each query's best first."""
    out = tmp_path / "results.jsonl"
    done = rankllm("rerank", *oracle, *options, "--requests", requests, "--output-jsonl", out)
    assert done.code == 0, done.err
    assert [docids[0] for docids in order(out).values()] == ["d2", "d1", "d4"]
    assert sum(record["usage"]["calls"] for record in records(out)) == calls
    assert max(record["usage"]["rounds"] for record in records(out)) == rounds
    assert f"{calls} model calls" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "full", "--stride", "2"], "--stride has no effect with --strategy full"),
        (["--rank-top-k", "2"], "--rank-top-k has no effect with --strategy sliding"),
        (["--strategy", "top-down", "--rank-top-k", "20"], "less than the window of 20 passages"),
        (["--seed", "2"], "--seed has no effect without --shuffle-candidates or --permutations"),
    ],
)
def test_strategy_options_without_effect_are_refused(tmp_path, rankllm, oracle, requests, options, message):
    """In one line, before anything is asked."""
    done = rankllm("rerank", *oracle, *options, "--requests", requests, "--output", tmp_path / "out.trec")
    assert done.code in (1, 2)
    assert message in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("out.trec", ["--tag", "mine"], "q2 Q0 d1 1 2.0 mine\nq2 Q0 d2 2 1.0 mine\n"),
        ("out.tsv", [], "q2\td1\t2.0\nq2\td2\t1.0\n"),
        ("out.txt", ["--output-format", "msmarco"], "q2\td1\t1\nq2\td2\t2\n"),
        ("out.tsv", ["--output-format", "trec"], "q2 Q0 d1 1 2.0 rankllm\nq2 Q0 d2 2 1.0 rankllm\n"),
    ],
)
def test_the_run_has_the_layout_of_its_name_or_the_one_asked_for(tmp_path, rankllm, oracle, name, options, text):
    """TREC, TSV for .tsv, MS MARCO."""
    requests = write_jsonl(tmp_path / "requests.jsonl", REQUESTS[1])
    done = rankllm("rerank", *oracle, "--requests", requests, "--output", tmp_path / name, *options)
    assert done.code == 0, done.err
    assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_results_and_trace_hold_what_was_asked_and_answered(tmp_path, rankllm, oracle, requests):
    """Results read back as requests, and reranking them again changes nothing; the trace holds every prompt."""
    out, trace = tmp_path / "results.jsonl", tmp_path / "trace.jsonl"
    done = rankllm("rerank", *oracle, "--requests", requests, "--output-jsonl", out, "--trace", trace)
    assert done.code == 0, done.err
    first = records(out)[0]
    assert first["query"] == {"text": "question q1", "qid": "q1"}
    assert first["candidates"][0] == {
        "docid": "d2",
        "score": 3.0,
        "doc": {"text": "passage 2 worth 9"},
        "model_score": None,
    }
    assert (first["status"], first["defects"]) == ("ok", [])
    assert first["usage"] == {"calls": 1, "rounds": 1, "prompt_tokens": 11, "completion_tokens": 5}
    (call,) = records(trace)[0]["invocations_history"]
    assert "[2] passage 2 worth 9" in call["prompt"]
    assert call["response"] == "[2] > [3] > [1]"
    assert (call["input_token_count"], call["output_token_count"]) == (11, 5)
    assert [r.query.qid for r in read_requests(out)] == ["q1", "q2", "q3"]
    assert rankllm("rerank", *oracle, "--requests", out, "--output", tmp_path / "again.trec").code == 0
    assert (tmp_path / "again.trec").read_text(encoding="utf-8") == BEST_RUN


def test_a_run_is_joined_with_its_texts(tmp_path, rankllm, oracle):
    """What could not be joined is reported and left out; --strict makes it an error before a model is loaded."""
    run = "q1 Q0 d1 1 3 t\nq1 Q0 d2 2 2 t\nq1 Q0 gone 3 1 t\nlost Q0 d1 1 1 t\n"
    (tmp_path / "run").write_text(run, encoding="utf-8")
    (tmp_path / "queries.tsv").write_text("q1\tquestion\nq9\tnever asked\n", encoding="utf-8")
    write_jsonl(tmp_path / "corpus.jsonl", *({"docid": f"d{n}", "text": f"passage worth {n}"} for n in (1, 2, 3)))
    sources = ["--run", tmp_path / "run", "--queries", tmp_path / "queries.tsv", "--corpus", tmp_path / "corpus.jsonl"]
    done = rankllm("rerank", *oracle, *sources, "--output", tmp_path / "out.trec")
    assert done.code == 0
    assert (tmp_path / "out.trec").read_text(encoding="utf-8").splitlines() == [
        "q1 Q0 d2 1 2.0 rankllm",
        "q1 Q0 d1 2 1.0 rankllm",
    ]
    assert "dropped 1 query of the run without text ('lost')" in done.err
    assert "1 docid not in the corpus ('gone')" in done.err
    done = rankllm("rerank", *oracle, *sources, "--output", tmp_path / "strict.trec", "--strict")
    assert done.code == 1
    assert "lacks 1 of the run's 2 qids ('lost')" in done.err
    assert "Loading" not in done.err


def test_one_query_gives_a_table(tmp_path, rankllm, oracle):
    """Passages from standard input, one a line."""
    done = rankllm("rerank", *oracle, "--query", "what", "--passages", "-", stdin="worth 1\n\nworth 3\nworth 2\n")
    assert done.code == 0
    rows = [line.split(maxsplit=4) for line in done.out.splitlines()]
    assert rows == [
        ["rank", "was", "docid", "score", "text"],
        ["1", "2", "2", "3.000", "worth 3"],
        ["2", "3", "3", "2.000", "worth 2"],
        ["3", "1", "1", "1.000", "worth 1"],
    ]


def test_one_query_gives_json_and_files(tmp_path, rankllm, oracle):
    """Passages from JSON Lines keep their docids; --json prints the record that --output-jsonl writes."""
    passages = write_jsonl(
        tmp_path / "passages.jsonl", {"docid": 7, "text": "worth 1"}, {"docid": "x", "text": "worth 2"}
    )
    run, out = tmp_path / "out.trec", tmp_path / "out.jsonl"
    done = rankllm(
        "rerank", *oracle, "--query", "what", "--passages", passages, "--json", "--output", run, "--output-jsonl", out
    )
    assert done.code == 0, done.err
    assert done.out == out.read_text(encoding="utf-8")
    assert [c["docid"] for c in json.loads(done.out)["candidates"]] == ["x", "7"]
    assert run.read_text(encoding="utf-8") == "1 Q0 x 1 2.0 rankllm\n1 Q0 7 2 1.0 rankllm\n"


def test_figures_are_of_the_queries_that_were_run(tmp_path, rankllm, oracle, requests):
    """Two of the three are judged, a judged one is not among them, and the figures say so."""
    (tmp_path / "qrels").write_text("q1 0 d3 1\nq3 0 d4 1\nq9 0 d1 1\n", encoding="utf-8")
    done = rankllm("rerank", *oracle, "--requests", requests, "--qrels", tmp_path / "qrels")
    assert done.code == 0
    # q1 has its one relevant passage at rank 2, q3 at rank 1.
    ndcg = (1 / math.log2(3) + 1) / 2
    assert done.out == f"reranked\tnDCG@10\t{ndcg:.4f}\nreranked\tMRR@10\t0.7500\nreranked\tRecall@100\t1.0000\n"
    assert "Scores of the 2 judged queries among the 3 ranked by this run" in done.err


def test_only_the_first_candidates_are_reranked(tmp_path, rankllm, oracle, requests):
    """The others follow in first-stage order."""
    out = tmp_path / "results.jsonl"
    done = rankllm("rerank", *oracle, "--requests", requests, "--output-jsonl", out, "--top-k-candidates", "2")
    assert done.code == 0
    assert order(out) == {"q1": ["d2", "d1", "d3"], "q2": ["d1", "d2"], "q3": ["d2", "d1", "d3", "d4"]}


def test_only_the_first_queries_are_reranked(tmp_path, rankllm, oracle, requests):
    """--max-queries stops after so many, and what follows is not even read."""
    with requests.open("a", encoding="utf-8") as stream:
        stream.write("not JSON\n")
    out = tmp_path / "results.jsonl"
    done = rankllm("rerank", *oracle, "--requests", requests, "--output-jsonl", out, "--max-queries", "2")
    assert (done.code, list(order(out))) == (0, ["q1", "q2"])


def test_requests_come_from_a_pipe_as_well(tmp_path, rankllm, oracle, requests):
    """Which can be read once only: `--requests <(zcat requests.jsonl.gz)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(requests.read_bytes()))
    writer.start()
    done = rankllm("rerank", *oracle, "--requests", pipe, "--output", tmp_path / "out.trec")
    writer.join()
    assert done.code == 0, done.err
    assert (tmp_path / "out.trec").read_text(encoding="utf-8") == BEST_RUN


@pytest.mark.parametrize("options", [[], ["--use-logits"], ["--method", "pointwise"]])
def test_no_candidate_and_one_candidate_are_rankings(tmp_path, rankllm, oracle, options):
    """Nothing to rank is no failure: the empty one is reported, and a run has no line for it."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("none"), request("one", 5), request("two", 1, 2))
    run, out = tmp_path / "out.trec", tmp_path / "out.jsonl"
    done = rankllm("rerank", *oracle, *options, "--requests", requests, "--output", run, "--output-jsonl", out)
    assert done.code == 0
    assert "Without candidates: 1 query ('none')" in done.err
    assert order(out) == {"none": [], "one": ["d1"], "two": ["d2", "d1"]}
    assert [line.split()[0] for line in run.read_text(encoding="utf-8").splitlines()] == ["one", "two", "two"]


def test_the_originals_names_of_options_are_understood(tmp_path, rankllm, oracle, requests):
    """rank_llm's, with underscores and with dashes; what has no effect here is said once."""
    (tmp_path / "qrels").write_text("q1 0 d3 1\n", encoding="utf-8")
    model = oracle[-1]
    done = rankllm(
        "rerank",
        *oracle[:-2],
        f"--model_name_or_path={model}",
        f"--requests_file={requests}",
        f"--output-trec-file={tmp_path / 'out.trec'}",
        f"--output_jsonl_file={tmp_path / 'out.jsonl'}",
        f"--invocations_history_file={tmp_path / 'trace.jsonl'}",
        f"--qrels_file={tmp_path / 'qrels'}",
        "--top_k_candidates=100",
        "--variable_passages",
        "--prompt_template_path=src/rank_llm/rerank/prompt_templates/rank_zephyr_template.yaml",
        "--context_size=4096",
        "--num_passes=1",
        "--print_prompts_responses",
        "--populate_invocations_history",
    )
    assert done.code == 0, done.err
    assert (tmp_path / "out.trec").read_text(encoding="utf-8") == BEST_RUN
    assert order(tmp_path / "out.jsonl") == BEST
    assert len(records(tmp_path / "trace.jsonl")) == 3
    assert done.out.startswith("reranked\tnDCG@10\t")
    assert done.err.count("Warning: --print-prompts-responses has no effect in rankllm and is ignored\n") == 1
    assert done.err.count("Warning") == 1  # the history is in the file that is named for it


def test_outputs_are_replaced_where_that_is_asked_for(tmp_path, rankllm, oracle, requests):
    """--overwrite; and folders are made."""
    run = tmp_path / "deep" / "er" / "out.trec"
    assert rankllm("rerank", *oracle, "--requests", requests, "--output", run).code == 0
    run.write_text("old\n", encoding="utf-8")
    assert rankllm("rerank", *oracle, "--requests", requests, "--output", run, "--overwrite").code == 0
    assert run.read_text(encoding="utf-8") == BEST_RUN


def test_windows_slide_over_long_lists(tmp_path, rankllm, oracle):
    """Nine windows of 20 over 100 candidates carry the best to the top, whatever the first stage thought of it."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q1", *range(100)))
    run, trace = tmp_path / "out.trec", tmp_path / "trace.jsonl"
    done = rankllm("rerank", *oracle, "--requests", requests, "--output", run, "--trace", trace)
    assert done.code == 0
    assert [call["start"] for call in records(trace)[0]["invocations_history"]] == [80, 70, 60, 50, 40, 30, 20, 10, 0]
    docids = [line.split()[2] for line in run.read_text(encoding="utf-8").splitlines()]
    assert docids[:10] == [f"d{number}" for number in range(100, 90, -1)]
    assert sorted(docids) == sorted(f"d{number}" for number in range(1, 101))


def test_a_data_set_with_stored_results_needs_nothing_else(tmp_path, rankllm, oracle, monkeypatch):
    """rank_llm's folders: --top-k-candidates cuts the lists, the judgements beside them give the figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK_LLM_CACHE", raising=False)
    (tmp_path / "retrieve_results" / "BM25_RM3").mkdir(parents=True)
    write_jsonl(tmp_path / "retrieve_results" / "BM25_RM3" / "retrieve_results_dl20_top100.jsonl", *REQUESTS)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "qrels_dl20.json").write_text('{"q1": {"d2": "1"}, "q3": {"d4": 1}}', encoding="utf-8")
    data_set = ["--dataset", "dl20", "--retrieval_method", "bm25_rm3", "--top_k_candidates", "2"]
    done = rankllm("rerank", *oracle, *data_set, "--output", "out.trec", "--max-queries", "2")
    assert done.code == 0, done.err
    lines = [line.split() for line in (tmp_path / "out.trec").read_text(encoding="utf-8").splitlines()]
    assert [fields[2] for fields in lines] == ["d2", "d1", "d1", "d2"]
    assert "reranked\tMRR@10\t1.0000" in done.out.splitlines()
    assert "Scores of the 1 judged queries among the 2 ranked" in done.err


def test_a_data_set_without_judgements_is_ranked_without_figures(tmp_path, rankllm, oracle):
    """Why there are none is one line; it is no error."""
    results = tmp_path / "stored" / "retrieve_results"
    (results / "BM25").mkdir(parents=True)
    write_jsonl(results / "BM25" / "retrieve_results_nfc_top100.jsonl", *REQUESTS)
    (tmp_path / "stored" / "qrels").mkdir()
    (tmp_path / "stored" / "qrels" / "qrels_nfc.json").write_text('{"x": {"d2": 1}}', encoding="utf-8")
    data_set = ["--dataset", "beir-nfcorpus", "--retrieval-method", "bm25", "--retrieval-results-dir", results]
    done = rankllm("rerank", *oracle, *data_set, "--output", tmp_path / "out.trec")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "out.trec").read_text(encoding="utf-8") == BEST_RUN
    assert "No scores: beir-v1.0.0-nfcorpus-test: judges none of the 3 queries" in done.err
