"""Blockwise attention for training: values and gradients match torch's own, which is slower on a CPU."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from torch.nn.functional import scaled_dot_product_attention
from training_fakes import save_tiny

from rankllm_train.models.cpu_attention import CPU_ATTENTION, CausalAttention, use_block_attention
from rankllm_train.models.loading import load_model
from rankllm_train.recipe.sections import LoraSection, ModelSection


def states(*shape):
    """Return random states that require gradients."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("n_tokens", [1, 127, 128, 129, 300])
@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (4, 4), (4, 1)])
def test_values_and_gradients_are_those_of_torch(n_tokens, heads, groups):
    """In float64; gradients of shared heads are summed in float32 across several blocks."""
    query, key, value = states(2, heads, n_tokens, 16), states(2, groups, n_tokens, 16), states(2, groups, n_tokens, 16)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.25, enable_gqa=True)
    found = CausalAttention.apply(query, key, value, 0.25)
    assert torch.allclose(found, expected, atol=1e-12)
    weights = states(*expected.shape).detach()
    for ours, torchs in zip(
        torch.autograd.grad(found, (query, key, value), weights),
        torch.autograd.grad(expected, (query, key, value), weights),
        strict=True,
    ):
        assert torch.allclose(ours, torchs, atol=1e-5)


def llama(**options):
    """Return a tiny model in bfloat16, as under LoRA."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    return LlamaForCausalLM(tiny_models.config(max_position_embeddings=1024, **options)).to(torch.bfloat16).train()


def loss_and_gradients(model):
    """Of two rows of 300 tokens."""
    ids = torch.randint(3, 49000, (2, 300), generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss.float()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.float().flatten() for p in model.parameters()])


def test_a_model_in_bfloat16_learns_as_before():
    """Within bfloat16 rounding; the new attention was used."""
    model = llama()
    loss, gradients = loss_and_gradients(model)
    use_block_attention(model)
    assert model.config._attn_implementation == CPU_ATTENTION
    ours, our_gradients = loss_and_gradients(model)
    assert not torch.equal(gradients, our_gradients)
    assert abs(loss - ours) < 0.005 * loss
    assert (gradients - our_gradients).norm() < 0.05 * gradients.norm()


def test_dropout_of_attention_is_left_to_torch():
    """Bit-identical to before."""
    model = llama(attention_dropout=0.5)
    torch.manual_seed(3)
    before = loss_and_gradients(model)[1]
    use_block_attention(model)
    torch.manual_seed(3)
    assert torch.equal(before, loss_and_gradients(model)[1])


def test_what_is_on_a_gpu_is_left_to_torch():
    """A model is loaded on the CPU and may be moved later, simulated with tensors that claim to be on a GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AttentionInterface

    use_block_attention(llama())
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    with FakeTensorMode():
        options = {"device": "cuda", "dtype": torch.bfloat16, "requires_grad": True}
        query, key, value = (torch.empty(2, heads, 40, 16, **options) for heads in (4, 2, 2))
        mixed, _ = AttentionInterface()[CPU_ATTENTION](module, query, key, value, None)
        assert mixed.device.type == "cuda"
        assert "CausalAttention" not in str(mixed.grad_fn.next_functions)


def test_a_sliding_window_is_left_to_torch():
    """Sequences longer than the window come with a mask: bit-identical to before."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=49152, num_key_value_heads=2, sliding_window=16, **sizes)
    model = MistralForCausalLM(config).to(torch.bfloat16).train()
    before = loss_and_gradients(model)[1]
    use_block_attention(model)
    assert torch.equal(before, loss_and_gradients(model)[1])


@pytest.mark.parametrize(("asked", "used"), [("auto", CPU_ATTENTION), ("sdpa", "sdpa"), ("eager", "eager")])
def test_training_uses_it_unless_told_otherwise(tmp_path, smollm2_tokenizer, asked, used):
    """`auto`, without a GPU with flash-attention."""
    section = ModelSection(name_or_path=save_tiny(tmp_path / "tiny", smollm2_tokenizer), attn_implementation=asked)
    model = load_model(section, kind="causal", lora=LoraSection(enabled=True, r=4), seed=0)
    assert model.config._attn_implementation == used


def test_padding_on_the_left_is_left_to_torch():
    """With a padding mask, the scores of real tokens are those of torch's attention."""
    model = llama().eval()
    ids = torch.randint(3, 49000, (2, 40), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[0, :15] = 0
    with torch.inference_mode():
        before = model(input_ids=ids, attention_mask=mask).logits
        use_block_attention(model)
        assert torch.equal(before, model(input_ids=ids, attention_mask=mask).logits)


def test_another_choice_stays(tmp_path):
    """An explicit choice is not replaced, and a saved configuration does not name this attention."""
    model = llama()
    model.set_attn_implementation("eager")
    use_block_attention(model)
    assert model.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")
    use_block_attention(model)
    model.save_pretrained(tmp_path)
    assert CPU_ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
