"""The sections of a recipe that say what is trained: model, data, prompt, objective, adapters.

One frozen dataclass each, every value with a sentence, checked when it is made. How long and how: `loop_sections`.
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
"""Method -> what can be minimised, the default first. `methods` holds a module for each."""
METHODS = tuple(OBJECTIVES)
ALL_LINEAR = "all-linear"
"""In place of the names of layers: every linear layer but the head."""
RANKING_LOSSES = ("ranknet", "listnet", "lambda")


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
        at_least(0, data=self, names=("max_records",), section="data")
        at_least(2, data=self, names=("group_size",), section="data")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSection:
    """How the model is prompted, in training and, by the card, in inference."""

    template: str = ""
    """Name or YAML file. Empty, listwise: the shipped template that the records were made with; pointwise: `rankllama`
    or, of a yes or a no, `yes_no`; of an encoder, `pair`."""
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
    """Pointwise: `sequence-classification` (a new score layer), or the language model's own logits: `yes-no` (the
    template's positive token minus its negative one) or `single-token` (the positive one's)."""
    instruction: str = ""
    """Pointwise: what counts as relevant, in place of the template's own; the card keeps it."""
    query_tokens: int | None = None
    """Pointwise: tokens of the query part. Null: 32; of an encoder, half of what it has positions for."""
    passage_tokens: int | None = None
    """Pointwise: tokens of the passage part. Null: 164; of an encoder, as many as the query leaves of its positions."""
    append_eos: bool = False
    """Pointwise, `rankllama-v2` only: put EOS behind the pair."""

    def __post_init__(self) -> None:
        one_of(self.bos, BOS_RULES, where="prompt.bos")
        one_of(self.head, HEADS, where="prompt.head")
        counts = ("context_tokens", "max_passage_words", "window_size", "stride", "query_tokens", "passage_tokens")
        given = [name for name in counts if getattr(self, name) is not None]
        at_least(1, data=self, names=given, section="prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSection:
    """What is minimised."""

    name: str = ""
    """Listwise: generation, ranking, combined. Pointwise: cross-entropy (of the positive in its group),
    binary-cross-entropy (of each pair), kl, margin. Empty: the first of them."""
    ranking_loss: str = "ranknet"
    """Listwise, ranking and combined: ranknet, listnet or lambda."""
    weighted: bool = False
    """RankNet: weigh pair (i, j) by 1 / (rank_i + rank_j) (FIRST, arXiv:2406.15657)."""
    ranking_weight: float | None = None
    """Combined: what the ranking loss is multiplied by. Null: the originals' 10 for weighted ranknet, 0.1 for listnet,
    1 for the others (castorini/rank_llm@1b3cabb training/utils/train_utils.py)."""
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
    """Names of the layers that get adapters; `all-linear` alone for every one. RankLLaMA's six:
    texttron/tevatron@0545746 examples/rankllama/modeling.py. An encoder has other names: these stand for all-linear."""
    start_from: str = ""
    """Folder of a trained adapter of the same base and rank to go on from; empty: new ones. Its optimizer is
    not kept, nor its prompt: a pointwise adapter may begin a listwise one."""

    def __post_init__(self) -> None:
        at_least(1, data=self, names=("r", "alpha"), section="lora")
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
