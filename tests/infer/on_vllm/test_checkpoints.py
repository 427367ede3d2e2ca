"""Every published form of a reranker gives the same scores with vLLM as with transformers in float32."""

from __future__ import annotations

import asyncio
import json

import pytest
from real_windows import answers_of

pytest.importorskip("torch")

import tiny_models

from rankllm_core.errors import ContractError
from rankllm_infer.engines.base import Prompt

IDS = ((1, 500, 600, 700), (1, 9, 8, 7, 6, 5, 4000), (30000,), tuple(range(1000, 1150)))
HIDDEN = 128
"""vLLM's kernels require a head size of at least 32."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, smollm2_tokenizer):
    """A causal model, a classifier, and an adapter of each kind for the causal model."""
    root = tmp_path_factory.mktemp("zoo")
    tiny_models.save_causal(root / "causal", smollm2_tokenizer, hidden=HIDDEN)
    tiny_models.save_classifier(root / "classifier", smollm2_tokenizer, hidden=HIDDEN)
    tiny_models.save_adapter(root / "head_adapter", root / "causal")
    tiny_models.save_adapter(root / "lm_adapter", root / "causal", task="CAUSAL_LM")
    tiny_models.age_adapter(root / "head_adapter", root / "old_adapter")
    return root


def by_transformers(folder, kind, prompts):
    """Scores of the engine `transformers`."""
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.transformers.batches import TransformersSettings
    from rankllm_infer.engines.transformers.engine import TransformersEngine
    from rankllm_infer.engines.transformers.loading import load_model

    engine = TransformersEngine(
        load_model(find_model(str(folder)), kind, TransformersSettings(dtype="float32", device="cpu"))
    )
    return [answer.scores for answer in answers_of(engine, prompts)]


def scores(engine, prompts):
    """Scores of an engine, which is then closed: vLLM runs one model at a time."""
    try:
        return [answer.scores for answer in answers_of(engine, prompts)]
    finally:
        engine.close()


HEAD = [Prompt(text="", read="head", token_ids=ids) for ids in IDS]
FIRST = [Prompt(text="[", read="first-token", identifiers=tuple("ABCD"), token_ids=ids) for ids in IDS]


@pytest.mark.parametrize("checkpoint", ["classifier", "head_adapter"])
def test_a_score_head_gives_the_scores_of_transformers(zoo, start, checkpoint):
    """Raw scores at the last token, without the sigmoid that vLLM applies by default."""
    found = scores(start(zoo / checkpoint, "sequence-classification"), HEAD)
    for ours, theirs in zip(found, by_transformers(zoo / checkpoint, "sequence-classification", HEAD), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert len({round(score, 3) for (score,) in found}) == len(IDS)


def test_a_language_models_adapter_gives_the_logits_of_transformers(zoo, start):
    """Not those of the base model without the adapter."""
    found = scores(start(zoo / "lm_adapter", "causal"), FIRST)
    base = by_transformers(zoo / "causal", "causal", FIRST)
    for ours, theirs, plain in zip(found, by_transformers(zoo / "lm_adapter", "causal", FIRST), base, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert ours != pytest.approx(plain, abs=1e-2)


def test_what_vllm_cannot_read_right_is_refused(zoo, start):
    """Before vLLM is started, which would use an uninitialized head."""
    with pytest.raises(ContractError, match=r"no score head \(score.weight\) in the checkpoint"):
        start(zoo / "causal", "sequence-classification")
    with pytest.raises(ContractError, match=r"Merge it \(train merge .*old_adapter MERGED\)"):
        start(zoo / "old_adapter", "sequence-classification")


def test_the_command_line_ranks_as_with_transformers(zoo, tmp_path, rankllm):
    """Changing the engine leaves the run unchanged; standard output contains only the result."""
    passages = tmp_path / "passages.txt"
    passages.write_text("cars drive on roads\na cat is a small animal\nrain falls\nfour words of text\n")
    query = ["--query", "what is a cat", "--passages", passages, "--json", "--dtype", "float32"]
    chat, raw = tmp_path / "chat.yaml", tmp_path / "raw.yaml"
    chat.write_text('method: pointwise\nlayout: chat\nsystem_message: "{query}"\nbody: "{passage}"\n')
    raw.write_text(
        'method: pointwise\nlayout: raw\nbody: "{query}? {passage} Relevant?"\npositive: "Yes"\nnegative: ""\n'
    )
    ways = [
        ["--model-path", zoo / "causal", "--use-logits", "--use-alpha"],
        ["--model-path", zoo / "classifier"],
        ["--model-path", zoo / "classifier", "--prompt-template-path", chat],
        ["--model-path", zoo / "causal", "--method", "pointwise", "--prompt-template-path", raw],
    ]
    for way in ways:
        on_vllm = rankllm("rerank", *query, *way, "--engine", "vllm", "--vllm-arg", "kv_cache_memory_bytes=134217728")
        on_transformers = rankllm("rerank", *query, *way)
        assert (on_vllm.code, on_transformers.code) == (0, 0), on_vllm.err
        assert docids(on_vllm.out) == docids(on_transformers.out)
        assert model_scores(on_vllm.out) == pytest.approx(model_scores(on_transformers.out), abs=1e-4)
        assert "on vLLM (cpu) in float32" in on_vllm.err


def test_it_serves_as_with_transformers(zoo):
    """Concurrent requests share vLLM's batch; the engine is released when the server stops."""
    from serving_fakes import Served

    from rankllm_infer import RerankOptions, load_reranker

    bodies = [
        {"query": f"what is a {word}", "documents": [f"a {word} is here", "rain falls", word], "raw_scores": True}
        for word in ("cat", "car", "road", "cat")
    ]

    async def ask(served):
        async with served.client() as client:
            return await asyncio.gather(*(client.post("/v2/rerank", json=body, timeout=300) for body in bodies))

    scores = []
    for more in ({"engine": "vllm", "vllm_args": ("kv_cache_memory_bytes=134217728",)}, {}):
        with load_reranker(zoo / "classifier", RerankOptions(dtype="float32", **more)) as reranker:
            served = Served(reranker)
            served.desk.warm_up()
            responses = asyncio.run(ask(served))
        assert [response.status_code for response in responses] == [200] * 4
        scores.append(
            [
                sorted((result["index"], result["relevance_score"]) for result in response.json()["results"])
                for response in responses
            ]
        )
    for ours, theirs in zip(*scores, strict=True):
        assert [index for index, _ in ours] == [index for index, _ in theirs] == [0, 1, 2]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)


def test_doctor_finds_it(rankllm):
    """The build for CPUs is a distribution with a different name and needs no GPU."""
    found = json.loads(rankllm("doctor", "--json").out)
    assert found["packages"]["vllm"] is not None
    assert found["engines"]["vllm"] == {"works": True, "note": ""}


def docids(out):
    """Docids in the JSON object that a command printed."""
    return [candidate["docid"] for candidate in json.loads(out)["candidates"]]


def model_scores(out):
    """Model scores in rank order."""
    return [candidate["model_score"] for candidate in json.loads(out)["candidates"]]
