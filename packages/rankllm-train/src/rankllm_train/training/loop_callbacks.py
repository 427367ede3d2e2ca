"""What the loop is to do at certain steps beside training."""

from __future__ import annotations

from collections.abc import Callable
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


class FirstStep(TrainerCallback):
    """Calls back once, when the first step begins: the loop is set up then, and the batches of its beginning read."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Call."""
        if self._call is not None:
            self._call()
            self._call = None


class WarmUp(TrainerCallback):
    """Says where warm-up leaves a run nothing to train with. say: is told in one line."""

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
        """Look at the rate of the first step, and at how long warm-up takes."""
        way_out = "train more steps, or set --warmup-steps and --warmup-ratio to 0"
        rates = [group["lr"] for group in optimizer.param_groups]
        if state.max_steps - state.global_step == 1 and not any(rates):
            self._say(
                "Warning: the only step of this run is the first of its warm-up, at learning rate 0: the model stays "
                f"as it is; {way_out}"
            )
            return
        n_warmup = 0 if args.lr_scheduler_type == "constant" else args.get_warmup_steps(state.max_steps)
        if n_warmup >= state.max_steps > 1:
            peak = args.learning_rate * (state.max_steps - 1) / n_warmup
            self._say(
                f"Warning: warm-up takes {n_warmup} steps and the run {state.max_steps}: the learning rate reaches "
                f"{peak:g}, not {args.learning_rate:g}; {way_out}"
            )
