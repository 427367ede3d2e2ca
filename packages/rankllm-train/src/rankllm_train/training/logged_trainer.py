"""Trainer with rankllm's log: loss parts, tokens per second and padding, continued seamlessly on resume.

Checked against transformers 5.23: `_maybe_log_save_evaluate` and `_finalize_training` are private methods, overridden
because the Trainer has no other hook for this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rankllm_core.card import Card
from rankllm_train.artifacts.metrics_log import append_metrics
from rankllm_train.artifacts.probing import ProbePrompt
from rankllm_train.artifacts.run_record import RunRecord
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.training.loop_callbacks import FirstStep
from rankllm_train.training.objectives import Objective
from rankllm_train.training.step_sums import StepSums, Throughput, Unlogged

_SUMS = tuple(field.name for field in fields(StepSums))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """Components of a trainer; each trainer class uses those it needs."""

    model: Any
    tokenizer: Any
    card: Card
    """Card of the model."""
    recipe: Recipe
    arguments: TrainingArguments
    """The recipe's settings as transformers' TrainingArguments."""
    record: RunRecord
    """Record of the resumed checkpoint, with the sums not yet logged when it was written; otherwise a new record."""
    objective: Objective
    dataset: Any
    eval_dataset: Any = None
    collator: Callable[[Sequence[Any]], dict[str, Tensor]]
    callbacks: Sequence[TrainerCallback] = ()
    probe_prompts: Sequence[ProbePrompt] = ()
    """Prompts for the probe in the card of each saved model; empty if the model cannot be probed."""


class LoggedTrainer(Trainer):
    """Sums logged values over steps and processes, and writes them to OUTPUT_DIR/metrics.jsonl and the trackers."""

    def __init__(self, parts: TrainerParts) -> None:
        self.recipe = parts.recipe
        self.output_dir = Path(parts.recipe.checkpoint.output_dir)
        self._record = parts.record
        self._throughput = Throughput()
        self._parts = torch.zeros(2, dtype=torch.float64)
        """Both parts of the loss, summed since the last entry."""
        self._logged_step = 0
        self._last: dict[str, Any] = {}
        """Gradient norm and learning rate of the previous step."""
        super().__init__(
            model=parts.model,
            args=parts.arguments,
            data_collator=parts.collator,
            train_dataset=parts.dataset,
            eval_dataset=parts.eval_dataset,
            processing_class=parts.tokenizer,
            callbacks=[FirstStep(self._continue_sums), *parts.callbacks],
        )
        self.remove_callback(PrinterCallback)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add loss parts, tokens/s and padding to the entry, and append it to the metrics file."""
        if "loss" in logs:
            steps = max(1, self.state.global_step - self._logged_step)
            token_loss, list_loss, real, computed = self._summed([*self._parts, *self._throughput.tokens]).tolist()
            if self.recipe.objective_name == "combined":
                logs |= {"token_loss": token_loss / steps, "list_loss": list_loss / steps}
            logs |= self._throughput.read(real, computed)
            self._parts = torch.zeros(2, dtype=torch.float64)
            self._logged_step = self.state.global_step
        if self.is_world_process_zero():
            epoch = {} if self.state.epoch is None else {"epoch": self.state.epoch}
            append_metrics(self.output_dir, {"step": self.state.global_step, **epoch, **logs})
        super().log(logs, start_time)

    def _continue_sums(self) -> None:
        """Start the clock, and restore the sums that the checkpoint had accumulated since its last log entry."""
        known = self._record.unlogged
        unlogged = Unlogged.from_record(known) if known else Unlogged(after_step=self.state.global_step)
        own = unlogged.of_process(self.args.process_index, processes=self.args.world_size)
        self._parts += torch.tensor([own.token_loss, own.list_loss], dtype=torch.float64)
        self._throughput.restart(tokens=(int(own.tokens), int(own.positions)), elapsed_s=unlogged.elapsed_s)
        self._tr_loss += own.loss
        self._total_loss_scalar -= unlogged.mean_loss  # covers only this run's steps
        self._logged_step = self._globalstep_last_logged = unlogged.after_step

    def _unlogged(self) -> Unlogged:
        """Return the sums since the last log entry, to be saved in a checkpoint."""
        elapsed_s, own = self._throughput.elapsed_s, [self._tr_loss, *self._parts, *self._throughput.tokens]
        rows = (StepSums(**dict(zip(_SUMS, row, strict=True))) for row in self._gathered(own).tolist())
        return Unlogged(after_step=self._logged_step, elapsed_s=elapsed_s, by_process=tuple(rows))

    def _gathered(self, values: Sequence[Any]) -> Tensor:
        """Return one row of the values per process."""
        rows = torch.tensor([[float(value) for value in values]], dtype=torch.float64)
        return rows if self.args.world_size == 1 else self.accelerator.gather(rows.to(self.args.device)).cpu()

    def _summed(self, values: Sequence[Any]) -> Tensor:
        """Return the values summed over all processes."""
        return self._gathered(values).sum(dim=0)

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *arguments: Any, learning_rate: float | None = None
    ) -> None:
        if self.state.global_step > self._globalstep_last_logged:
            self._last = {"grad_norm": grad_norm, "learning_rate": learning_rate}
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, learning_rate=learning_rate)

    def _finalize_training(self, *arguments: Any) -> Any:
        """Log the steps since the last entry: a run may stop early between two entries."""
        steps = self.state.global_step - self._globalstep_last_logged
        if steps > 0:
            loss = self._summed([self._tr_loss]).item() / self.args.world_size
            self._total_loss_scalar += loss
            self._tr_loss -= self._tr_loss
            self._globalstep_last_logged = self.state.global_step
            last = {key: float(value) for key, value in self._last.items() if value is not None}
            self.log({"loss": loss / steps, **last})
        return super()._finalize_training(*arguments)
