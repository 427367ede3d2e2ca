"""Memory does not grow with the number of queries: ten thousand stream through, including journal and measures."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from rankllm_core.types import Result, Usage
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.evaluation.evaluate import RunningEvaluation
from rankllm_infer.jobs.fingerprint import InputDigest, StoredRequests, check_requests
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.jobs.outputs import OutputFiles, open_outputs
from rankllm_infer.scheduling.pool import FlowPool

TEXT = "a passage of some length " * 80
"""2,000 bytes."""


def write_requests(path, n_queries, n_candidates):
    """A requests file with this many queries and candidates."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(n_queries):
            candidates = [{"docid": f"d{i}", "score": -i, "doc": {"text": TEXT}} for i in range(n_candidates)]
            record = {"query": {"qid": f"q{number}", "text": f"question {number}"}, "candidates": candidates}
            stream.write(json.dumps(record) + "\n")
    return path


def flow(request):
    """One prompt; the answer does not matter."""
    (answer,) = yield (Prompt(text=TEXT, read="text"),)
    return Result(query=request.query, candidates=request.candidates, usage=answer.usage)


def rerank(folder: Path, n_queries: int, n_candidates: int) -> None:
    """Everything the command does with a file of requests, with an engine that retains nothing."""
    path = write_requests(folder / "requests.jsonl", n_queries, n_candidates)
    requests = StoredRequests(path, is_pairs=False, max_queries=None)
    files = OutputFiles(run=folder / "run", results=folder / "results", trace=folder / "trace")
    engine = ScriptedEngine(lambda prompt: Answer(text="[1]", usage=Usage(calls=1)))
    engine.asked, engine.batches = deque(maxlen=0), deque(maxlen=0)
    qids = check_requests(requests, files, strict=True, digest=(digest := InputDigest()))
    figures = RunningEvaluation({qid: {"d1": 1} for qid in qids}, ["nDCG@10"])
    with Journal(folder / "journal") as journal:
        journal.begin({"input": str(digest)})
        for _ in FlowPool(engine, log=journal).run(requests, flow, on_finished=journal.add):
            pass
        with open_outputs(files) as writer:
            for request in requests:
                result = journal.result(request)
                writer.write(result)
                figures.add(result.query.qid, [(c.docid, c.score) for c in result.candidates])
    if figures.result().n_queries != n_queries:
        raise RuntimeError("some queries were lost")


def peak_mb(folder: Path, n_queries: int, n_candidates: int) -> float:
    """Peak memory in MB of a separate process that reranks this many queries."""
    folder.mkdir()
    program = [sys.executable, __file__, str(folder), str(n_queries), str(n_candidates)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.slow
def test_ten_thousand_queries_need_no_more_memory_than_a_thousand(tmp_path):
    """Apart from about a hundred bytes for qid and offset of each query; 40 MB stream through."""
    few, many = (peak_mb(tmp_path / str(n), n, 2) for n in (1000, 10_000))
    assert (tmp_path / "10000" / "results").stat().st_size > 40e6
    assert many - few < 12, (few, many)


if __name__ == "__main__":
    rerank(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


KERNELS = """
import random, sys
from rankllm_infer import RerankOptions, load_reranker, make_request
random.seed(0)
with load_reranker(sys.argv[1], RerankOptions(dtype="bfloat16", device="cpu")) as reranker:
    for number in range(1, 241):
        passages = ["word " * random.randint(1, 150) for _ in range(8)]
        reranker.rerank([make_request(f"q {number}", passages)])
        if number in (60, 240):
            print(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0])
"""
"""Prints resident KiB after 60 batches of different lengths and after 240."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_kernels_of_many_lengths_are_not_kept(tmp_path, smollm2_tokenizer):
    """oneDNN compiles kernels for each batch length; by default a thousand are cached, taking hundreds of megabytes."""
    from tiny_models import save_classifier

    save_classifier(tmp_path, smollm2_tokenizer, max_position_embeddings=2048)
    words = [sys.executable, "-c", KERNELS, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    first, last = (int(line) / 1024 for line in done.stdout.split())
    assert last - first < 100
