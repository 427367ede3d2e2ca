"""The sections of a recipe that say how the loop goes: optimizer, schedule, batches, checkpoints, log."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankllm_core.config import at_least, one_of
from rankllm_core.errors import ConfigError

METRICS = ("loss", "ndcg@10", "mrr@10")
_GREATEST_SEED = 2**32 - 1
"""Of NumPy's generators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSection:
    """AdamW, in float32."""

    learning_rate: float = 5e-6
    """At its highest."""
    weight_decay: float = 0.0
    """Not applied to biases and norms."""
    adam_beta1: float = 0.9
    """Decay of the mean of gradients."""
    adam_beta2: float = 0.999
    """Decay of the mean of squared gradients."""
    adam_epsilon: float = 1e-8
    """Keeps the step finite."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0: never."""
    noisy_embedding_alpha: float = 0.0
    """NEFTune (arXiv:2310.05914): uniform noise of alpha / sqrt(T D) on the embeddings; 0: none. As in the original, T
    is the padded length of the batch."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "adam_epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name}: expected a number above 0, found {getattr(self, name)}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name}: expected a number from 0 to below 1, found {getattr(self, name)}")
        at_least(0, data=self, names=("weight_decay", "max_grad_norm", "noisy_embedding_alpha"), section="optim")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSection:
    """How long, and the learning rate over that time."""

    num_epochs: float = 3.0
    """Passes over the data."""
    max_steps: int = 0
    """Stop after so many optimizer steps; 0: by epochs."""
    lr_scheduler: str = "linear"
    """linear, cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly from 0, the rate of the first step: step n of a
    warm-up of W steps has the rate (n - 1) / W times the highest. So in the originals, and in transformers."""
    warmup_ratio: float = 0.0
    """The same as a share of all steps; give one of the two."""
    seed: int = 42
    """Of everything random: data order, groups, dropout, noise, new layers."""

    def __post_init__(self) -> None:
        kinds = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
        one_of(self.lr_scheduler, kinds, where="schedule.lr_scheduler")
        at_least(0, data=self, names=("max_steps", "warmup_steps", "seed"), section="schedule")
        if self.seed > _GREATEST_SEED:
            raise ConfigError(f"schedule.seed: expected at most {_GREATEST_SEED}, found {self.seed}")
        if not 0 < self.num_epochs < math.inf:
            raise ConfigError(f"schedule.num_epochs: expected a number above 0, found {self.num_epochs}")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"schedule.warmup_ratio: expected a number from 0 to below 1, found {self.warmup_ratio}")
        if self.warmup_steps and self.warmup_ratio:
            raise ConfigError(
                f"schedule: warmup_steps {self.warmup_steps} and warmup_ratio {self.warmup_ratio} say it twice; "
                "set one of them to 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSection:
    """How much goes through the model at once, and how memory is saved."""

    per_device: int = 1
    """Records (pointwise: groups) in a forward pass of one process."""
    accumulation: int = 1
    """Forward passes before an optimizer step."""
    by_length: bool = False
    """Listwise: cut the records of an optimizer step into forward passes by their length, so that less is padded. A
    step has the same records' worth of loss either way; a pass has more records where they are short, and fewer where
    they are long, `per_device` on average."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    deepspeed: str = ""
    """zero2, zero2-offload, zero3, zero3-offload, or a DeepSpeed configuration file (JSON or YAML); empty: none."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("per_device", "accumulation"), section="batch")
        if self.by_length and self.per_device == 1:
            raise ConfigError("batch.by_length: has no effect where batch.per_device is 1: nothing is padded then")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSection:
    """What is kept, and how often."""

    output_dir: str = ""
    """Folder of the trained model, with the checkpoints in it."""
    every: str = "epoch"
    """`epoch` (folders epoch_0, epoch_1, ...), a number of optimizer steps (step_500, ...), or `none`."""
    keep: int = 0
    """How many checkpoints to keep, newest first; 0: all."""
    resumable: bool = True
    """Whether checkpoints hold what it takes to go on: optimizer, schedule and random state."""

    def __post_init__(self) -> None:
        at_least(0, data=self, names=("keep",), section="checkpoint")
        if self.every not in ("epoch", "none") and not (self.every.isdecimal() and int(self.every) > 0):
            raise ConfigError(f"checkpoint.every: expected 'epoch', 'none' or a number of steps, found {self.every!r}")

    @property
    def every_steps(self) -> int:
        """Steps between checkpoints; 0 where they go by epochs or there are none."""
        return int(self.every) if self.every.isdecimal() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSection:
    """Measuring on `data.eval` while training: loss, nDCG@10 and MRR@10."""

    every: str = "epoch"
    """`epoch`, or a number of optimizer steps; the last step is measured in any case."""
    per_device: int = 1
    """Records (pointwise: groups) in a forward pass of one process."""
    keep_best: bool = True
    """Whether the model that OUTPUT_DIR holds at the end is the best of those measured (and not the last one). It is
    kept in OUTPUT_DIR/best while training goes on, whatever happens to checkpoints."""
    metric: str = ""
    """What makes a model the best: `loss` (low), `ndcg@10` or `mrr@10` (high). Empty: ndcg@10, and loss for the
    generation objective, whose logits at the first identifier are read as FIRST would, but are not what it is for."""
    patience: int = 0
    """Stop after so many measurements in a row without a better one; 0: never."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("per_device",), section="evaluation")
        at_least(0, data=self, names=("patience",), section="evaluation")
        if self.metric:
            one_of(self.metric, METRICS, where="evaluation.metric")
        if self.patience and not self.keep_best:
            raise ConfigError(
                f"evaluation.patience {self.patience} without evaluation.keep_best would end with a model that is not "
                "the best; set keep_best to true or patience to 0"
            )
        if self.every != "epoch" and not (self.every.isdecimal() and int(self.every) > 0):
            raise ConfigError(f"evaluation.every: expected 'epoch' or a number of steps, found {self.every!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSection:
    """What is told about the run. A metrics file, OUTPUT_DIR/metrics.jsonl, is written always."""

    every_steps: int = 1
    """Optimizer steps between two entries."""
    report_to: tuple[str, ...] = ()
    """Trackers to report to as well: tensorboard, wandb, ... or `all` installed ones."""
    run_name: str = ""
    """What trackers call the run."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("every_steps",), section="logging")
