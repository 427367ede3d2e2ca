"""Training loop: transformers' Trainer with rankllm's losses and counts; see also `saved_trainer` and `logged_trainer`.

Checked against transformers 5.23: `_get_num_items_in_batch`, `_init_training_state` and `_load_optimizer_and_scheduler`
are private methods, overridden because the Trainer has no other hook for this.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from rankllm_core.errors import RankLLMError
from rankllm_train.artifacts.best import Best, load_best, stopped_early
from rankllm_train.encoding.batches import by_length_sampler
from rankllm_train.training.evaluation import batch_names, evaluate
from rankllm_train.training.logged_trainer import TrainerParts
from rankllm_train.training.loop_callbacks import Epochs, LastStep
from rankllm_train.training.objectives import Batch, LossSums, StepCounts
from rankllm_train.training.optimizer_settings import GroupSettings, settings_of, use_settings
from rankllm_train.training.saved_trainer import SavedTrainer


class RerankerTrainer(SavedTrainer):
    """Trains one objective, and saves every model with its card."""

    # compute_loss divides by the counts of the whole optimizer step; the Trainer must not divide again.
    loss_is_scaled_for_ga = True

    def __init__(self, parts: TrainerParts) -> None:
        self.objective = parts.objective
        self._settings: list[GroupSettings] = []
        super().__init__(replace(parts, callbacks=[Epochs(parts.dataset), LastStep(), *parts.callbacks]))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return the order of the records, drawn from the recipe's seed."""
        if not self.recipe.batch.by_length:
            return super()._get_train_sampler(train_dataset)
        sampler = by_length_sampler(
            [len(example) for example in self.train_dataset.examples],  # type: ignore[union-attr]
            self.recipe,
            share=(self.args.process_index, self.args.world_size),
        )
        self.add_callback(Epochs(sampler))
        return sampler

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Return counts_2: target tokens and lists of the whole optimizer step, over all processes."""
        counts = [torch.stack(self.objective.counts(batch)) for batch in batch_samples]
        counts_2 = torch.stack(counts).sum(dim=0).to(device) if counts else torch.zeros(2, device=device)
        if self.args.world_size > 1:
            counts_2 = self.accelerator.gather(counts_2[None]).sum(dim=0)
        return counts_2

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's part of the optimizer step's loss. Raises RankLLMError if it is not finite."""
        batch: Batch = inputs
        counts = self.objective.counts(batch) if num_items_in_batch is None else StepCounts(*num_items_in_batch)
        parts = self.objective.parts(self.objective.sums(model, batch), counts)
        # A single copy and synchronization. Converted to double on the CPU: not every device supports it.
        total, *shares = torch.stack(parts).detach().cpu().double()
        if not bool(torch.isfinite(total)):
            raise RankLLMError(self._not_a_number(batch, float(total)))
        if model.training:
            self._parts += torch.stack(shares)
            self._throughput.add(batch)
        # Data parallelism averages the processes' gradients; these losses are parts of one sum.
        loss = parts.total * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _not_a_number(self, batch: Batch, loss: float) -> str:
        return (
            f"step {self.state.global_step + 1}: the loss is {loss} on {batch_names(self.train_dataset, batch)}; "
            "use a lower --learning-rate, or --set model.precision=fp32"
        )

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the loss and, if the model gives scores, nDCG@10 and MRR@10 on the dev data."""
        was_training, started = self.model.training, time.perf_counter()
        model = self.model_wrapped if self.is_in_train else self.model
        model.eval()
        sums_6 = evaluate(
            model,
            self.objective,
            eval_dataset if eval_dataset is not None else self.eval_dataset,
            self.data_collator,
            batch_size=self.recipe.evaluation.per_device,
            device=self.args.device,
            share=(self.args.process_index, self.args.world_size),
        )
        model.train(was_training)
        tokens, lists, n_tokens, n_lists, ndcg, mrr = self._summed(sums_6.tolist())
        loss = self.objective.parts(LossSums(tokens, lists), StepCounts(n_tokens, n_lists)).total
        metrics = {f"{metric_key_prefix}_loss": loss.item()}
        if n_lists:
            metrics[f"{metric_key_prefix}_ndcg@10"] = (ndcg / n_lists).item()
            metrics[f"{metric_key_prefix}_mrr@10"] = (mrr / n_lists).item()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.recipe.keeps_best and self.is_in_train:
            self._judge(metrics)
        self._throughput.pause(time.perf_counter() - started)
        return metrics

    def _judge(self, metrics: Mapping[str, float]) -> None:
        """Keep the model if it is the best so far; stop training when the recipe's patience runs out."""
        metric, step = self.recipe.best_metric, self.state.global_step
        value, loss = metrics[f"eval_{metric}"], metrics["eval_loss"]
        if self.best is None or self.best.is_beaten_by(value, loss=loss):
            self.best = Best(step=step, metric=metric, value=value, loss=None if metric == "loss" else loss)
            self._best_is_in_checkpoint = self.control.should_save  # written next
            if not self._best_is_in_checkpoint:
                self._keep_best(None)
        elif stopped_early(self.recipe, self.best, self.state.log_history):
            self.control.should_training_stop = True
            # This checkpoint tells a resumed run that it had stopped. At the end of an epoch there is one anyway.
            self.control.should_save = self.control.should_save or self.args.save_strategy == "steps"

    def create_optimizer(self, model: Any = None) -> Any:
        """Create it and remember its settings, which loading a checkpoint replaces by the saved ones."""
        optimizer = super().create_optimizer(model)
        self._settings = self._settings or settings_of(optimizer)
        return optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            rate = self.recipe.optim.learning_rate
            use_settings(self.optimizer, self.lr_scheduler, settings=self._settings, learning_rate=rate)

    def _init_training_state(self, max_steps: int, num_update_steps_per_epoch: int, *arguments: Any) -> Any:
        """Initialize the state or take it from a checkpoint, except for the logging, evaluation and saving
        intervals."""
        progress = super()._init_training_state(max_steps, num_update_steps_per_epoch, *arguments)
        self.state.compute_steps(self.args, max_steps)
        self._steps_per_epoch = num_update_steps_per_epoch
        return progress

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: Any = None) -> Any:
        """Train, starting from a checkpoint's step if one is given."""
        self.best = load_best(self.output_dir) if resume_from_checkpoint and self.recipe.keeps_best else None
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
