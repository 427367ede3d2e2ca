"""How transformers is to run a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """Device, precision, batches and attention of a model that runs with transformers."""

    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    num_gpus: int = 1
    """Number of GPUs to spread the layers over."""
    batch_size: int | None = None
    """Most prompts in a batch; None: 32. Always one where `TransformersCheckpoint` says why."""
    batch_tokens: int = 0
    """Most tokens in a batch, padding included; 0: what suits the device."""
    compile: bool = False
    """Compile the model's layers, where scores are read."""
    attn_implementation: str = "auto"
    """See `layers.choose_attention`."""
    trust_remote_code: bool = False
    """Run code that comes with a full model, or with an adapter's base; see `check_remote_code`."""
