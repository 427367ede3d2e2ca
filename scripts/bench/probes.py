"""How far a probe's scores move with dtype, rounded weights and another prompt: what its tolerances are chosen from.

    uv run --package rankllm-infer --group demo python scripts/bench/probes.py

Prints a table of the largest difference from float32. Weights are rounded to 8 or 4 bits, one scale a row, and computed
with in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rankllm_core.probe import Comparison, Probe
from rankllm_infer import RerankOptions, load_reranker
from rankllm_infer.checkpoints.demo_model import demo_model_path

MODELS = {
    "smollm2-pointwise": ("smollm2-pointwise", {}, {"template": "yes_no"}),
    "smollm2-first": ("smollm2-first", {}, {"system_message": "You are a pirate."}),
    "untrained, yes/no": ("", {"method": "pointwise"}, {"template": "yes_no_query_last"}),
    "untrained, listwise": ("", {"method": "listwise", "context_size": 2048}, {"system_message": "You are a pirate."}),
}
"""Name in the table -> (model, options, a change of the prompt); an empty model is SmolLM2-135M-Instruct."""


def round_weights(bits: int) -> Callable[[Any], None]:
    """What rounds the layers' weights of a model."""
    largest = 2 ** (bits - 1) - 1

    def change(model: Any) -> None:
        for name, weight in model.named_parameters():
            if name.endswith("_proj.weight"):
                scale = weight.abs().amax(1, keepdim=True) / largest
                weight.copy_((weight / scale).round() * scale)

    return change


def probe(model: str, change: Callable[[Any], None] = lambda model: None, **options: Any) -> Probe:
    """The probe of a model on the CPU."""
    with load_reranker(model or demo_model_path(), RerankOptions(device="cpu", verify=False, **options)) as reranker:
        with torch.no_grad():
            change(reranker.engine._model)  # type: ignore[attr-defined]
        return reranker.record_probe()


def main() -> None:
    """Print the table."""
    print(
        "| model | largest score | tolerance in bfloat16 | bfloat16 | one at a time | 8 bits | 4 bits | other prompt |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (model, options, other) in MODELS.items():
        exact = probe(model, dtype="float32", **options)
        found = [
            probe(model, dtype="bfloat16", **options),
            probe(model, dtype="bfloat16", batch_size=1, **options),
            probe(model, round_weights(8), dtype="float32", **options),
            probe(model, round_weights(4), dtype="float32", **options),
            probe(model, dtype="float32", **options | other),
        ]
        largest = max(abs(score) for query in exact.queries for score in query.scores)
        moved = [f"{Comparison(recorded=exact, found=one).difference:.3f}" for one in found]
        tolerance = Comparison(recorded=exact, found=found[0]).tolerance
        print("|", " | ".join([name, f"{largest:.1f}", f"{tolerance:.2f}", *moved]), "|", flush=True)


if __name__ == "__main__":
    main()
