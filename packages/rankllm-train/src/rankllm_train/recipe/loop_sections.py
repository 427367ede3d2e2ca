"""Recipe sections of the training loop: optimizer, schedule, batches, checkpoints, evaluation and logging."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankllm_core.config import at_least, one_of
from rankllm_core.errors import ConfigError

METRICS = ("loss", "ndcg@10", "mrr@10")
_GREATEST_SEED = 2**32 - 1
"""Largest seed that NumPy's generators accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimSection:
    """AdamW in float32."""

    learning_rate: float = 5e-6
    """Peak learning rate."""
    weight_decay: float = 0.0
    """AdamW weight decay; not applied to biases and norms."""
    adam_beta1: float = 0.9
    """Decay rate of the first moment."""
    adam_beta2: float = 0.999
    """Decay rate of the second moment."""
    adam_epsilon: float = 1e-8
    """Term added to the denominator of the update for numerical stability."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm for clipping; 0: no clipping."""
    noisy_embedding_alpha: float = 0.0
    """Scale of the NEFTune noise (arXiv:2310.05914): uniform noise of alpha / sqrt(T D) is added to the embeddings; 0:
    no noise. As in the original implementation, T is the padded length of the batch."""

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
    """Length of the training and learning-rate schedule."""

    num_epochs: float = 3.0
    """Number of passes over the data."""
    max_steps: int = 0
    """Stop after this number of optimizer steps; 0: train for num_epochs."""
    lr_scheduler: str = "linear"
    """linear, cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup."""
    warmup_steps: int = 0
    """Warm-up length in optimizer steps. The learning rate rises linearly from 0: step n of W warm-up steps uses
    (n - 1) / W times the peak, so the first step has rate 0, as in the originals and in transformers."""
    warmup_ratio: float = 0.0
    """Warm-up length as a fraction of all steps; set either this or warmup_steps."""
    seed: int = 42
    """Random seed for data order, groups, dropout, noise and new layers."""

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
                f"schedule: warmup_steps {self.warmup_steps} and warmup_ratio {self.warmup_ratio} contradict each "
                "other; set one of them to 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSection:
    """Batch sizes and memory savings."""

    per_device: int = 1
    """Number of records (pointwise: groups) per forward pass on each process."""
    accumulation: int = 1
    """Number of forward passes per optimizer step."""
    by_length: bool = False
    """Listwise: group the records of an optimizer step into forward passes by length, to reduce padding. The step's
    loss covers the same records either way; a pass contains more short records or fewer long ones, `per_device` on
    average."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    deepspeed: str = ""
    """DeepSpeed preset (zero2, zero2-offload, zero3, zero3-offload) or configuration file (JSON or YAML); empty:
    none."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("per_device", "accumulation"), section="batch")
        if self.by_length and self.per_device == 1:
            raise ConfigError("batch.by_length: has no effect with batch.per_device 1, where nothing is padded")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSection:
    """Which checkpoints are saved and kept."""

    output_dir: str = ""
    """Folder for the trained model and its checkpoints."""
    every: str = "epoch"
    """When to save: `epoch` (folders epoch_0, epoch_1, ...), a number of optimizer steps (step_500, ...), or `none`."""
    keep: int = 0
    """Number of checkpoints to keep, newest first; 0: all."""
    resumable: bool = True
    """Whether checkpoints include the optimizer, schedule and random states needed to resume."""

    def __post_init__(self) -> None:
        at_least(0, data=self, names=("keep",), section="checkpoint")
        if self.every not in ("epoch", "none") and not (self.every.isdecimal() and int(self.every) > 0):
            raise ConfigError(f"checkpoint.every: expected 'epoch', 'none' or a number of steps, found {self.every!r}")

    @property
    def every_steps(self) -> int:
        """Steps between checkpoints; 0 if they are saved per epoch or not at all."""
        return int(self.every) if self.every.isdecimal() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSection:
    """Evaluation on `data.eval` during training: loss, nDCG@10 and MRR@10."""

    every: str = "epoch"
    """When to evaluate: `epoch`, or a number of optimizer steps. The last step is always evaluated."""
    per_device: int = 1
    """Number of records (pointwise: groups) per forward pass on each process."""
    keep_best: bool = True
    """Whether OUTPUT_DIR contains the model with the best evaluation at the end, instead of the last model. During
    training, the best model is kept in OUTPUT_DIR/best, independently of the checkpoints."""
    metric: str = ""
    """Metric that selects the best model: `loss` (lower is better), `ndcg@10` or `mrr@10` (higher is better). Empty:
    ndcg@10, or loss for the generation objective: its first-token logits can be used to rank as in FIRST, but are not
    trained for it."""
    patience: int = 0
    """Early stopping: number of consecutive evaluations without improvement before training stops; 0: never."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("per_device",), section="evaluation")
        at_least(0, data=self, names=("patience",), section="evaluation")
        if self.metric:
            one_of(self.metric, METRICS, where="evaluation.metric")
        if self.patience and not self.keep_best:
            raise ConfigError(
                f"evaluation.patience {self.patience} without evaluation.keep_best would keep a model that is not the "
                "best; set keep_best to true or patience to 0"
            )
        if self.every != "epoch" and not (self.every.isdecimal() and int(self.every) > 0):
            raise ConfigError(f"evaluation.every: expected 'epoch' or a number of steps, found {self.every!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSection:
    """What is logged. The metrics file OUTPUT_DIR/metrics.jsonl is always written."""

    every_steps: int = 1
    """Number of optimizer steps between log entries."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers to report to (tensorboard, wandb, ...), or `all` for all installed ones."""
    run_name: str = ""
    """Run name in the experiment trackers."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("every_steps",), section="logging")
