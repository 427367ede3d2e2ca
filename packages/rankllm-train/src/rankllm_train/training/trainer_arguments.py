"""The Trainer's TrainingArguments, from a recipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rankllm_core.errors import ConfigError
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.training.distributed import check_launch, join_processes_on_cpu, load_deepspeed

if TYPE_CHECKING:
    from transformers import TrainingArguments


def training_arguments(recipe: Recipe, *, say: Callable[[str], None] = lambda line: None) -> TrainingArguments:
    """Return the Trainer's arguments for a recipe. Initializes the process group if several processes were started.

    say: receives a warning about ignored settings of a DeepSpeed file. Raises ConfigError if the processes were started
    in a way that cannot train.
    """
    import torch
    from transformers import TrainingArguments

    batch = recipe.batch
    deepspeed = load_deepspeed(batch.deepspeed, say=say) if batch.deepspeed else None
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    check_launch(deepspeed=bool(deepspeed), precision=recipe.model.precision, has_accelerator=has_gpu)
    is_deepspeed_on_cpu = bool(deepspeed) and not has_gpu
    if is_deepspeed_on_cpu:
        join_processes_on_cpu()
    # `accelerate launch` exports the precision of its own configuration; the recipe's takes precedence.
    os.environ["ACCELERATE_MIXED_PRECISION"] = {"fp32": "no"}.get(recipe.model.precision, recipe.model.precision)
    arguments = TrainingArguments(
        **_optimization(recipe),
        **_saving_and_logging(recipe),
        deepspeed=deepspeed,
        accelerator_config={"use_configured_state": is_deepspeed_on_cpu},
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        log_level="error",
        # DeepSpeed has its own CPU mode; with accelerate's, each process would be alone.
        use_cpu=not has_gpu and not deepspeed,
    )
    if deepspeed and (mismatches := arguments.hf_deepspeed_config.mismatches):
        raise ConfigError(f"--deepspeed {batch.deepspeed}: {mismatches[0].removeprefix('- ')}; write auto in the file")
    # Otherwise one process with several GPUs splits batches by rows (torch.nn.DataParallel), which breaks up groups.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _optimization(recipe: Recipe) -> dict[str, Any]:
    """Batches, schedule, AdamW and precision."""
    schedule, optim, batch = recipe.schedule, recipe.optim, recipe.batch
    return {
        "per_device_train_batch_size": batch.per_device,
        "gradient_accumulation_steps": batch.accumulation,
        **(_checkpointing_of_activations() if batch.gradient_checkpointing else {}),
        "num_train_epochs": schedule.num_epochs,
        "max_steps": schedule.max_steps or -1,
        "lr_scheduler_type": schedule.lr_scheduler,
        # Values below 1 are fractions of all steps.
        "warmup_steps": schedule.warmup_ratio or schedule.warmup_steps,
        "seed": schedule.seed,
        "learning_rate": optim.learning_rate,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.adam_beta1,
        "adam_beta2": optim.adam_beta2,
        "adam_epsilon": optim.adam_epsilon,
        "max_grad_norm": optim.max_grad_norm,
        "neftune_noise_alpha": optim.noisy_embedding_alpha or None,
        "bf16": recipe.model.precision == "bf16",
        "fp16": recipe.model.precision == "fp16",
    }


def _saving_and_logging(recipe: Recipe) -> dict[str, Any]:
    """When to write checkpoints, evaluate and log."""
    checkpoint, evaluation, log = recipe.checkpoint, recipe.evaluation, recipe.logging
    return {
        "output_dir": checkpoint.output_dir,
        "save_strategy": {"epoch": "epoch", "none": "no"}.get(checkpoint.every, "steps"),
        "save_steps": checkpoint.every_steps or 500,
        "save_only_model": not checkpoint.resumable,
        "eval_strategy": "no" if not recipe.data.eval else "epoch" if evaluation.every == "epoch" else "steps",
        "eval_steps": int(evaluation.every) if evaluation.every.isdecimal() else None,
        "logging_steps": log.every_steps,
        "logging_first_step": True,
        # A loss that is not finite stops the run; it must not be filtered from the log.
        "logging_nan_inf_filter": False,
        "report_to": list(log.report_to) or "none",
        "run_name": log.run_name or None,
    }


def _checkpointing_of_activations() -> dict[str, Any]:
    """Arguments for gradient checkpointing, which transformers 5.23 renamed."""
    from transformers import TrainingArguments

    known = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}
