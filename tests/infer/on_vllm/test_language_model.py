"""SmolLM2 in float32 with vLLM and transformers: the same logits, orders and texts on real lists."""

from __future__ import annotations

import pytest
from real_windows import (
    answers_of,
    comparison_prompts,
    first_token_prompts,
    order_of,
    smallest_gap,
    text_prompts,
    yes_no_prompts,
)

pytest.importorskip("torch")

from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError, Prompt

CLEAR_GAP = 1e-3
"""For logits around 30. Attention kernels differ by 3e-5 in float32."""
MAX_TOKENS = 2048

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def on_vllm(smollm2_path, smollm2_tokenizer):
    """SmolLM2 on vLLM, in float32."""
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.vllm.loading import start_vllm
    from rankllm_infer.engines.vllm.settings import VllmSettings

    settings = VllmSettings(dtype="float32", more=("kv_cache_memory_bytes=1073741824",))
    engine, place = start_vllm(
        find_model(str(smollm2_path)), "causal", tokenizer=smollm2_tokenizer, max_tokens=MAX_TOKENS, settings=settings
    )
    assert place == "vLLM (cpu) in float32"
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def on_transformers(smollm2_fp32):
    """SmolLM2 on transformers, in float32."""
    from rankllm_infer.engines.transformers.engine import TransformersEngine

    return TransformersEngine(smollm2_fp32)


@pytest.fixture(scope="module")
def first_prompts(requests, smollm2_tokenizer):
    """Window prompts of all queries, for FIRST."""
    return first_token_prompts(requests, smollm2_tokenizer)


def test_first_is_exact_for_every_identifier(on_vllm, on_transformers, first_prompts):
    """16 windows of 20: every identifier's logit, and the same permutation unless two logits are nearly tied."""
    assert len(first_prompts) == 16
    here, there = (answers_of(engine, first_prompts) for engine in (on_vllm, on_transformers))
    n_clear = 0
    for prompt, ours, theirs in zip(first_prompts, here, there, strict=True):
        assert len(ours.scores) == len(prompt.identifiers) == 20
        assert ours.scores == pytest.approx(theirs.scores, abs=CLEAR_GAP / 2)
        assert ours.usage == theirs.usage == Usage(calls=1, prompt_tokens=len(prompt.token_ids))
        if smallest_gap(theirs.scores) > CLEAR_GAP:
            n_clear += 1
            assert order_of(ours.scores) == order_of(theirs.scores)
    assert n_clear >= 8, "too few windows without near ties to prove anything"


def test_generated_text_is_that_of_transformers(on_vllm, on_transformers, requests, smollm2_tokenizer):
    """Greedy answers: a near tie may change a text, so at least all but one are equal."""
    prompts = text_prompts(requests[:6], smollm2_tokenizer, max_new_tokens=24)
    here, there = (answers_of(engine, prompts) for engine in (on_vllm, on_transformers))
    assert all(answer.text for answer in there)
    equal = [ours == theirs for ours, theirs in zip(here, there, strict=True)]
    assert sum(equal) >= 5, [(ours.text, theirs.text) for ours, theirs in zip(here, there, strict=True)]


def test_an_answer_ends_where_the_model_ends_it(on_vllm, on_transformers, smollm2_tokenizer):
    """The end token is counted but not shown, as with the engine transformers."""
    text = "<|im_start|>user\nSay only: hi<|im_end|>\n<|im_start|>assistant\n"
    ids = tuple(smollm2_tokenizer.encode(text))
    prompt = Prompt(text=text, read="text", token_ids=ids, max_new_tokens=48)
    (ours,), (theirs,) = (answers_of(engine, [prompt]) for engine in (on_vllm, on_transformers))
    assert ours == theirs
    assert 0 < ours.usage.completion_tokens < 48


def test_yes_and_no_are_exact(on_vllm, on_transformers, requests, smollm2_tokenizer):
    """Both logits of each pair, even if both words are very unlikely."""
    prompts = yes_no_prompts(requests[:1], smollm2_tokenizer)
    here, there = (answers_of(engine, prompts) for engine in (on_vllm, on_transformers))
    for ours, theirs in zip(here, there, strict=True):
        assert len(ours.scores) == 2
        assert ours.scores == pytest.approx(theirs.scores, abs=CLEAR_GAP / 2)


def test_the_letters_of_a_comparison_are_exact(on_vllm, on_transformers, requests, smollm2_tokenizer):
    """Preference between two passages: both logits, for each pair of four passages in both orders."""
    prompts = comparison_prompts(requests[0], smollm2_tokenizer, n=4)
    assert len(prompts) == 12
    here, there = (answers_of(engine, prompts) for engine in (on_vllm, on_transformers))
    for ours, theirs in zip(here, there, strict=True):
        assert len(ours.scores) == 2
        assert ours.scores == pytest.approx(theirs.scores, abs=CLEAR_GAP / 2)


def next_tickets(engine):
    """Tickets of the next answered prompts, however many steps they take."""
    while not (batch := engine.collect()):
        pass
    return [ticket for ticket, _ in batch]


def test_prompts_join_the_batch_that_is_running(on_vllm):
    """Short prompts that arrive later are answered before an earlier long one."""
    long = Prompt(text="", read="text", token_ids=tuple(range(500, 540)), max_new_tokens=400)
    short = Prompt(text="[", read="first-token", identifiers=("A", "B"), token_ids=tuple(range(600, 640)))
    on_vllm.submit(1, long)
    on_vllm.submit(2, short)
    assert next_tickets(on_vllm) == [2]
    on_vllm.submit(3, short)
    assert next_tickets(on_vllm) == [3]
    on_vllm.cancel([1])
    assert on_vllm.collect() == []


def test_a_prompt_without_room_fails_alone(on_vllm):
    """The answer counts towards the limit: the longest prompt that fits is answered; one more token is rejected with
    a hint."""
    fits = Prompt(text="[", read="first-token", identifiers=("A", "B"), token_ids=(500,) * (MAX_TOKENS - 1))
    over = Prompt(text="[", read="first-token", identifiers=("A", "B"), token_ids=(500,) * MAX_TOKENS)
    answered, refused = answers_of(on_vllm, [fits, over])
    assert isinstance(answered, Answer)
    assert isinstance(refused, EngineError)
    assert "take 2049 tokens, but vLLM was started for 2048; use a smaller --context-size" in str(refused)


def test_a_second_model_is_refused_while_the_first_is_open(on_vllm, start, smollm2_path):
    """vLLM keeps process-wide groups: closing one model would close the other."""
    from rankllm_core.errors import RankLLMError

    assert on_vllm is not None
    with pytest.raises(RankLLMError, match=r"already runs .*; close it first"):
        start(smollm2_path, "causal")
