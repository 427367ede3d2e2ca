"""Put a recipe's optimizer settings in force in an optimizer and a schedule that were loaded from a checkpoint.

Their state holds the settings they were saved with, and loading it would silently undo what the recipe says now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SETTINGS = ("weight_decay", "betas", "eps")


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Settings of one parameter group, as a recipe gives them."""

    values: Mapping[str, Any]
    """Weight decay, betas and epsilon."""
    is_empty: bool
    """Whether no parameter is in the group, such as the biases of adapters: DeepSpeed drops it then."""


def settings_of(optimizer: Any) -> list[GroupSettings]:
    """The settings of each parameter group of a new optimizer, before anything wraps it."""
    return [
        GroupSettings({key: group[key] for key in _SETTINGS if key in group}, not group["params"])
        for group in optimizer.param_groups
    ]


def use_settings(optimizer: Any, scheduler: Any, *, settings: Sequence[GroupSettings], learning_rate: float) -> None:
    """Use settings and the highest learning rate from the next step on.

    The rate of that step is the one that the schedule has there, as if the run had had it from its beginning:
    learning_rate x factor(steps so far), in the arithmetic of torch's LambdaLR, so unchanged settings give the rates
    that were loaded, to the bit. Moments and the number of steps stay as they were loaded.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)  # accelerate and DeepSpeed wrap it
    rates = [learning_rate * factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    groups = optimizer.param_groups
    kept = settings if len(settings) == len(groups) else [item for item in settings if not item.is_empty]
    for group, own, rate in zip(groups, kept, rates, strict=True):
        # What is equal stays the object it was: pickled, the state of an unchanged run is then equal in its bytes, too.
        group.update({key: value for key, value in own.values.items() if group.get(key) != value})
        group["initial_lr"], group["lr"] = learning_rate, rate
    schedule.base_lrs = [learning_rate] * len(rates)
    schedule._last_lr = rates
