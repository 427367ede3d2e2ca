"""Share of padding in a forward pass, depending on how records are batched. No model is run.

uv run --package rankllm-train python scripts/bench/padding.py --model-path DIR --data records.jsonl.xz
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import click

SHAPES = ((1, 2, 4), (1, 4, 4), (4, 4, 16), (4, 8, 4))
"""Processes, records per forward pass, passes per optimizer step. The last two are RankZephyr's and FIRST's."""


@click.command()
@click.option("--model-path", required=True, help="Model that provides the tokenizer and chat template.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Listwise training records.")
@click.option("--context-size", default=4096, show_default=True, help="Constant length to compare with.")
def main(model_path: str, data: Path, context_size: int) -> None:
    """Print, for several batch shapes, the share of padding positions over one epoch."""
    from rankllm_train.encoding.batches import by_length_sampler
    from rankllm_train.methods.registry import prepare
    from rankllm_train.models.loading import load_tokenizer
    from rankllm_train.recipe.recipe import Recipe

    recipe = Recipe().changed(
        {
            "model.name_or_path": model_path,
            "data.train": str(data),
            "data.identifiers": "alpha",
            "data.overlong": "skip",
            "prompt.context_tokens": context_size,
            "objective.name": "combined",
        }
    )
    lengths = [len(example) for example in prepare(recipe, load_tokenizer(recipe.model)).dataset.examples]
    constant = 1 - sum(lengths) / len(lengths) / context_size
    print(f"{len(lengths):,} records of {min(lengths):,} to {max(lengths):,} tokens\n")
    print(f"| processes x records x passes | all to {context_size:,} | longest of the pass | --group-by-length |")
    print("|---|---|---|---|")
    for processes, per_device, accumulation in SHAPES:
        order = random.Random(recipe.schedule.seed).sample(range(len(lengths)), len(lengths))
        drawn = [order[start : start + per_device] for start in range(0, len(order), per_device)]
        shape = {"batch.per_device": per_device, "batch.accumulation": accumulation, "batch.by_length": True}
        grouped = [
            batch
            for number in range(processes)
            for batch in by_length_sampler(lengths, recipe.changed(shape), share=(number, processes))
        ]
        print(
            f"| {processes} x {per_device} x {accumulation} | {constant:.1%} "
            f"| {_padding(drawn, lengths):.1%} | {_padding(grouped, lengths):.1%} |",
            flush=True,
        )


def _padding(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """The share of padding if each batch is padded to its longest record."""
    positions = sum(max(lengths[index] for index in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[index] for batch in batches for index in batch) / positions


if __name__ == "__main__":
    main()
