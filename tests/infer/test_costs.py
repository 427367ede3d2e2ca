"""`rerank --dry-run` predicts the cost of a run; `--max-total-tokens` stops it, and a larger limit resumes it."""

from __future__ import annotations

import re
import time

import pytest
from chat_server import serving
from ranking_server import request as record
from ranking_server import respond, write_jsonl

pytest.importorskip("torch")

import tiny_models

from rankllm_core.types import Usage
from rankllm_infer import RerankOptions, load_reranker, make_request, plan_reranking
from rankllm_infer.jobs.costs import estimate_costs

WORDS = ["red", "green", "blue", "black", "white", "cat", "dog", "house", "road", "river", "stone", "tree"]


def requests_of(sizes, *, words=lambda place: 5):
    """One request per size; passages with the given numbers of words, all different."""
    return [
        make_request(
            f"which is number {size}",
            [
                " ".join(WORDS[(place * 5 + word * 7 + size) % len(WORDS)] for word in range(words(place)))
                for place in range(size)
            ],
            qid=str(number),
        )
        for number, size in enumerate(sizes)
    ]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, smollm2_tokenizer):
    """A language model and a score head with random weights."""
    folder = tmp_path_factory.mktemp("zoo")
    tiny_models.save_causal(folder / "causal", smollm2_tokenizer, max_position_embeddings=2048)
    tiny_models.save_classifier(folder / "classifier", smollm2_tokenizer, max_position_embeddings=2048)
    return folder


