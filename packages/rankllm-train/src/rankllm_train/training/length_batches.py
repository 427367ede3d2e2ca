"""Forward passes of records of like length, so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.trainer_pt_utils import BatchRebalanceSampler

from rankllm_train.recipe.recipe import Recipe


def by_length_sampler(lengths: Sequence[int], recipe: Recipe, *, share: tuple[int, int]) -> BatchRebalanceSampler:
    """Batches of one process: each optimizer step's records, drawn at random, cut into passes by length.

    lengths: tokens of each record. share: (number of this process, number of all). The Trainer knows this sampler and
    lets it draw each epoch by its number, so a resumed run goes on in the same order. Records that are fewer at the
    end of an epoch than there are forward passes in a step are filled up from the epoch's first ones.
    Needs two forward passes a step or more.
    """
    number, n_processes = share
    per_device, accumulation = recipe.batch.per_device, recipe.batch.accumulation
    return BatchRebalanceSampler(
        lengths=list(lengths),
        effective_batch_size=per_device * accumulation * n_processes,
        dp_size=n_processes,
        grad_accum=accumulation,
        seed=recipe.schedule.seed,
        rank=number,
        drop_last=False,
    )
