"""Forward and backward on a CPU in bfloat16, with each attention implementation: LoRA steps for several row lengths.

uv run --package rankllm-train python scripts/bench/cpu_attention.py --model-path SmolLM2-135M-Instruct
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import click
import torch
from bench_machine import describe_machine, pin_threads

SHAPES = ((8, 96), (8, 128), (2, 640), (1, 1536))
"""Rows and tokens per pass: pointwise groups of short and longer pairs, windows of five to fifteen passages."""
WAYS = ("sdpa", "eager", "auto")


@click.command()
@click.option("--model-path", required=True, help="Folder of a language model.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(model_path: str, repeats: int, threads: int) -> None:
    """Print tokens per CPU second, as medians of alternating passes."""
    from rankllm_train.models.loading import load_model
    from rankllm_train.recipe.sections import LoraSection, ModelSection

    pin_threads(threads)
    print(describe_machine(threads))
    lora = LoraSection(enabled=True, r=16, alpha=32, dropout=0.0, target_modules=("all-linear",))
    models = {
        way: load_model(
            ModelSection(name_or_path=model_path, attn_implementation=way), kind="causal", lora=lora, seed=0
        )
        for way in WAYS
    }
    print("\n| rows x tokens | " + " | ".join(WAYS) + " | auto / sdpa |\n|---|" + "---|" * (len(WAYS) + 1))
    for rows, tokens in SHAPES:
        ids = torch.randint(10, 40_000, (rows, tokens), generator=torch.Generator().manual_seed(rows * tokens))
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for repeat in range(repeats + 1):
            for way, model in models.items():
                spent = step_s(model, ids)
                if repeat:  # the first one is the warm-up
                    seconds[way].append(spent)
        speed = {way: rows * tokens / statistics.median(values) for way, values in seconds.items()}
        cells = " | ".join(f"{speed[way]:.0f}" for way in WAYS)
        print(f"| {rows} x {tokens:,} | {cells} | {speed['auto'] / speed['sdpa']:.2f} |", flush=True)


def step_s(model: Any, ids: torch.Tensor) -> float:
    """CPU seconds of one forward and backward pass with logits read at the last token."""
    began = time.process_time()
    last = torch.full((len(ids),), ids.shape[1] - 1)
    with torch.autocast("cpu", torch.bfloat16):
        read = model(input_ids=ids, read_positions=last, read_ids=ids[:, :2])["read_logits"]
    (read[:, 0] - read[:, 1]).pow(2).mean().backward()
    spent = time.process_time() - began
    model.zero_grad()
    return spent


if __name__ == "__main__":
    main()
