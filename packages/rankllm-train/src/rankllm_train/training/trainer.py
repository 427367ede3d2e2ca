"""The loop: transformers' Trainer, with our losses, our counts, our checkpoints and our log.

Checked against transformers 5.23: `_get_num_items_in_batch`, `_save_checkpoint`, `_get_output_dir`,
`_init_training_state`, `_load_optimizer_and_scheduler`, `_maybe_log_save_evaluate` and `_finalize_training` are its own
methods, overridden here because it offers no other place for what they do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rankllm_core.card import Card, save_card
from rankllm_core.errors import RankLLMError
from rankllm_core.nn.model_parts import quiet_transformers
from rankllm_train.artifacts.checkpoints import aside, copy_model, link_model, reveal, reveal_files, rotate, seal
from rankllm_train.artifacts.metrics_log import append_metrics
from rankllm_train.artifacts.model_page import write_model_page
from rankllm_train.artifacts.run_record import RunRecord, save_record
from rankllm_train.recipe.recipe import Recipe, save_recipe
from rankllm_train.training.best import BEST_FOLDER, Best, load_best, save_best, stopped_early
from rankllm_train.training.evaluation import batch_names, evaluate
from rankllm_train.training.length_batches import by_length_sampler
from rankllm_train.training.loop_callbacks import Epochs, FirstStep, LastStep
from rankllm_train.training.objectives import Batch, LossSums, Objective, StepCounts
from rankllm_train.training.optimizer_settings import GroupSettings, settings_of, use_settings
from rankllm_train.training.step_sums import StepSums, Unlogged
from rankllm_train.training.throughput import Throughput

_SUMS = tuple(field.name for field in fields(StepSums))


class RerankerTrainer(Trainer):
    """Trains one objective and keeps what it trained with its card."""

    # compute_loss divides by the counts of the whole optimizer step; the Trainer is not to divide again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        *,
        arguments: TrainingArguments,
        recipe: Recipe,
        card: Card,
        objective: Objective,
        dataset: Any,
        collator: Callable[[Sequence[Any]], dict[str, Tensor]],
        tokenizer: Any,
        record: RunRecord = RunRecord(),  # noqa: B008  # frozen
        eval_dataset: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.recipe = recipe
        self.card = card
        self.objective = objective
        self.output_dir = Path(recipe.checkpoint.output_dir)
        self.best: Best | None = None
        """The best model so far, where the recipe has it kept."""
        self._best_is_in_checkpoint = False
        """Whether the next checkpoint holds it."""
        self._saving_in: Path | None = None
        self._throughput = Throughput()
        self._logged_step = 0
        self._record = record
        self._steps_per_epoch = 0
        self._settings: list[GroupSettings] = []
        self._last: dict[str, Any] = {}
        """Gradient norm and learning rate of the step before."""
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=dataset,
            eval_dataset=eval_dataset,
            data_collator=collator,
            processing_class=tokenizer,
            callbacks=[Epochs(dataset), LastStep(), FirstStep(self._continue_sums), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self._parts = torch.zeros(2, dtype=torch.float64)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The order of the records, drawn from the recipe's seed."""
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
        """counts_2: target tokens and lists of the whole optimizer step, over all processes."""
        counts = [torch.stack(self.objective.counts(batch)) for batch in batch_samples]
        counts_2 = torch.stack(counts).sum(dim=0).to(device) if counts else torch.zeros(2, device=device)
        if self.args.world_size > 1:
            counts_2 = self.accelerator.gather(counts_2[None]).sum(dim=0)
        return counts_2

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's share of the optimizer step's loss. Raises RankLLMError where it is not a number."""
        batch: Batch = inputs
        counts = self.objective.counts(batch) if num_items_in_batch is None else StepCounts(*num_items_in_batch)
        parts = self.objective.parts(self.objective.sums(model, batch), counts)
        # One copy, one wait for the device. Doubles are made on the CPU: not every device has them.
        total, *shares = torch.stack(parts).detach().cpu().double()
        if not bool(torch.isfinite(total)):
            raise RankLLMError(self._not_a_number(batch, float(total)))
        if model.training:
            self._parts += torch.stack(shares)
            self._throughput.add(batch)
        # Data parallel takes the mean of the processes' gradients; ours are shares of one sum.
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
        """Loss and, where the model gives scores, nDCG@10 and MRR@10 on the dev data."""
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
        """Keep the model where it is the best so far; stop where the recipe has no more patience."""
        metric, step = self.recipe.best_metric, self.state.global_step
        value, loss = metrics[f"eval_{metric}"], metrics["eval_loss"]
        if self.best is None or self.best.is_beaten_by(value, loss=loss):
            self.best = Best(step=step, metric=metric, value=value, loss=None if metric == "loss" else loss)
            self._best_is_in_checkpoint = self.control.should_save  # the one that follows
            if not self._best_is_in_checkpoint:
                self._keep_best(None)
        elif stopped_early(self.recipe, self.best, self.state.log_history):
            self.control.should_training_stop = True
            # With this checkpoint, a resumed run knows that it had stopped. At an epoch's end there is one anyway.
            self.control.should_save = self.control.should_save or self.args.save_strategy == "steps"

    def _keep_best(self, checkpoint: Path | None) -> None:
        """Put the present model into OUTPUT_DIR/best. checkpoint: one that holds it, if any."""
        folder = aside(self.output_dir, BEST_FOLDER)
        if checkpoint is None:
            self._write_model(folder)
        if self.args.should_save and self.best is not None:
            if checkpoint is not None:
                link_model(checkpoint, folder)
            save_best(self.best, self.output_dir, written=folder, source=checkpoint)
        self.accelerator.wait_for_everyone()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, tokens/s and padding, and write the metrics file."""
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
        """Start the clock, and put back what the checkpoint had summed since its last log entry."""
        known = self._record.unlogged
        unlogged = Unlogged.from_record(known) if known else Unlogged(after_step=self.state.global_step)
        own = unlogged.of_process(self.args.process_index, processes=self.args.world_size)
        self._parts += torch.tensor([own.token_loss, own.list_loss], dtype=torch.float64)
        self._throughput.restart(tokens=(int(own.tokens), int(own.positions)), elapsed_s=unlogged.elapsed_s)
        self._tr_loss += own.loss
        self._total_loss_scalar -= unlogged.mean_loss  # of this run's steps alone
        self._logged_step = self._globalstep_last_logged = unlogged.after_step

    def _unlogged(self) -> Unlogged:
        """The same, to be kept in a checkpoint."""
        elapsed_s, own = self._throughput.elapsed_s, [self._tr_loss, *self._parts, *self._throughput.tokens]
        rows = (StepSums(**dict(zip(_SUMS, row, strict=True))) for row in self._gathered(own).tolist())
        return Unlogged(after_step=self._logged_step, elapsed_s=elapsed_s, by_process=tuple(rows))

    def _gathered(self, values: Sequence[Any]) -> Tensor:
        """A row of the values for each process."""
        rows = torch.tensor([[float(value) for value in values]], dtype=torch.float64)
        return rows if self.args.world_size == 1 else self.accelerator.gather(rows.to(self.args.device)).cpu()

    def _summed(self, values: Sequence[Any]) -> Tensor:
        """The values summed over all processes."""
        return self._gathered(values).sum(dim=0)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving_in or self.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside, complete it with card, recipe and manifest, and only then give it its name."""
        started, name = time.perf_counter(), self._checkpoint_name()
        self._saving_in, unlogged = aside(self.output_dir, name), self._unlogged()
        try:
            with quiet_transformers():
                super()._save_checkpoint(model, trial)
        finally:
            folder, self._saving_in = self._saving_in, None
        self.accelerator.wait_for_everyone()  # other processes write files of their own
        if self.args.should_save:
            written = folder / f"checkpoint-{self.state.global_step}"
            self._complete(written, unlogged=asdict(unlogged))
            seal(written, step=self.state.global_step)
            reveal(written, self.output_dir / name)
            folder.rmdir()
        if self._best_is_in_checkpoint:
            self._best_is_in_checkpoint = False
            self._keep_best(self.output_dir / name)
        if self.args.should_save:
            rotate(self.output_dir, keep=self.recipe.checkpoint.keep, newest=self.output_dir / name)
        self.accelerator.wait_for_everyone()
        self._throughput.pause(time.perf_counter() - started)

    def _complete(self, folder: Path, *, unlogged: Mapping[str, Any] | None = None) -> None:
        # The Trainer's pickle of its arguments; the recipe says the same as text.
        (folder / "training_args.bin").unlink(missing_ok=True)
        save_recipe(self.recipe, folder)
        save_card(self.card, folder)
        write_model_page(folder, recipe=self.recipe, card=self.card)
        batch = self.recipe.batch
        record = replace(
            self._record,
            step=self.state.global_step,
            steps_per_epoch=self._steps_per_epoch,
            records_per_step=batch.per_device * batch.accumulation * self.args.world_size,
            best=asdict(self.best) if self.best else None,
            unlogged=unlogged,
        )
        save_record(record, folder)

    def _checkpoint_name(self) -> str:
        if self.recipe.checkpoint.every == "epoch":
            # An epoch that --max-train-steps cut short has a number of its own.
            return f"epoch_{max(0, math.ceil(self.state.epoch or 0) - 1)}"
        return f"step_{self.state.global_step}"

    def save_final(self) -> None:
        """Put the trained model, the best where that is kept, with its card and recipe into the output folder."""
        folder, best = aside(self.output_dir, "final"), self.output_dir / BEST_FOLDER
        if self.best is None:
            self._write_model(folder)
        elif self.args.should_save:
            copy_model(best, folder)
        if self.args.should_save:
            step = self.best.step if self.best else self.state.global_step
            seal(folder, step=step, source=best if self.best else None)
            reveal_files(folder, self.output_dir)
        self.accelerator.wait_for_everyone()

    def _write_model(self, folder: Path) -> None:
        """Model, tokenizer, card and recipe, in a new folder."""
        with quiet_transformers():
            self.save_model(str(folder), _internal_call=True)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._complete(folder)

    def create_optimizer(self, model: Any = None) -> Any:
        """Create it, and remember its settings: loading a checkpoint replaces them by those that were saved."""
        optimizer = super().create_optimizer(model)
        self._settings = self._settings or settings_of(optimizer)
        return optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            rate = self.recipe.optim.learning_rate
            use_settings(self.optimizer, self.lr_scheduler, settings=self._settings, learning_rate=rate)

    def _init_training_state(self, max_steps: int, num_update_steps_per_epoch: int, *arguments: Any) -> Any:
        """Begin, or take over a checkpoint's state, but for how often to log, measure and save."""
        progress = super()._init_training_state(max_steps, num_update_steps_per_epoch, *arguments)
        self.state.compute_steps(self.args, max_steps)
        self._steps_per_epoch = num_update_steps_per_epoch
        return progress

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *arguments: Any, learning_rate: float | None = None
    ) -> None:
        if self.state.global_step > self._globalstep_last_logged:
            self._last = {"grad_norm": grad_norm, "learning_rate": learning_rate}
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *arguments, learning_rate=learning_rate)

    def _finalize_training(self, *arguments: Any) -> Any:
        """Log what came after the last entry: a run may stop early, between two of them."""
        steps = self.state.global_step - self._globalstep_last_logged
        if steps > 0:
            loss = self._summed([self._tr_loss]).item() / self.args.world_size
            self._total_loss_scalar += loss
            self._tr_loss -= self._tr_loss
            self._globalstep_last_logged = self.state.global_step
            last = {key: float(value) for key, value in self._last.items() if value is not None}
            self.log({"loss": loss / steps, **last})
        return super()._finalize_training(*arguments)

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **options: Any) -> Any:
        """Train, from a checkpoint's step where one is given."""
        self.best = load_best(self.output_dir) if resume_from_checkpoint and self.recipe.keeps_best else None
        return super().train(resume_from_checkpoint, *arguments, **options)
