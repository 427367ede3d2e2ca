"""Applies a recipe's optimizer settings to an optimizer and scheduler loaded from a checkpoint.

Their state contains the settings they were saved with; loading it would silently revert changes to the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SETTINGS = ("weight_decay", "betas", "eps")


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Settings of one parameter group, from the recipe."""

    values: Mapping[str, Any]
    """Weight decay, betas and epsilon."""
    is_empty: bool
    """Whether the group has no parameters, such as the biases of adapters; DeepSpeed then drops it."""


def settings_of(optimizer: Any) -> list[GroupSettings]:
    """Return the settings of each parameter group of a new optimizer, before it is wrapped."""
    return [
        GroupSettings({key: group[key] for key in _SETTINGS if key in group}, not group["params"])
        for group in optimizer.param_groups
    ]


def use_settings(optimizer: Any, scheduler: Any, *, settings: Sequence[GroupSettings], learning_rate: float) -> None:
    """Apply settings and peak learning rate from the next step on.

    The rate of that step is the schedule's, as if the run had used the new peak from the start: learning_rate x
    factor(steps taken), in the arithmetic of torch's LambdaLR, so unchanged settings give bit-identical rates. Moments
    and the number of steps are kept as loaded.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)  # accelerate and DeepSpeed wrap it
    rates = [learning_rate * factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    groups = optimizer.param_groups
    kept = settings if len(settings) == len(groups) else [item for item in settings if not item.is_empty]
    for group, own, rate in zip(groups, kept, rates, strict=True):
        # Equal values keep their object, so that the pickled state of an unchanged run stays byte-identical.
        group.update({key: value for key, value in own.values.items() if group.get(key) != value})
        group["initial_lr"], group["lr"] = learning_rate, rate
    schedule.base_lrs = [learning_rate] * len(rates)
    schedule._last_lr = rates