LISTWISE = {"window_size": 4, "stride": 2, "dtype": "float32", "device": "cpu"}
FIRST = LISTWISE | {"use_logits": True, "use_alpha": True}
WAYS = {
    "score head": ("classifier", {"dtype": "float32", "device": "cpu"}),
    "yes/no": ("causal", {"method": "pointwise", "template": "yes_no", "dtype": "float32", "device": "cpu"}),
    "FIRST": ("causal", FIRST),
    "FIRST, full": ("causal", FIRST | {"window_size": 9, "stride": None, "strategy": "full"}),
    "FIRST, two permutations": ("causal", FIRST | {"permutations": 2}),
    "generation": ("causal", LISTWISE),
    "generation, first two": ("causal", LISTWISE | {"decode_top_k": 2}),
    "generation, candidates": ("causal", LISTWISE | {"top_k_candidates": 5}),
    "pairwise": ("causal", {"method": "pairwise", "dtype": "float32", "device": "cpu"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_run_takes_what_was_counted(zoo, way):
    """Exactly, if all passages have the same length: windows then cost the same regardless of their contents."""
    name, options = WAYS[way]
    folder, asked = zoo / name, RerankOptions(**options)
    pairs_alone = way in ("score head", "yes/no", "pairwise")
    requests = requests_of((1, 2, 7, 9), words=(lambda place: 1 + place) if pairs_alone else lambda place: 5)
    (costs,) = estimate_costs(plan_reranking(folder, asked), requests)
    with load_reranker(folder, asked) as reranker:
        results = reranker.rerank(requests)
    assert {result.status for result in results} == {"ok"}
    taken = sum((result.usage for result in results), Usage())
    assert costs.usage == taken
    assert taken.prompt_tokens > 0
    assert (costs.n_queries, costs.n_failed) == (4, 0)


def test_all_strategies_are_counted_side_by_side(zoo):
    """Windows of 4, stride 2, over 10 candidates: four sliding windows; ten passages exceed a full window of 4."""
    plan = plan_reranking(zoo / "causal", RerankOptions(**FIRST, num_passes=2))
    found = {costs.strategy: costs for costs in estimate_costs(plan, requests_of((10, 10)), all_strategies=True)}
    assert list(found) == ["sliding", "full", "top-down", "tournament"]
    assert [costs.is_chosen for costs in found.values()] == [True, False, False, False]
    assert (found["sliding"].usage.calls, found["sliding"].usage.rounds) == (2 * 2 * 4, 2 * 2 * 4)
    assert found["full"].n_failed == 2
    assert found["full"].usage == Usage()
    assert 0 < found["top-down"].usage.rounds < found["sliding"].usage.rounds


def test_the_table_and_the_prices(zoo, tmp_path, rankllm):
    """18,000 prompt tokens at 2 per million cost 0.036."""
    path = write_jsonl(tmp_path / "requests.jsonl", record("a", 3, 1, 2), record("b", 1, 2))
    words = ["rerank", "--model-path", zoo / "classifier", "--requests", path, "--dry-run"]
    done = rankllm(*words, "--price-in", 2, "--price-out", 100)
    assert done.code == 0, done.err
    head, row = done.out.splitlines()
    assert head.split() == ["strategy", "calls", "rounds/query", "prompt", "tokens", "generated", "cost"]
    name, calls, rounds, prompt_tokens, generated, cost = row.split()
    assert (name, calls, rounds, generated) == ("pointwise", "5", "1.0", "0")
    assert float(cost) == pytest.approx(int(prompt_tokens.replace(",", "")) * 2 / 1e6, abs=5e-5)
    assert list(tmp_path.iterdir()) == [path]


def test_a_servers_tokens_are_estimated(tmp_path, rankllm):
    """And labelled as estimates; the server is not contacted."""
    path = write_jsonl(tmp_path / "requests.jsonl", record("a", 3, 1, 2))
    words = ["rerank", "--engine", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model-path", "oracle"]
    done = rankllm(*words, "--requests", path, "--dry-run", "--all-strategies")
    assert done.code == 0, done.err
    assert "token counts are estimated" in done.out
    assert "* strategy selected by this command" in done.out


def test_one_query_can_be_counted(zoo, tmp_path, rankllm):
    """A single query can be counted, just as it can be ranked."""
    passages = tmp_path / "passages.txt"
    passages.write_text("one\ntwo\nthree\n")
    query = ["--query", "q", "--passages", passages]
    done = rankllm("rerank", "--model-path", zoo / "classifier", *query, "--dry-run")
    assert done.out.splitlines()[1].split()[:2] == ["pointwise", "3"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--all-strategies"], "--all-strategies has no effect without --dry-run"),
        (["--price-in", 1], "--price-in has no effect without --dry-run"),
        (["--price-out", 1], "--price-out has no effect without --dry-run"),
        (
            ["--dry-run", "--max-total-tokens", 9],
            "--max-total-tokens has no effect with --dry-run, which uses no tokens",
        ),
        (["--query", "q", "--max-total-tokens", 9], "give one of --requests"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, rankllm, more, message):
    """Before the model is located."""
    path = write_jsonl(tmp_path / "requests.jsonl", record("a", 1))
    done = rankllm("rerank", "--model-path", "/no/model", "--requests", path, *more)
    assert done.code == 2
    assert message in done.err.splitlines()[-1]


def slowly(received):
    """So that a run notices its limit while the next prompt is in flight, whatever else the machine does."""
    time.sleep(0.3)
    return respond(received)


def test_a_limit_stops_the_run_and_a_larger_one_resumes_it(tmp_path, rankllm):
    """16 tokens per call, sequentially: the third of 6 calls reaches 40. A fourth may be in flight and counts."""
    path = write_jsonl(tmp_path / "requests.jsonl", *(record(f"q{number}", 3, number, 2) for number in range(6)))
    with serving(slowly) as model:
        words = ["rerank", "--engine", "openai", "--base-url", model.base_url, "--model-path", "oracle"]
        words += ["--concurrency", 1, "--requests", path]

        def run(output, *more):
            return rankllm(*words, "--output", output, "--output-jsonl", output.with_suffix(".jsonl"), *more)

        whole, parts = tmp_path / "whole.trec", tmp_path / "parts.trec"
        assert run(whole).code == 0
        asked = len(model.requests)
        stopped = run(parts, "--max-total-tokens", 40)
        assert stopped.code == 1
        assert re.fullmatch(
            "Error: stopped at --max-total-tokens 40: 48 tokens used; repeat the command with a larger limit to resume",
            stopped.err.splitlines()[-1],
        )
        assert not parts.exists()
        again = run(parts, "--max-total-tokens", 48)
        assert again.code == 1
        assert re.search("stopped at --max-total-tokens 48: 48 tokens", again.err.splitlines()[-1])
        assert run(parts, "--max-total-tokens", 1000).code == 0
        n_completions = sum(not received.path.endswith("/models") for received in model.requests[asked:])
    assert n_completions in (6, 7)  # the prompt in flight when the limit was reached is asked again
    assert parts.read_bytes() == whole.read_bytes()
    assert parts.with_suffix(".jsonl").read_bytes() == whole.with_suffix(".jsonl").read_bytes()


def test_a_run_that_only_measures_is_limited_by_its_finished_queries(tmp_path, rankllm):
    """Without outputs there is no journal."""
    path = write_jsonl(tmp_path / "requests.jsonl", *(record(f"q{number}", 3, number, 2) for number in range(6)))
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q1 0 d1 1\n")
    with serving(slowly) as model:
        words = ["rerank", "--engine", "openai", "--base-url", model.base_url, "--model-path", "oracle"]
        words += ["--concurrency", 1, "--requests", path, "--qrels", qrels]
        stopped = rankllm(*words, "--max-total-tokens", 20)
        assert rankllm(*words, "--max-total-tokens", 1000).code == 0
    assert stopped.code == 1
    assert re.search("stopped at --max-total-tokens 20: 32 tokens used", stopped.err.splitlines()[-1])


@pytest.mark.slow
def test_real_windows_are_counted_within_two_percent():
    """Passages of varying length, moved by the model differently from the first-stage order."""
    from real_windows import real_requests

    options = RerankOptions(window_size=10, stride=5, top_k_candidates=20, dtype="bfloat16", device="cpu")
    requests = real_requests(4)
    plan = plan_reranking("smollm2-first", options)
    (costs,) = estimate_costs(plan, requests)
    with load_reranker("smollm2-first", options) as reranker:
        taken = sum((result.usage for result in reranker.rerank(requests)), Usage())
    assert (costs.usage.calls, costs.usage.rounds) == (taken.calls, taken.rounds)
    assert costs.usage.prompt_tokens == pytest.approx(taken.prompt_tokens, rel=0.02)
