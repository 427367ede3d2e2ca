"""Recipe sections that define what is trained: model, data, prompt, objective and adapters.

Each is a frozen dataclass with documented fields, validated on creation. The training loop is in `loop_sections`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankllm_core.card import HEADS
from rankllm_core.config import at_least, one_of
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.chat import BOS_RULES

OBJECTIVES = {
    "listwise": ("generation", "ranking", "combined"),
    "pointwise": ("cross-entropy", "binary-cross-entropy", "kl", "margin"),
}
"""Method -> available objectives, default first. `methods` has a module for each method."""
METHODS = tuple(OBJECTIVES)
ALL_LINEAR = "all-linear"
"""Value of lora.target_modules that means every linear layer except the head."""
RANKING_LOSSES = ("ranknet", "listnet", "lambda")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """Base model of the training run."""

    name_or_path: str = ""
    """Model folder or hub name. To continue training an adapter, use lora.start_from."""
    precision: str = "bf16"
    """Compute precision: `fp32`, `bf16` or `fp16`. Trained weights are always kept in float32."""
    attn_implementation: str = "auto"
    """Attention implementation. `auto`: flash_attention_2 on a GPU if it is installed, otherwise sdpa; on a CPU with
    bf16 weights (LoRA), rankllm's own blockwise attention."""
    trust_remote_code: bool = False
    """Whether to run remote code: custom Python code that comes with the model."""

    def __post_init__(self) -> None:
        one_of(self.precision, ("fp32", "bf16", "fp16"), where="model.precision")
        choices = ("auto", "sdpa", "flash_attention_2", "eager")
        one_of(self.attn_implementation, choices, where="model.attn_implementation")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """Training data."""

    train: str = ""
    """Training file (JSON Lines or a JSON array, plain, .gz or .xz) or the name of a Hugging Face dataset."""
    eval: str = ""
    """Dev data for evaluation during training, in the same formats; empty: none."""
    identifiers: str = "keep"
    """Listwise: `keep` the identifiers in the records, or convert them to `alpha` or `numeric`."""
    max_records: int = 0
    """Maximum number of records to use, from the start; 0: all."""
    overlong: str = "error"
    """Records longer than `prompt.context_tokens`: `error` stops the run with an error that names the record, `skip`
    skips it, `truncate` truncates its passages to fewer words as at inference. Skipped and truncated records are
    counted."""
    bad_records: str = "error"
    """Malformed records: `error` stops the run with an error that names the record, `skip` skips and counts it."""
    group_size: int = 16
    """Pointwise: number of passages per group, one positive and the rest negatives (RankLLaMA: 16)."""
    positive_no_shuffle: bool = False
    """Pointwise: always use a record's first positive instead of sampling one."""
    negative_no_shuffle: bool = False
    """Pointwise: always use a record's first negatives instead of sampling them."""

    def __post_init__(self) -> None:
        one_of(self.identifiers, ("keep", "alpha", "numeric"), where="data.identifiers")
        one_of(self.overlong, ("error", "skip", "truncate"), where="data.overlong")
        one_of(self.bad_records, ("error", "skip"), where="data.bad_records")
        at_least(0, data=self, names=("max_records",), section="data")
        at_least(2, data=self, names=("group_size",), section="data")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSection:
    """Prompt format and limits, for training and, through the card, for inference."""

    template: str = ""
    """Template name or YAML file. If empty: for listwise, the bundled template that matches the records; for pointwise,
    `rankllama`, `yes_no` with a yes-no or single-token head, or `pair` for encoders."""
    bos: str = "single"
    """BOS tokens before the prompt, `single` or `double` (card key `bos`)."""
    context_tokens: int = 4096
    """Listwise: maximum number of tokens for prompt and answer together."""
    max_passage_words: int = 300
    """Listwise: maximum number of words per passage at inference."""
    window_size: int = 20
    """Listwise: number of passages per window at inference."""
    stride: int = 10
    """Listwise: number of ranks that the window moves per step at inference."""
    head: str = "sequence-classification"
    """Pointwise: source of the score, either `sequence-classification` (a new score layer) or the language model's
    logits: `yes-no` (the template's positive token minus its negative token) or `single-token` (positive token
    only)."""
    instruction: str = ""
    """Pointwise: relevance instruction, replacing the template's; recorded in the card."""
    query_tokens: int | None = None
    """Pointwise: maximum number of query tokens. Null: 32, or half of an encoder's context length."""
    passage_tokens: int | None = None
    """Pointwise: maximum number of passage tokens. Null: 164, or the part of an encoder's context length that the query
    does not use."""
    append_eos: bool = False
    """Pointwise, `rankllama-v2` only: append EOS to the pair."""

    def __post_init__(self) -> None:
        one_of(self.bos, BOS_RULES, where="prompt.bos")
        one_of(self.head, HEADS, where="prompt.head")
        counts = ("context_tokens", "max_passage_words", "window_size", "stride", "query_tokens", "passage_tokens")
        given = [name for name in counts if getattr(self, name) is not None]
        at_least(1, data=self, names=given, section="prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSection:
    """Training objective."""

    name: str = ""
    """Listwise: generation, ranking or combined. Pointwise: cross-entropy (softmax over the group),
    binary-cross-entropy (each pair independently), kl or margin (distillation). Empty: the method's first objective."""
    ranking_loss: str = "ranknet"
    """Ranking loss for the listwise objectives ranking and combined: ranknet, listnet or lambda."""
    weighted: bool = False
    """RankNet: weight pair (i, j) by 1 / (rank_i + rank_j) (FIRST, arXiv:2406.15657)."""
    ranking_weight: float | None = None
    """Combined objective: weight of the ranking loss. Null: as in the original, 10 for weighted ranknet, 0.1 for
    listnet and 1 otherwise (castorini/rank_llm@1b3cabb training/utils/train_utils.py)."""
    teacher_temperature: float = 1.0
    """KL: temperature by which the teacher's scores are divided."""
    student_temperature: float = 1.0
    """KL: temperature by which the model's scores are divided."""
    label_weight: float = 0.0
    """KL and margin: weight of the additional cross-entropy on the labelled positive, in case the teacher is wrong."""

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
        """Weight of the ranking loss in the combined objective."""
        if self.ranking_weight is not None:
            return self.ranking_weight
        if self.ranking_loss == "ranknet":
            return 10.0 if self.weighted else 1.0
        return 0.1 if self.ranking_loss == "listnet" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSection:
    """Low-rank adapters (arXiv:2106.09685) instead of full fine-tuning."""

    enabled: bool = False
    """Whether to train adapters."""
    r: int = 32
    """LoRA rank."""
    alpha: int = 64
    """LoRA alpha; the adapter output is scaled by alpha / r."""
    dropout: float = 0.1
    """Dropout rate for the adapter inputs."""
    target_modules: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj")
    """Names of the layers to adapt, or only `all-linear` for every linear layer. The default is RankLLaMA's six
    (texttron/tevatron@0545746 examples/rankllama/modeling.py). Encoders name their layers differently, so for them the
    default means all-linear."""
    start_from: str = ""
    """Folder with a trained adapter to continue training, with the same base model and rank; empty: new adapters. Its
    optimizer state and prompt are not reused, so a listwise run may start from a pointwise adapter."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("r", "alpha"), section="lora")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout: expected a number from 0 to below 1, found {self.dropout}")
        if not self.target_modules:
            raise ConfigError("lora.target_modules: expected at least one layer name, found none")
        for number, name in enumerate(self.target_modules):
            if not name or len(name.split()) != 1:
                raise ConfigError(f"lora.target_modules: expected layer names, found {name!r}")
            if name in self.target_modules[:number]:
                raise ConfigError(f"lora.target_modules: {name!r} is given twice")
        if self.start_from and not self.enabled:
            raise ConfigError("lora.start_from: has no effect without lora.enabled (--lora)")
