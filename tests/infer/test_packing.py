"""Prompts of different lengths in one row of tokens: without padding, each with the score it has alone."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from torch.nn.functional import scaled_dot_product_attention

from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
from rankllm_infer.engines.transformers.model import LoadedModel
from rankllm_infer.engines.transformers.packing import CPU_ATTENTION, Packing, packing_of, use_block_attention

LENGTHS = (40, 40, 33, 17, 5, 4)
STAND_IN = "varlen_stand_in"
LETTERS = ("A", "B", "C")
READS = {"first-token": {"identifiers": LETTERS, "text": "["}, "head": {"text": ""}}


def flash_stand_in(module, query, key, value, attention_mask, *, scaling, cu_seq_lens_q=None, **options):
    """Result of flash-attention's varlen kernel: each sequence of the row separately, with causal attention."""
    assert attention_mask is None
    bounds = [0, query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    if cu_seq_lens_q is not None:
        stretches = [end - start for start, end in pairwise(bounds)]
        assert options["max_length_q"] == options["max_length_k"] == max(stretches)
        assert options["cu_seq_lens_k"].tolist() == bounds
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    mixed = [
        scaled_dot_product_attention(*(x[:, :, start:end] for x in (query, key, value)), is_causal=True, scale=scaling)
        for start, end in pairwise(bounds)
    ]
    return torch.cat(mixed, dim=2).transpose(1, 2), None


def flash_model(model):
    """A model that uses the stand-in for flash-attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    AttentionInterface.register(STAND_IN, flash_stand_in)
    AttentionMaskInterface.register(STAND_IN, flash_attention_mask)
    model.set_attn_implementation(STAND_IN)
    return Packing(kind="flash", heads=4, key_heads=2, longest=math.inf)


def cpu_model(model):
    """A model that uses our own attention."""
    use_block_attention(model)
    return packing_of(model)


def make(read, architecture="Llama", **changed):
    """A tiny random model of this architecture in float32."""
    import transformers

    options = tiny_models.config(num_labels=1).to_dict() | changed
    options = {name: value for name, value in options.items() if name not in ("model_type", "architectures")}
    config = getattr(transformers, f"{architecture}Config")(**options)
    torch.manual_seed(4)
    task = "CausalLM" if read == "first-token" else "SequenceClassification"
    return getattr(transformers, f"{architecture}For{task}")(config).eval()


def prompts(read, *, n_shared=0):
    """With the lengths above, after a common prefix."""
    draw = torch.Generator().manual_seed(5)
    before = torch.randint(100, 49000, (n_shared,), generator=draw).tolist()
    tails = [torch.randint(100, 49000, (n,), generator=draw).tolist() for n in LENGTHS]
    return [Prompt(read=read, token_ids=(*before, *tail), n_shared=n_shared, **READS[read]) for tail in tails]


def engine_of(model, tokenizer, **options):
    loaded = LoadedModel(model=model, tokenizer=tokenizer, dtype=model.dtype, device=torch.device("cpu"))
    return TransformersEngine(loaded, limits=BatchLimits(max_prompts=4), **options)


def scores(engine, asked):
    """In prompt order."""
    for ticket, prompt in enumerate(asked):
        engine.submit(ticket, prompt)
    found = {}
    while batch := engine.collect():
        found |= dict(batch)
    return [found[ticket].scores for ticket in range(len(asked))]


def alone(model, asked, tokenizer):
    """One forward pass of plain transformers per prompt."""
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS]
    found = []
    with torch.inference_mode():
        for prompt in asked:
            last = model.base_model(input_ids=torch.tensor([prompt.token_ids])).last_hidden_state[0, -1]
            found.append((model.lm_head(last)[letters] if prompt.read == "first-token" else model.score(last)).tolist())
    return found


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("n_shared", [0, 30])
@pytest.mark.parametrize(("use", "kind"), [(cpu_model, "cpu"), (flash_model, "flash")])
@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_packed_scores_are_those_of_each_prompt_alone(smollm2_tokenizer, read, n_shared, use, kind, architecture):
    """For both reads, with or without a common prefix, and with both attention implementations."""
    model, asked = make(read, architecture), prompts(read, n_shared=n_shared)
    expected = alone(model, asked, smollm2_tokenizer)
    packing = use(model)
    assert packing.kind == kind
    embedded = []
    model.get_input_embeddings().register_forward_hook(lambda _, ids, __: embedded.append(tuple(ids[0].shape)))
    found = scores(engine_of(model, smollm2_tokenizer, packing=packing), asked)
    for one, wanted in zip(found, expected, strict=True):
        assert one == pytest.approx(wanted, abs=1e-5)
    once, each = (n_shared, 0) if kind == "cpu" else (0, n_shared)
    assert embedded == [(1, once + 4 * each + 40 + 40 + 33 + 17), (1, once + 2 * each + 5 + 4)]


def test_long_rows_are_attended_to_in_blocks(smollm2_tokenizer):
    """Rows longer than a block of 128, after a prefix."""
    model = make("head")
    ids = torch.randint(100, 49000, (230,), generator=torch.Generator().manual_seed(6)).tolist()
    asked = [Prompt(text="", read="head", token_ids=tuple(ids[:n]), n_shared=20) for n in (230, 200, 149, 148)]
    expected = alone(model, asked, smollm2_tokenizer)
    cpu_model(model)
    for one, wanted in zip(scores(engine_of(model, smollm2_tokenizer), asked), expected, strict=True):
        assert one == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("window", [45, 35])
def test_rows_that_reach_behind_the_models_window_are_padded(smollm2_tokenizer, window):
    """Packed rows attend to all preceding tokens; a model with a shorter window needs its own masks."""
    model = make("head", "Mistral", sliding_window=window)
    asked = prompts("head")
    expected = alone(model, asked, smollm2_tokenizer)
    cpu_model(model)
    assert packing_of(model).longest == window
    for one, wanted in zip(scores(engine_of(model, smollm2_tokenizer), asked), expected, strict=True):
        assert one == pytest.approx(wanted, abs=1e-5)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 20,
}
"""Different rotations for all tokens of a pass in which one row exceeds 20."""


@pytest.mark.parametrize("read", READS)
def test_rows_do_not_rotate_as_their_neighbours_do(smollm2_tokenizer, read):
    """LongRoPE: each has the score it has alone, next to any longer row, and after a prefix."""
    model, asked = make(read, rope_parameters=LONGROPE), prompts(read, n_shared=10)
    expected = alone(model, asked, smollm2_tokenizer)
    assert cpu_model(model) is None
    for one, wanted in zip(scores(engine_of(model, smollm2_tokenizer), asked), expected, strict=True):
        assert one == pytest.approx(wanted, abs=1e-5)


def test_an_answer_across_a_change_of_rotation_is_refused(smollm2_tokenizer):
    """Tokens cached before the limit would be misread after it; answers on either side are fine."""
    engine = engine_of(make("first-token", rope_parameters=LONGROPE), smollm2_tokenizer)
    options = {"read": "permutation", "text": "", "identifiers": LETTERS, "max_new_tokens": 12}
    for ticket, length in enumerate((8, 15, 25)):
        engine.submit(ticket, Prompt(token_ids=(100,) * length, **options))
    found = {}
    while batch := engine.collect():
        found |= dict(batch)
    assert "cross that limit" in str(found[1])
    assert all(isinstance(found[ticket], Answer) for ticket in (0, 2))


def test_no_mask_of_all_tokens_by_all_is_made(smollm2_tokenizer):
    """transformers would create one, since positions restart within a pack; nothing would use it."""
    from transformers import AttentionMaskInterface

    def refused(*_, **__):
        raise AssertionError("a mask was made")

    model, asked = make("head"), prompts("head")
    cpu_model(model)
    usual = AttentionMaskInterface()[CPU_ATTENTION]
    AttentionMaskInterface.register(CPU_ATTENTION, refused)
    try:
        assert len(scores(engine_of(model, smollm2_tokenizer), asked)) == len(LENGTHS)
    finally:
        AttentionMaskInterface.register(CPU_ATTENTION, usual)


def test_models_of_other_kinds_are_padded():
    """Unknown architectures, and attention that does not separate rows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    assert packing_of(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50))) is None
    assert packing_of(make("head")) is None  # torch's own attention


@pytest.mark.slow
def test_compiled_layers_score_as_they_are(smollm2_tokenizer):
    """In float32, packed and padded, also for lengths not present at compilation."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("no C++ compiler here, which torch.compile needs on a CPU")
    for use in (cpu_model, lambda model: None):
        model, asked = make("head"), prompts("head", n_shared=30)
        expected = alone(model, asked, smollm2_tokenizer)
        use(model)
        for one, wanted in zip(
            scores(engine_of(model, smollm2_tokenizer, compiles=True), asked), expected, strict=True
        ):
            assert one == pytest.approx(wanted, abs=1e-5)
