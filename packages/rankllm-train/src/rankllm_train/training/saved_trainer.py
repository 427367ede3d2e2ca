"""Trainer with rankllm's checkpoints: written atomically, each with card, recipe and model page; best model kept apart.

Checked against transformers 5.23: `_save_checkpoint` and `_get_output_dir` are private methods, overridden because the
Trainer has no other hook for this.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rankllm_core.card import Card, save_card
from rankllm_core.nn.model_parts import quiet_transformers
from rankllm_train.artifacts.best import BEST_FOLDER, Best, save_best
from rankllm_train.artifacts.checkpoints import aside, copy_model, link_model, reveal, reveal_files, rotate, seal
from rankllm_train.artifacts.model_page import write_model_page
from rankllm_train.artifacts.probing import read_probe
from rankllm_train.artifacts.run_record import save_record
from rankllm_train.methods.training_data import pad_id
from rankllm_train.recipe.recipe import save_recipe
from rankllm_train.training.logged_trainer import LoggedTrainer, TrainerParts


class SavedTrainer(LoggedTrainer):
    """Writes checkpoints, the best model and the final model, with everything needed to use them."""

    def __init__(self, parts: TrainerParts) -> None:
        self.card = parts.card
        self._probe_prompts = parts.probe_prompts
        self.best: Best | None = None
        """Best model so far, if the recipe keeps it."""
        self._best_is_in_checkpoint = False
        """Whether the next checkpoint contains the best model."""
        self._saving_in: Path | None = None
        self._steps_per_epoch = 0
        super().__init__(parts)

    def _keep_best(self, checkpoint: Path | None) -> None:
        """Save the current model as OUTPUT_DIR/best. checkpoint: one that contains it, if any."""
        folder = aside(self.output_dir, BEST_FOLDER)
        if checkpoint is None:
            self._write_model(folder)
        if self.args.should_save and self.best is not None:
            if checkpoint is not None:
                link_model(checkpoint, folder)
            save_best(self.best, self.output_dir, written=folder, source=checkpoint)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving_in or self.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint to a temporary folder, add card, recipe and manifest, then give it its final name."""
        started, name = time.perf_counter(), self._checkpoint_name()
        self._saving_in, unlogged = aside(self.output_dir, name), self._unlogged()
        card = self._probed_card()
        try:
            with quiet_transformers():
                super()._save_checkpoint(model, trial)
        finally:
            folder, self._saving_in = self._saving_in, None
        self.accelerator.wait_for_everyone()  # other processes write files too
        if self.args.should_save:
            written = folder / f"checkpoint-{self.state.global_step}"
            self._complete(written, card, unlogged=asdict(unlogged))
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

    def _complete(self, folder: Path, card: Card, *, unlogged: Mapping[str, Any] | None = None) -> None:
        # A pickle of the Trainer's arguments; the recipe states the same as text.
        (folder / "training_args.bin").unlink(missing_ok=True)
        save_recipe(self.recipe, folder)
        save_card(card, folder)
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
            # An epoch cut short by --max-train-steps gets its own number.
            return f"epoch_{max(0, math.ceil(self.state.epoch or 0) - 1)}"
        return f"step_{self.state.global_step}"

    def save_final(self) -> None:
        """Put the trained model (the best one, if it is kept) with its card and recipe into the output folder."""
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
        """Write model, tokenizer, card and recipe to a new folder."""
        card = self._probed_card()
        with quiet_transformers():
            self.save_model(str(folder), _internal_call=True)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._complete(folder, card)

    def _probed_card(self) -> Card:
        """Return the card with a probe of the current weights. All processes must call it if the weights are
        sharded."""
        # DeepSpeed's engine gathers sharded weights; other models can be called directly.
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        precision = "bfloat16" if self.args.bf16 else "float16" if self.args.fp16 else "float32"
        pad = pad_id(self.processing_class)
        return replace(self.card, probe=read_probe(model, self._probe_prompts, pad=pad, precision=precision))
