"""The demo: both figures are right, everything is written, and it runs from start to end without data or a hub."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import pytest
from ranking_fakes import make_method, shown

from rankllm_core.data.records import read_requests
from rankllm_core.text import passage_text
from rankllm_infer.api import Reranker
from rankllm_infer.checkpoints.hub import SHIPPED
from rankllm_infer.demo.collection import load_demo_collection
from rankllm_infer.demo.run import DemoFiles, demo_requests, run_demo
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine

COLLECTION = load_demo_collection()


def lines(path):
    """The columns of a run, by query."""
    ranking: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        qid, _, docid, *_ = line.split()
        ranking.setdefault(qid, []).append(docid)
    return ranking


def ndcg(ranking):
    """nDCG@10 as trec_eval defines it (gain: the grade, discount: log2 of 1 + rank), mean over all judged queries."""

    def dcg(grades):
        return sum(grade / math.log2(1 + rank) for rank, grade in enumerate(grades[:10], start=1))

    return sum(
        dcg([grades.get(docid, 0) for docid in ranking[qid]]) / dcg(sorted(grades.values(), reverse=True))
        for qid, grades in COLLECTION.qrels.items()
    ) / len(COLLECTION.qrels)


def graded(prompt, *, best_first):
    """The answer of a model that has read the judgements."""
    (qid,) = [qid for qid, text in COLLECTION.queries.items() if text in prompt.text]
    grade_of = {
        " ".join(passage_text(COLLECTION.corpus[docid]).split()): grade
        for docid, grade in COLLECTION.qrels[qid].items()
    }
    sign = -1 if best_first else 1
    ranked = sorted(shown(prompt), key=lambda pair: sign * grade_of.get(pair[1], 0))
    return Answer(text=" > ".join(f"[{label}]" for label, _ in ranked))


def demo(folder, answer, **values):
    """The demo's report with a scripted model."""
    reranker = Reranker(make_method(card={"max_passage_words": 1000}), ScriptedEngine(answer))
    return run_demo(reranker, DemoFiles(folder=folder), **values)


def test_a_perfect_model_reaches_the_best_possible_figure(tmp_path):
    """BM25's figure is the one of its run; the reranked one that of the same candidates sorted by their grades."""
    report = demo(tmp_path, lambda prompt: graded(prompt, best_first=True))
    first = lines(tmp_path / "bm25.trec")
    grades = COLLECTION.qrels
    best = {qid: sorted(docids, key=lambda docid: -grades[qid].get(docid, 0)) for qid, docids in first.items()}
    assert report.first_stage == pytest.approx(ndcg(first))
    assert report.reranked == pytest.approx(ndcg(best))
    assert report.reranked > report.first_stage
    assert report.reranked == pytest.approx(ndcg(lines(tmp_path / "reranked.trec")))
    assert report.summary.statuses == {"ok": 27}


def test_a_perverse_model_is_seen_in_the_figure(tmp_path):
    """The worst order of the same candidates: the demo does not flatter."""
    report = demo(tmp_path, lambda prompt: graded(prompt, best_first=False))
    first = lines(tmp_path / "bm25.trec")
    worst = {
        qid: sorted(docids, key=lambda docid: COLLECTION.qrels[qid].get(docid, 0)) for qid, docids in first.items()
    }
    assert report.reranked == pytest.approx(ndcg(worst))
    assert report.reranked < report.first_stage


