"""A stand-in for the package flash-attn, whose kernels need a GPU: as strict as they are, until told to compute.

    python tests/flash_stub.py CASES

CASES: a JSON list of {"model", "kind", "lora", "capability"}. Runs in a process of its own, since transformers asks
once whether the package is there. It loads each model as training does and prints a JSON list of what came of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

KERNELS = """
__version__ = "2.8.3"
from . import bert_padding
computes = False
calls = 0

def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    global calls
    calls += 1
    if not computes:
        raise RuntimeError(f"FlashAttention only supports CUDA tensors, found {q.device.type}")
    from torch.nn.functional import scaled_dot_product_attention
    mixed = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale=softmax_scale,
                                         is_causal=causal, enable_gqa=True)
    return mixed.transpose(1, 2)

def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, deterministic=False):
    raise RuntimeError("FlashAttention only supports CUDA tensors")

def flash_attn_with_kvcache(*arguments, **options):
    raise RuntimeError("FlashAttention only supports CUDA tensors")
"""
PADDING = "def pad_input(*a, **o): raise RuntimeError\n\n\ndef unpad_input(*a, **o): raise RuntimeError\n"


def install(folder):
    """Write the stand-in to a folder for PYTHONPATH, with the metadata by which packages are recognised."""
    package, metadata = folder / "flash_attn", folder / "flash_attn-2.8.3.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "__init__.py").write_text(KERNELS, encoding="utf-8")
    (package / "bert_padding.py").write_text(PADDING, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n", encoding="utf-8")
    (metadata / "top_level.txt").write_text("flash_attn\n", encoding="utf-8")
    (metadata / "RECORD").write_text("flash_attn/__init__.py,,\n", encoding="utf-8")
    return folder


def main(cases):
    """Load a model for each case on a machine that says it has a GPU; then let the kernels compute, if it uses them."""
    import torch

    torch.cuda.is_available = lambda: True
    results = []
    for case in cases:
        torch.cuda.get_device_capability = lambda device=None, major=case["capability"]: (major, 0)
        results.append(attempt(case))
    return results


def attempt(case):
    """The attention in use, the kernel's calls while loading and in all, and what the model reads; or the error."""
    import flash_attn
    import torch

    from rankllm_core.errors import RankLLMError
    from rankllm_train.models.loading import load_model
    from rankllm_train.recipe.sections import LoraSection, ModelSection

    flash_attn.calls, flash_attn.computes = 0, False
    try:
        model = load_model(
            ModelSection(**case["model"]), kind=case["kind"], lora=LoraSection(enabled=case["lora"], r=4), seed=0
        ).eval()
    except RankLLMError as error:
        return {"error": str(error)}
    while_loading, flash_attn.computes = flash_attn.calls, True
    read = {"read_positions": torch.tensor([15])}
    if case["kind"] == "causal":
        read["read_ids"] = torch.tensor([[0, 1]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = model(input_ids=torch.arange(3, 19)[None], **read)
    return {
        "attention": model.config._attn_implementation,
        "while_loading": while_loading,
        "calls": flash_attn.calls,
        "values": next(iter(out.values())).flatten().tolist(),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(main(json.loads(sys.argv[1]))))
