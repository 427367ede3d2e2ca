"""Common prefixes of prompts are computed once, without changing any score."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from rankllm_infer.api import load_reranker, make_request
from rankllm_infer.checkpoints.model_files import find_model
from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.transformers.batches import BatchLimits, TransformersSettings
from rankllm_infer.engines.transformers.engine import TransformersEngine
from rankllm_infer.engines.transformers.loading import load_model
from rankllm_infer.options import RerankOptions

PREFIX = tuple(range(100, 112))
"""Twelve ids."""
TAILS = tuple(tuple(range(200 + n, 200 + 2 * n)) for n in (9, 4, 7))
"""Twenty ids in three tails."""


def run(engine, prompts):
    """Scores in prompt order."""
    for ticket, prompt in enumerate(prompts):
        engine.submit(ticket, prompt)
    found = {}
    while batch := engine.collect():
        found |= dict(batch)
    return [found[ticket].scores for ticket in range(len(prompts))]


def counted(loaded):
    """An engine, and a list of the number of ids embedded in each forward pass."""
    embedded = []
    loaded.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: embedded.append(ids[0].numel()))
    return TransformersEngine(loaded, limits=BatchLimits(max_prompts=8)), embedded


@pytest.mark.parametrize(
    ("attention", "alone", "shared"),
    [
        ("sdpa", [3 * 21], [12, 3 * 9]),  # padded to the longest; the prefix read beforehand
        ("auto", [3 * 12 + 20], [12 + 20]),  # packed: real tokens alone, in one pass
    ],
)
@pytest.mark.parametrize(
    ("checkpoint", "kind", "prompt"),
    [
        ("tiny_classifier", "sequence-classification", {"read": "head"}),
        ("tiny_causal", "causal", {"read": "first-token", "identifiers": ("A", "B")}),
    ],
)
def test_a_shared_prefix_changes_work_and_no_score(request, checkpoint, kind, prompt, attention, alone, shared):
    """Twelve ids, and three tails of nine, four and seven."""
    settings = TransformersSettings(dtype="float32", device="cpu", attn_implementation=attention)
    loaded = load_model(find_model(str(request.getfixturevalue(checkpoint))), kind, settings)
    plain = [Prompt(text="x[", token_ids=PREFIX + tail, **prompt) for tail in TAILS]
    engine, embedded = counted(loaded)
    expected = run(engine, plain)
    assert embedded == alone
    embedded.clear()
    found = run(engine, [replace(one, n_shared=len(PREFIX)) for one in plain])
    assert embedded == shared
    for score, wanted in zip(found, expected, strict=True):
        assert score == pytest.approx(wanted, abs=1e-6)


def test_pairs_of_a_query_share_what_stands_before_the_passage(tiny_causal):
    """The instruction and the query, in an end-to-end reranking; other queries have their own prefixes."""
    options = RerankOptions(method="pointwise", device="cpu", dtype="bfloat16")
    docs = [{"docid": name, "text": text} for name, text in (("x", "Cats sleep."), ("y", "Dogs bark."))]
    with load_reranker(str(tiny_causal), options) as reranker:
        seen = []
        submit = reranker.engine.submit
        reranker.engine.submit = lambda ticket, prompt: (seen.append(prompt), submit(ticket, prompt))
        reranker.rerank([make_request("why do cats purr", docs, qid="1"), make_request("owls", docs, qid="2")])
    for first, second in (seen[:2], seen[2:]):
        n = first.n_shared
        assert first.token_ids[:n] == second.token_ids[:n]
        assert first.token_ids[n] != second.token_ids[n]
        assert second.n_shared == n
    assert seen[0].token_ids[: seen[0].n_shared] != seen[2].token_ids[: seen[0].n_shared]