def test_the_demo_writes_what_it_ranked(tmp_path):
    """BM25's run, the requests, the reranked run, results and judgements, for all 27 questions, one window each."""
    demo(tmp_path, lambda prompt: graded(prompt, best_first=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bm25.trec",
        "qrels.txt",
        "requests.jsonl",
        "reranked.trec",
        "results.jsonl",
    ]
    first, second = lines(tmp_path / "bm25.trec"), lines(tmp_path / "reranked.trec")
    assert list(first) == list(second) == list(COLLECTION.queries)
    assert all(sorted(first[qid]) == sorted(second[qid]) for qid in first)
    assert max(map(len, first.values())) == 20
    assert {r.query.qid: [c.docid for c in r.candidates] for r in read_requests(tmp_path / "requests.jsonl")} == first
    assert {r.query.qid: [c.docid for c in r.candidates] for r in read_requests(tmp_path / "results.jsonl")} == second


def test_progress_counts_to_the_last_query(tmp_path):
    """One step a query, as they finish."""
    seen = []
    demo(
        tmp_path,
        lambda prompt: graded(prompt, best_first=True),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(number, 27) for number in range(1, 28)]


def test_a_query_that_fails_lowers_the_figure(tmp_path):
    """It counts 0 among the judged queries, and is in the report."""
    lost = COLLECTION.queries[next(iter(COLLECTION.queries))]

    def answer(prompt):
        return EngineError("no") if lost in prompt.text else graded(prompt, best_first=True)

    report = demo(tmp_path, answer)
    assert report.summary.statuses == {"ok": 26, "failed": 1}
    ranked = lines(tmp_path / "reranked.trec")
    assert report.reranked == pytest.approx(ndcg(ranked | {next(iter(COLLECTION.queries)): []}))


def test_candidates_come_with_their_texts():
    """20 at the most for each question, best first, with title and text."""
    requests = demo_requests(COLLECTION)
    assert len(requests) == 27
    for request in requests:
        scores = [c.score for c in request.candidates]
        assert 10 <= len(scores) <= 20
        assert scores == sorted(scores, reverse=True)
        assert all(c.doc == COLLECTION.corpus[c.docid] for c in request.candidates)


def test_the_command_runs_with_any_model(tmp_path, rankllm, tiny_causal):
    """--model-path in place of the embedded one: standard output has the report, standard error the rest."""
    done = rankllm("demo", "--model-path", tiny_causal, "--output-dir", tmp_path / "out", "--dtype", "float32")
    assert done.code == 0, done.err
    check_report(done.out, tmp_path / "out", tiny_causal.name)
    assert "never trained to rank" not in done.out
    assert "Preparing" not in done.err
    assert f"Reranking: listwise, {tiny_causal} on cpu in float32 (no card; defaults)" in done.err


def test_the_command_says_which_method_the_model_has(tmp_path, rankllm, tiny_classifier):
    """Pointwise with a score head."""
    done = rankllm(
        "demo", "--method", "pointwise", "--model-path", tiny_classifier, "--output-dir", tmp_path, "--dtype", "float32"
    )
    assert done.code == 0, done.err
    check_report(done.out, tmp_path, tiny_classifier.name)
    assert "Reranking: pointwise" in done.err


def test_a_second_demo_with_another_model_leaves_the_first_ones_files(tmp_path):
    """Both runs can then be compared; only the first stage, which is the same, is written again."""
    files = [DemoFiles(folder=tmp_path, model=model) for model in ("one", "two")]
    assert [(f.reranked.name, f.results.name) for f in files] == [("one.trec", "one.jsonl"), ("two.trec", "two.jsonl")]
    assert {f.first_stage for f in files} == {tmp_path / "bm25.trec"}


def test_a_folder_that_cannot_be_written_is_found_at_once(tmp_path, rankllm):
    """Before a model is unpacked or loaded."""
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    done = rankllm("demo", "--output-dir", file / "out")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"Error: {file / 'out' / 'smollm2-pointwise.trec'}: cannot be written ({file} is not a folder)\n"
    assert rankllm("demo", "--output-dir", file).code == 2


def test_a_model_that_is_nowhere_is_one_line(tmp_path, rankllm):
    """And nothing is written."""
    done = rankllm("demo", "--model-path", "no/such/model", "--output-dir", tmp_path / "out")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "Error: no/such/model: no such model folder (a name on the hub looks like OWNER/MODEL; bundled models: "
        "smollm2-pointwise, smollm2-first, smollm2)\n"
    )
    assert not (tmp_path / "out").exists()


def check_report(out, folder, model):
    """Counts, tokens, seconds and statuses; both figures, which are those of the two runs; what to do next.

    In a clone, nothing puts the program on PATH: what is printed begins with `uv run`.
    """
    counts = re.match(
        r"27 queries in (\d+\.\d) s: [a-z]+ \d+(?:, [a-z]+ \d+)*; ([\d,]+) model calls, ([\d,]+) prompt tokens, ", out
    )
    assert counts, out
    assert int(counts[2].replace(",", "")) >= 27
    assert int(counts[3].replace(",", "")) > 5000
    for name, run in (("BM25", "bm25.trec"), ("reranked", f"{model}.trec")):
        row = re.search(rf"^{name} +(\d\.\d{{4}})   {re.escape(str(folder / run))}$", out, re.MULTILINE)
        assert row, out
        assert float(row[1]) == pytest.approx(ndcg(lines(folder / run)), abs=0.00006)
    program = "uv run --package rankllm-infer --group demo rankllm-infer"
    assert f"  {program} report {folder / f'{model}.jsonl'} --requests {folder / 'requests.jsonl'}" in out
    assert f"--qrels {folder / 'qrels.txt'}" in out


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ten minutes on a CPU without bfloat16 that has other work
def test_the_demo_runs_from_start_to_end(tmp_path, smollm2_path):
    """`rankllm-infer demo` as a user types it, in a folder that holds one of the shipped reranker's name.

    Exit status 0, both figures, and the reranked one better by more than a twentieth. That is the pointwise reranker;
    for the listwise one see test_shipped_models.py.
    """
    (tmp_path / SHIPPED["pointwise"]).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "rankllm_infer", "demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # One thread is for tests of tiny models; this one is as a user has it.
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "rankllm-demo"
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, SHIPPED["pointwise"]}
    assert "Reranking: pointwise, " in done.stderr
    assert f"{SHIPPED['pointwise']} on " in done.stderr
    check_report(done.stdout.replace("rankllm-demo/", f"{folder}/"), folder, SHIPPED["pointwise"])
    assert "27 of 27 queries" in done.stderr
    statuses = [
        json.loads(line)["status"]
        for line in (folder / f"{SHIPPED['pointwise']}.jsonl").read_text("utf-8").splitlines()
    ]
    assert statuses == ["ok"] * 27
    assert ndcg(lines(folder / f"{SHIPPED['pointwise']}.trec")) > ndcg(lines(folder / "bm25.trec")) + 0.05
