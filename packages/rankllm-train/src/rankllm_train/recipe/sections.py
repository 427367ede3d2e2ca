"""The sections of a recipe: one frozen dataclass each, every value with a sentence, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankllm_core.config import one_of
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.chat import BOS_RULES

METHODS = ("listwise", "pointwise")
OBJECTIVES = {
    "listwise": ("generation", "ranking", "combined"),
    "pointwise": ("cross-entropy", "kl", "margin"),
}
RANKING_LOSSES = ("ranknet", "listnet", "lambda")
METRICS = ("loss", "ndcg@10", "mrr@10")
_GREATEST_SEED = 2**32 - 1
"""Of NumPy's generators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """The model that training starts from."""

    name_or_path: str = ""
    """A folder or a hub name. An adapter cannot be trained on."""
    precision: str = "bf16"
    """`fp32`, `bf16` or `fp16`: what matrices are multiplied in. Trained weights are kept in float32 in any case."""
    attn_implementation: str = "auto"
    """`auto`: flash_attention_2 where installed and a GPU is there, else sdpa; on a CPU, of bf16 weights (LoRA), blocks
    of our own."""
    trust_remote_code: bool = False
    """Whether to run code that comes with the model."""

    def __post_init__(self) -> None:
        one_of(self.precision, ("fp32", "bf16", "fp16"), where="model.precision")
        choices = ("auto", "sdpa", "flash_attention_2", "eager")
        one_of(self.attn_implementation, choices, where="model.attn_implementation")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """What is trained on."""

    train: str = ""
    """A file (JSON Lines or a JSON array, plain, .gz or .xz) or the name of a Hugging Face data set."""
    eval: str = ""
    """The same, to measure on while training; empty: none."""
    identifiers: str = "keep"
    """Listwise: `keep` those of the records, or convert all to `alpha` or `numeric`."""
    max_records: int = 0
    """Use the first so many records; 0: all."""
    overlong: str = "error"
    """A record over `prompt.context_tokens`: `error` names it, `skip` leaves it out, `truncate` cuts its passages to
    fewer words as inference does. What was done is counted."""
    bad_records: str = "error"
    """A malformed record: `error` names it, `skip` leaves it out and counts it."""
    group_size: int = 16
    """Pointwise: passages in a group, one positive and the rest negatives (RankLLaMA: 16)."""
    positive_no_shuffle: bool = False
    """Pointwise: always take a record's first positive."""
    negative_no_shuffle: bool = False
    """Pointwise: always take a record's first negatives."""

    def __post_init__(self) -> None:
        one_of(self.identifiers, ("keep", "alpha", "numeric"), where="data.identifiers")
        one_of(self.overlong, ("error", "skip", "truncate"), where="data.overlong")
        one_of(self.bad_records, ("error", "skip"), where="data.bad_records")
        _at_least(0, data=self, names=("max_records",), section="data")
        _at_least(2, data=self, names=("group_size",), section="data")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSection:
    """How the model is prompted, in training and, by the card, in inference."""

    template: str = ""
    """Name or YAML file. Empty, listwise: the shipped template that the records were made with."""
    bos: str = "single"
    """`single` or `double` (card key `bos`)."""
    context_tokens: int = 4096
    """Listwise: tokens of prompt and answer together."""
    max_passage_words: int = 300
    """Listwise: words of a passage shown at inference."""
    window_size: int = 20
    """Listwise: passages in a window at inference."""
    stride: int = 10
    """Listwise: ranks the window moves at inference."""
    head: str = "sequence-classification"
    """Pointwise: `sequence-classification` (a new score layer) or `yes-no` (the language model's own words)."""
    query_tokens: int = 32
    """Pointwise: tokens of the query part."""
    passage_tokens: int = 164
    """Pointwise: tokens of the passage part."""
    append_eos: bool = False
    """Pointwise, `rankllama-v2` only: put EOS behind the pair."""

    def __post_init__(self) -> None:
        one_of(self.bos, BOS_RULES, where="prompt.bos")
        one_of(self.head, ("sequence-classification", "yes-no"), where="prompt.head")
        counts = ("context_tokens", "max_passage_words", "window_size", "stride", "query_tokens", "passage_tokens")
        _at_least(1, data=self, names=counts, section="prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSection:
    """What is minimised."""

    name: str = ""
    """Listwise: generation, ranking, combined. Pointwise: cross-entropy, kl, margin. Empty: the first of them."""
    ranking_loss: str = "ranknet"
    """Listwise, ranking and combined: ranknet, listnet or lambda."""
    weighted: bool = False
    """RankNet: weigh pair (i, j) by 1 / (rank_i + rank_j) (FIRST, arXiv:2406.15657)."""
    ranking_weight: float | None = None
    """Combined: what the ranking loss is multiplied by. Null: the originals' 10 for weighted ranknet, 0.1 for listnet,
    1 for the others (rank_llm 1b3cabb)."""
    teacher_temperature: float = 1.0
    """KL: what the teacher's scores are divided by."""
    student_temperature: float = 1.0
    """KL: what the model's scores are divided by."""
    label_weight: float = 0.0
    """KL and margin: the labelled positive's cross-entropy, times this, is added: a teacher may err."""

    def __post_init__(self) -> None:
        one_of(self.ranking_loss, RANKING_LOSSES, where="objective.ranking_loss")
        if self.ranking_weight is not None and not 0 < self.ranking_weight < math.inf:
            raise ConfigError(f"objective.ranking_weight: expected a number above 0, found {self.ranking_weight}")
        for name in ("teacher_temperature", "student_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"objective.{name}: expected a number above 0, found {getattr(self, name)}")
        if not 0 <= self.label_weight < math.inf:
            raise ConfigError(f"objective.label_weight: expected 0 or more, found {self.label_weight}")

    @property
    def weight(self) -> float:
        """The weight of the ranking loss in the combined one."""
        if self.ranking_weight is not None:
            return self.ranking_weight
        if self.ranking_loss == "ranknet":
            return 10.0 if self.weighted else 1.0
        return 0.1 if self.ranking_loss == "listnet" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSection:
    """Low-rank adapters (arXiv:2106.09685) in place of full fine-tuning."""

    enabled: bool = False
    """Whether to train adapters."""
    r: int = 32
    """Rank."""
    alpha: int = 64
    """Adapters are scaled by alpha / r."""
    dropout: float = 0.1
    """Dropout on what goes into the adapters."""
    target_modules: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj")
    """Names of the layers that get adapters; `all-linear` alone for every one (RankLLaMA's six, tevatron v1)."""
    start_from: str = ""
    """Folder of a trained adapter of the same base and rank to go on from; empty: new ones. Its optimizer is
    not kept, nor its prompt: a pointwise adapter may begin a listwise one."""

    def __post_init__(self) -> None:
        _at_least(1, data=self, names=("r", "alpha"), section="lora")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout: expected a number from 0 to below 1, found {self.dropout}")
        if not self.target_modules:
            raise ConfigError("lora.target_modules: expected at least one layer name, found none")
        for number, name in enumerate(self.target_modules):
            if not name or len(name.split()) != 1:
                raise ConfigError(f"lora.target_modules: expected names of layers, found {name!r}")
            if name in self.target_modules[:number]:
                raise ConfigError(f"lora.target_modules: {name!r} is given twice")
        if self.start_from and not self.enabled:
            raise ConfigError("lora.start_from: has no effect without lora.enabled (--lora)")


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
        _at_least(0, data=self, names=("weight_decay", "max_grad_norm", "noisy_embedding_alpha"), section="optim")


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
        _at_least(0, data=self, names=("max_steps", "warmup_steps", "seed"), section="schedule")
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
        _at_least(1, data=self, names=("per_device", "accumulation"), section="batch")
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
        _at_least(0, data=self, names=("keep",), section="checkpoint")
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
        _at_least(1, data=self, names=("per_device",), section="evaluation")
        _at_least(0, data=self, names=("patience",), section="evaluation")
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
        _at_least(1, data=self, names=("every_steps",), section="logging")


def _at_least(least: float, *, data: object, names: tuple[str, ...], section: str) -> None:
    for name in names:
        if not least <= getattr(data, name) < math.inf:
            raise ConfigError(f"{section}.{name}: expected {least} or more, found {getattr(data, name)}")
