"""The transformers engine: batches by length, reads at the last real position, isolation between prompts."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")

import tiny_models
import torch

from rankllm_core.errors import ConfigError
from rankllm_core.types import Usage
from rankllm_infer.engines.base import EngineError, Prompt
from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
from rankllm_infer.engines.transformers.model import LoadedModel, narrow_head

LETTERS = tuple("ABCD")
LETTER_IDS = [49, 50, 51, 52]  # recorded of SmolLM2


def loaded(model, tokenizer):
    """A model in the form the engine takes."""
    return LoadedModel(model=model.eval(), tokenizer=tokenizer, dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def causal(smollm2_tokenizer):
    """A tiny random language model with 256 positions."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    return loaded(LlamaForCausalLM(tiny_models.config()), smollm2_tokenizer)


@pytest.fixture(scope="module")
def classifier(smollm2_tokenizer):
    """A tiny random model with a score head."""
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(2)
    return loaded(LlamaForSequenceClassification(tiny_models.config(num_labels=1)), smollm2_tokenizer)


def some_ids(n, *, seed):
    """n ids without control tokens."""
    return tuple(torch.randint(100, 49000, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


LENGTHS = (5, 90, 17, 17, 1, 43, 60, 2, 90, 31)


def run(model, prompts, **limits):
    """Answers in the order of the prompts, and the batch sizes."""
    engine = TransformersEngine(model, limits=BatchLimits(**limits))
    for ticket, prompt in enumerate(prompts):
        engine.submit(ticket, prompt)
    found, sizes = {}, []
    while batch := engine.collect():
        sizes.append(len(batch))
        found |= dict(batch)
    return [found[ticket] for ticket in range(len(prompts))], sizes


def first_prompts():
    """Prompts that end in the opening bracket of FIRST."""
    return [
        Prompt(text="...[", read="first-token", identifiers=LETTERS, token_ids=some_ids(n, seed=i))
        for i, n in enumerate(LENGTHS)
    ]


def head_prompts():
    """Pairs for a score head."""
    return [Prompt(text="", read="head", token_ids=some_ids(n, seed=i)) for i, n in enumerate(LENGTHS)]


def text_prompts(n_tokens):
    """Prompts for text generation."""
    return [
        Prompt(text="", read="text", token_ids=some_ids(n, seed=i), max_new_tokens=n_tokens)
        for i, n in enumerate(LENGTHS)
    ]


LIMITS = [{"max_prompts": 1}, {"max_prompts": 3}, {"max_prompts": 16}, {"max_tokens": 100}, {"max_tokens": 1}]


@pytest.mark.parametrize("limits", LIMITS)
def test_identifier_logits_are_those_of_the_last_position(causal, limits):
    """One forward pass of plain transformers per prompt gives the same, however prompts are batched."""
    answers, _ = run(causal, first_prompts(), **limits)
    for prompt, answer in zip(first_prompts(), answers, strict=True):
        with torch.inference_mode():
            logits = causal.model(input_ids=torch.tensor([prompt.token_ids])).logits[0, -1, LETTER_IDS]
        assert answer.scores == pytest.approx(logits.tolist(), abs=1e-5)
        assert answer.usage == Usage(calls=1, prompt_tokens=len(prompt.token_ids))


def test_logits_are_not_rounded_to_the_models_type(causal):
    """In bfloat16 the head's rows are multiplied in float32: otherwise close identifiers would tie and lose their
    order."""
    model = copy.deepcopy(causal.model).to(torch.bfloat16)
    ids = torch.tensor([some_ids(12, seed=3)])
    with torch.inference_mode():
        hidden_D = model.model(input_ids=ids).last_hidden_state[0, -1].float()
        with narrow_head(model, LETTER_IDS) as head:
            (logits_UR,) = head.logits(torch.tensor([11]), {"input_ids": ids})
        exact_R = hidden_D @ model.lm_head.weight[LETTER_IDS].float().T
    assert logits_UR[0].tolist() == pytest.approx(exact_R.tolist(), abs=1e-5)
    # Ten times what is allowed above; how much rounding changes differs from CPU to CPU, as the hidden states do.
    assert (exact_R.bfloat16().float() - exact_R).abs().max() > 1e-4
    assert model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("limits", LIMITS)
def test_head_scores_are_those_of_the_last_position(classifier, limits):
    """The last real position, not the last of the padded row, for any batch."""
    answers, _ = run(classifier, head_prompts(), **limits)
    for prompt, answer in zip(head_prompts(), answers, strict=True):
        with torch.inference_mode():
            score = classifier.model(input_ids=torch.tensor([prompt.token_ids])).logits.item()
        assert answer.scores == pytest.approx((score,), abs=1e-5)


def test_a_score_is_read_at_an_eos_that_ends_the_pair(classifier):
    """Even if EOS is the padding token, which makes transformers itself read one position too early."""
    ids = (*some_ids(20, seed=1), 2)
    (answer, _), _ = run(classifier, [Prompt(text="", read="head", token_ids=i) for i in (ids, some_ids(40, seed=2))])
    with torch.inference_mode():
        hidden = classifier.model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        score = classifier.model.score(hidden).item()
    assert answer.scores == pytest.approx((score,), abs=1e-5)


def generate(model, prompt):
    """New ids of plain greedy generation."""
    ids = torch.tensor([prompt.token_ids])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=prompt.max_new_tokens,
        pad_token_id=2,
    )
    return output[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("limits", LIMITS)
def test_generated_text_is_that_of_transformers(causal, limits):
    """Greedy, compared with plain `generate` on one prompt at a time."""
    answers, _ = run(causal, text_prompts(6), **limits)
    for prompt, answer in zip(text_prompts(6), answers, strict=True):
        new = generate(causal.model, prompt)
        assert answer.text == causal.tokenizer.decode(new, skip_special_tokens=True)
        assert answer.usage.completion_tokens == len(new)


def test_greedy_decoding_knows_no_penalties_of_the_checkpoint(causal):
    """A checkpoint may contain a repetition penalty for chat, which would prevent naming each passage in turn."""
    (before,), _ = run(causal, text_prompts(6)[:1])
    causal.model.generation_config.repetition_penalty = 5.0
    causal.model.generation_config.no_repeat_ngram_size = 1
    (after,), _ = run(causal, text_prompts(6)[:1])
    assert after.text == before.text


def test_text_ends_where_the_model_ends_it(causal):
    """Text after the end token is not part of the answer; the end token is counted but not shown."""
    prompts = text_prompts(8)
    new = generate(causal.model, prompts[1])
    end = next(place for place in range(3, 8) if new[place] not in new[:place])
    causal.model.generation_config.eos_token_id = [new[end], 2]
    try:
        answers, _ = run(causal, prompts)
    finally:
        causal.model.generation_config.eos_token_id = 2
    assert answers[1].text == causal.tokenizer.decode(new[:end])
    assert answers[1].usage.completion_tokens == end + 1


def test_each_prompt_has_its_own_limit(causal):
    """A short answer in a batch with a long one is truncated at its own limit."""
    prompts = [
        Prompt(text="", read="text", token_ids=some_ids(9, seed=1), max_new_tokens=n_tokens) for n_tokens in (2, 7)
    ]
    answers, sizes = run(causal, prompts)
    assert sizes == [2]
    assert [answer.usage.completion_tokens for answer in answers] == [2, 7]
    assert answers[1].text.startswith(answers[0].text)


def test_the_longest_go_first_under_the_token_budget(causal):
    """90 + 90 tokens need 180; with a limit of 200 padded tokens the rest follow in batches of their own length."""
    _, sizes = run(causal, first_prompts(), max_tokens=200)
    assert sizes == [2, 3, 5]
    assert run(causal, first_prompts(), max_tokens=200, max_prompts=2)[1] == [2] * 5


def test_reads_are_not_mixed_in_a_batch(causal):
    """Text and logits need different passes."""
    prompts = [first_prompts()[2], *text_prompts(4)[2:4], first_prompts()[3]]
    answers, sizes = run(causal, prompts)
    assert sum(sizes) == 4
    assert [bool(answer.scores) for answer in answers] == [True, False, False, True]


def test_a_prompt_beyond_the_models_positions_fails_alone(causal):
    """256 positions: 256 tokens fit; 257 do not, nor do 250 with an answer of 7. Other prompts in the batch are
    answered."""
    lengths = ((256, 0), (257, 0), (10, 0), (250, 7), (250, 6))
    prompts = [
        Prompt(
            text="[",
            read="text" if n_tokens else "first-token",
            identifiers=LETTERS,
            token_ids=some_ids(n, seed=n),
            max_new_tokens=n_tokens,
        )
        for n, n_tokens in lengths
    ]
    answers, _ = run(causal, prompts, max_tokens=100_000)
    assert [isinstance(answer, EngineError) for answer in answers] == [False, True, False, True, False]
    assert "take 257 tokens, but the model has 256 positions" in str(answers[1])


@pytest.mark.parametrize(
    ("read", "n_new", "most"),
    [("first-token", 0, 256), ("first-token", 1, 256), ("text", 6, 250), ("permutation", 6, 250)],
)
def test_only_what_is_generated_takes_positions_behind_the_prompt(causal, read, n_new, most):
    """256 positions: FIRST reads at the prompt's last token, whatever length its prompt reserves; answers need
    theirs."""
    for n, fits in ((most - 1, True), (most, True), (most + 1, False)):
        prompt = Prompt(text="[", read=read, identifiers=LETTERS, token_ids=some_ids(n, seed=n), max_new_tokens=n_new)
        ((answer,), _) = run(causal, [prompt], max_tokens=100_000)
        assert isinstance(answer, EngineError) != fits, n


def test_a_pair_may_fill_all_positions(classifier):
    """The score head also reads at the last token."""
    most = classifier.model.config.max_position_embeddings
    for n, fits in ((most - 1, True), (most, True), (most + 1, False)):
        ((answer,), _) = run(classifier, [Prompt(text="x", read="head", token_ids=some_ids(n, seed=n))])
        assert isinstance(answer, EngineError) != fits, n


def test_what_is_refused_is_told_before_the_others_run(causal):
    """So that a run which ends in the others' batch has recorded it. Duplicates of a rejected prompt are rejected as
    well."""
    engine = TransformersEngine(causal)
    for ticket, n in enumerate((300, 20, 300)):
        engine.submit(ticket, Prompt(text="[", read="first-token", identifiers=LETTERS, token_ids=some_ids(n, seed=n)))
    refused, answered = engine.collect(), engine.collect()
    assert [(ticket, type(answer)) for ticket, answer in refused] == [(0, EngineError), (2, EngineError)]
    assert [ticket for ticket, _ in answered] == [1]


def test_copies_are_answered_alike(classifier):
    """A passage that occurs twice is computed once and answered twice."""
    prompts = [head_prompts()[place] for place in (0, 1, 0, 2, 1)]
    seen = []
    hook = classifier.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: seen.append(ids[0].numel()))
    answers, _ = run(classifier, prompts, max_prompts=1)
    hook.remove()
    assert sorted(seen) == sorted(LENGTHS[:3])
    assert answers[0] == answers[2]
    assert answers[1] == answers[4]


def test_closing_drops_what_is_queued(causal):
    """Nothing runs afterwards."""
    engine = TransformersEngine(causal)
    engine.submit(0, first_prompts()[0])
    engine.close()
    assert engine.collect() == []


@pytest.mark.parametrize("limits", [{"max_prompts": 0}, {"max_tokens": -1}])
def test_batches_of_nothing_are_refused(limits):
    """They would loop forever."""
    with pytest.raises(ConfigError, match="expected max_prompts >= 1 and max_tokens >= 0"):
        BatchLimits(**limits)
