"""Callbacks of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Epochs(TrainerCallback):
    """Passes the epoch to a data set or sampler that resamples its groups or order in each epoch."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Pass the epoch."""
        if hasattr(self._told, "set_epoch"):
            self._told.set_epoch(int(state.epoch or 0))


class LastStep(TrainerCallback):
    """Requests logging and evaluation of the last step, whatever its number."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Request both."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = control.should_evaluate or args.eval_strategy == "steps"


class FirstStep(TrainerCallback):
    """Calls a function once, when the first step starts: the loop is set up by then and its first batches are
    loaded."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Call the function."""
        if self._call is not None:
            self._call()
            self._call = None


class WarmUp(TrainerCallback):
    """Warns if warm-up leaves nothing to train with. say: called with the warning."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **arguments: Any,
    ) -> None:
        """Check the learning rate of the first step and the length of the warm-up."""
        way_out = "train more steps, or set --warmup-steps and --warmup-ratio to 0"
        rates = [group["lr"] for group in optimizer.param_groups]
        if state.max_steps - state.global_step == 1 and not any(rates):
            self._say(
                "Warning: the only step of this run is the first of its warm-up, with learning rate 0, so the model "
                f"does not change; {way_out}"
            )
            return
        n_warmup = 0 if args.lr_scheduler_type == "constant" else args.get_warmup_steps(state.max_steps)
        if n_warmup >= state.max_steps > 1:
            peak = args.learning_rate * (state.max_steps - 1) / n_warmup
            self._say(
                f"Warning: the warm-up takes {n_warmup} steps, but the run has {state.max_steps}: the learning rate "
                f"reaches {peak:g} instead of {args.learning_rate:g}; {way_out}"
            )
