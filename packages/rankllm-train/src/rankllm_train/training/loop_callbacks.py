"""What the loop is to do at certain steps beside training."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Epochs(TrainerCallback):
    """Tells a data set or a sampler which epoch it is in: groups and orders are drawn anew in each."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Pass the epoch on."""
        if hasattr(self._told, "set_epoch"):
            self._told.set_epoch(int(state.epoch or 0))


class LastStep(TrainerCallback):
    """Has the last step logged, and the model measured after it, on whatever number it falls."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Ask for both."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = control.should_evaluate or args.eval_strategy == "steps"
