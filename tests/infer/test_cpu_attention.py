"""Blockwise attention, and attention of a few tokens to a cache: equal to torch's own, which is slower on a CPU."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from torch.nn.functional import scaled_dot_product_attention

from rankllm_infer.engines.transformers.packing import causal_blocks, shared_rows, use_block_attention


def states(*shape):
    """Random states."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("n_tokens", [1, 127, 128, 129, 700])
@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (4, 4), (4, 1)])
def test_blocks_attend_to_what_is_before(n_tokens, heads, groups):
    """Like torch's causal attention, in float32, with or without keys shared by several heads."""
    query = states(2, heads, n_tokens, 16)
    key, value = states(2, groups, n_tokens, 16), states(2, groups, n_tokens, 24)
    keys, values = (each.repeat_interleave(heads // groups, dim=1) for each in (key, value))
    expected = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=0.25)
    assert torch.allclose(causal_blocks(query * 0.25, key, value), expected, atol=1e-5)


def test_shared_rows_keep_each_heads_mask():
    """Each row and head attends to what the mask allows, also if it differs between rows."""
    query, key, value = states(3, 6, 4, 16), states(3, 2, 50, 16), states(3, 2, 50, 16)
    mask = torch.rand(3, 1, 4, 50, generator=torch.Generator().manual_seed(1)) < 0.5
    keys, values = (each.repeat_interleave(3, dim=1) for each in (key, value))
    expected = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=0.25)
    assert torch.allclose(shared_rows(query, key, value, mask=mask, scale=0.25), expected, atol=1e-5)


def test_a_model_in_bfloat16_answers_as_before():
    """A prompt of 600 tokens, then three more with its cache: equal within bfloat16 rounding."""
    from transformers import DynamicCache, LlamaForCausalLM

    torch.manual_seed(1)
    model = LlamaForCausalLM(tiny_models.config(max_position_embeddings=1024)).to(torch.bfloat16).eval()
    ids = torch.randint(3, 49000, (2, 603), generator=torch.Generator().manual_seed(2))

    def logits():
        cache = DynamicCache(config=model.config)
        with torch.inference_mode():
            first = model(input_ids=ids[:, :600], past_key_values=cache, logits_to_keep=1).logits
            return torch.cat([first, model(input_ids=ids[:, 600:], past_key_values=cache).logits], dim=1).float()

    before = logits()
    use_block_attention(model)
    after = logits()
    assert not torch.equal(before, after)  # another order of sums: the new attention ran
    assert (before - after).abs().max() < 0.02 * before.abs().max()


def test_other_models_keep_their_attention():
    """In float16, or with a user-selected attention implementation, nothing changes."""
    from transformers import LlamaForCausalLM

    in_float16 = LlamaForCausalLM(tiny_models.config()).to(torch.float16)
    eager = LlamaForCausalLM(tiny_models.config(attn_implementation="eager")).to(torch.bfloat16)
    for model, expected in ((in_float16, "sdpa"), (eager, "eager")):
        use_block_attention(model)
        assert model.config._attn_implementation == expected
