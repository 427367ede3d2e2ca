"""Table of options that each set one recipe value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from rankllm_core.card import HEADS
from rankllm_core.command_line import NAME
from rankllm_train.recipe.loop_sections import METRICS
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.recipe.sections import OBJECTIVES, RANKING_LOSSES


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOption:
    """Option that sets one recipe value."""

    names: tuple[str, ...]
    path: str
    """`section.key`."""
    kind: Any
    """A click type, or bool for a switch with a `--no-` form."""
    help: str
    note: str = ""
    """Text in brackets after the help, if the default in the recipe section is not a single value."""

    @property
    def help_text(self) -> str:
        """Help text with the default, which applies if neither the recipe nor the command line sets the value."""
        section, _, key = self.path.partition(".")
        value = getattr(getattr(_DEFAULTS, section), key)
        if isinstance(value, bool):
            text = "default: on" if value else ""
        else:
            text = f"default: {','.join(value) if isinstance(value, tuple) else value}" if value not in ("", ()) else ""
        note = self.note or text
        return f"{self.help}  [{note}]" if note else self.help


def _option(names: str, path: str, kind: Any, text: str, *, note: str = "") -> RecipeOption:
    return RecipeOption(names=tuple(names.split()), path=path, kind=kind, help=text, note=note)


_DEFAULTS = Recipe()
_TEMPLATE_NOTE = "default: depends on the records (listwise) or the head and the model (pointwise)"
_REQUIRED = "required here or in the recipe"


_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")

COMMON = (
    _option(
        "--model-name-or-path",
        "model.name_or_path",
        NAME,
        "Base model: folder or Hugging Face hub name.",
        note=_REQUIRED,
    ),
    _option(
        "--attn-implementation",
        "model.attn_implementation",
        str,
        "Attention implementation: auto, sdpa, flash_attention_2 or eager.",
    ),
    _option(
        "--trust-remote-code",
        "model.trust_remote_code",
        bool,
        "Run remote code: custom Python code that comes with the model.",
    ),
    _option(
        "--train-dataset-path --dataset-name",
        "data.train",
        NAME,
        "Training data: a file or the name of a Hugging Face dataset.",
        note=_REQUIRED,
    ),
    _option("--eval-dataset-path", "data.eval", NAME, "Dev data for evaluation during training, in the same formats."),
    _option("--eval-steps", "evaluation.every", str, "When to evaluate: epoch, or every N steps."),
    _option(
        "--per-device-eval-batch-size",
        "evaluation.per_device",
        int,
        "Evaluation batch size per device, in records (listwise) or groups (pointwise).",
    ),
    _option(
        "--keep-best --load-best-model-at-end",
        "evaluation.keep_best",
        bool,
        "Keep the model with the best evaluation as the final model.",
    ),
    _option(
        "--metric-for-best-model",
        "evaluation.metric",
        click.Choice(METRICS),
        "Metric that selects the best model.",
        note="default: ndcg@10, or loss with --objective generation",
    ),
    _option(
        "--patience --early-stopping-patience",
        "evaluation.patience",
        int,
        "Early stopping: number of evaluations without improvement before training stops; 0: never.",
    ),
    _option(
        "--max-train-samples", "data.max_records", int, "Maximum number of training records, from the start; 0: all."
    ),
    _option(
        "--bad-records",
        "data.bad_records",
        click.Choice(["error", "skip"]),
        "How to handle malformed records: fail, or skip and count them.",
    ),
    _option(
        "--bos",
        "prompt.bos",
        click.Choice(["single", "double"]),
        "Number of BOS tokens before the prompt; double matches the published checkpoints.",
    ),
    _option(
        "--prompt-template-path",
        "prompt.template",
        NAME,
        "Prompt template (name or YAML file), recorded in the card.",
        note=_TEMPLATE_NOTE,
    ),
    _option("--num-train-epochs", "schedule.num_epochs", float, "Number of epochs."),
    _option(
        "--max-train-steps --max-steps",
        "schedule.max_steps",
        int,
        "Stop after this many optimizer steps; 0: train for whole epochs.",
    ),
    _option("--seed", "schedule.seed", int, "Random seed for data order, groups, dropout, noise and new layers."),
    _option("--lr-scheduler-type", "schedule.lr_scheduler", click.Choice(_SCHEDULERS), "Learning-rate schedule."),
    _option(
        "--num-warmup-steps --warmup-steps",
        "schedule.warmup_steps",
        int,
        "Number of warm-up steps; the learning rate rises linearly, starting at 0 in the first step.",
    ),
    _option("--warmup-ratio", "schedule.warmup_ratio", float, "Warm-up length as a fraction of all steps."),
    _option(
        "--per-device-train-batch-size",
        "batch.per_device",
        int,
        "Training batch size per device, in records (listwise) or groups (pointwise).",
    ),
    _option("--gradient-accumulation-steps", "batch.accumulation", int, "Number of forward passes per optimizer step."),
    _option(
        "--group-by-length",
        "batch.by_length",
        bool,
        "Batch records of similar length to reduce padding (listwise only).",
    ),
    _option(
        "--gradient-checkpointing",
        "batch.gradient_checkpointing",
        bool,
        "Recompute activations in the backward pass, to save memory at the cost of time.",
    ),
    _option(
        "--deepspeed",
        "batch.deepspeed",
        NAME,
        "DeepSpeed preset (zero2, zero2-offload, zero3, zero3-offload) or configuration file.",
    ),
    _option("--learning-rate", "optim.learning_rate", float, "Peak learning rate."),
    _option("--weight-decay", "optim.weight_decay", float, "AdamW weight decay."),
    _option("--max-grad-norm", "optim.max_grad_norm", float, "Maximum gradient norm for clipping; 0: no clipping."),
    _option(
        "--noisy-embedding-alpha",
        "optim.noisy_embedding_alpha",
        float,
        "Scale of the NEFTune embedding noise; 0: no noise.",
    ),
    _option("--lora", "lora.enabled", bool, "Train LoRA adapters instead of all model weights."),
    _option("--lora-r", "lora.r", int, "LoRA rank."),
    _option("--lora-alpha", "lora.alpha", int, "LoRA alpha; the adapter output is scaled by alpha / r."),
    _option("--lora-dropout", "lora.dropout", float, "Dropout rate for the adapter inputs."),
    _option(
        "--lora-target-modules", "lora.target_modules", str, "Layers to adapt: comma-separated names, or all-linear."
    ),
    _option("--start-from-adapter", "lora.start_from", NAME, "Folder with a trained adapter to continue training."),
    _option(
        "--output-dir", "checkpoint.output_dir", NAME, "Folder for checkpoints and the trained model.", note=_REQUIRED
    ),
    _option(
        "--checkpointing-steps --save-steps",
        "checkpoint.every",
        str,
        "When to save checkpoints: epoch, none, or every N steps.",
    ),
    _option("--save-total-limit", "checkpoint.keep", int, "Number of recent checkpoints to keep; 0: all."),
    _option("--logging-steps", "logging.every_steps", int, "Log every N optimizer steps."),
    _option(
        "--report-to",
        "logging.report_to",
        str,
        "Experiment trackers, comma-separated (tensorboard, wandb, ...), or all installed ones.",
    ),
)
LISTWISE = (
    _option(
        "--objective",
        "objective.name",
        click.Choice(OBJECTIVES["listwise"]),
        "Training objective.",
        note="default: generation",
    ),
    _option(
        "--ranking-loss",
        "objective.ranking_loss",
        click.Choice(RANKING_LOSSES),
        "Ranking loss for the ranking and combined objectives.",
    ),
    _option("--weighted", "objective.weighted", bool, "RankNet: weight pairs by 1 / (rank_i + rank_j), as FIRST does."),
    _option(
        "--ranking-weight",
        "objective.ranking_weight",
        float,
        "Weight of the ranking loss in the combined objective.",
        note="default: 10 for weighted ranknet, 0.1 for listnet, otherwise 1",
    ),
    _option(
        "--identifiers",
        "data.identifiers",
        click.Choice(["keep", "alpha", "numeric"]),
        "Keep the identifiers in the records, or convert them.",
    ),
    _option(
        "--overlong",
        "data.overlong",
        click.Choice(["error", "skip", "truncate"]),
        "How to handle records longer than --context-size: fail, skip or truncate.",
    ),
    _option("--context-size", "prompt.context_tokens", int, "Maximum number of tokens for prompt and answer together."),
    _option(
        "--window-size", "prompt.window_size", int, "Number of passages per window at inference, recorded in the card."
    ),
    _option(
        "--stride",
        "prompt.stride",
        int,
        "Number of ranks that the window moves per step at inference, recorded in the card.",
    ),
    _option(
        "--max-passage-words",
        "prompt.max_passage_words",
        int,
        "Maximum number of words per passage at inference, recorded in the card.",
    ),
)
POINTWISE = (
    _option(
        "--objective",
        "objective.name",
        click.Choice(OBJECTIVES["pointwise"]),
        "Training objective; kl and margin require records with teacher scores.",
        note="default: cross-entropy",
    ),
    _option(
        "--label-weight",
        "objective.label_weight",
        float,
        "Weight of the label cross-entropy that is added to kl and margin.",
    ),
    _option(
        "--train-n-passages --train-group-size",
        "data.group_size",
        int,
        "Number of passages per group: one positive, the rest negatives.",
    ),
    _option(
        "--q-max-len",
        "prompt.query_tokens",
        int,
        "Maximum number of query tokens.",
        note="default: 32, or half of an encoder's context length",
    ),
    _option(
        "--p-max-len",
        "prompt.passage_tokens",
        int,
        "Maximum number of passage tokens.",
        note="default: 164, or the rest of an encoder's context length",
    ),
    _option("--append-eos", "prompt.append_eos", bool, "Append EOS to the pair (--input-format v2 only)."),
    _option("--head", "prompt.head", click.Choice(HEADS), "Source of the score: a new score layer or token logits."),
    _option("--instruction", "prompt.instruction", str, "Relevance instruction, replacing the template's."),
    _option("--positive-passage-no-shuffle", "data.positive_no_shuffle", bool, "Always use a record's first positive."),
    _option(
        "--negative-passage-no-shuffle", "data.negative_no_shuffle", bool, "Always use a record's first negatives."
    ),
)
FORMATS = {"v1": "rankllama", "v2": "rankllama-v2"}
