"""Options that stand for values of a recipe: a table of names, and what a command line changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.decorators import FC

from rankllm_core.card import HEADS
from rankllm_core.command_line import NAME, ignored
from rankllm_core.errors import ConfigError
from rankllm_train.recipe.loop_sections import METRICS
from rankllm_train.recipe.recipe import Recipe, load_recipe, parse_setting
from rankllm_train.recipe.sections import OBJECTIVES, RANKING_LOSSES


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOption:
    """An option that sets one value of a recipe."""

    names: tuple[str, ...]
    path: str
    """`section.key`."""
    kind: Any
    """A click type, or bool for a switch with its `--no-` form."""
    help: str


def _option(names: str, path: str, kind: Any, text: str) -> RecipeOption:
    return RecipeOption(names=tuple(names.split()), path=path, kind=kind, help=text)


_SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")

COMMON = (
    _option("--model-name-or-path", "model.name_or_path", NAME, "A folder or a hub name."),
    _option("--attn-implementation", "model.attn_implementation", str, "auto, sdpa, flash_attention_2 or eager."),
    _option("--trust-remote-code", "model.trust_remote_code", bool, "Run code that comes with the model."),
    _option("--train-dataset-path --dataset-name", "data.train", NAME, "A file, or a Hugging Face data set."),
    _option("--eval-dataset-path", "data.eval", NAME, "The same, to measure on while training."),
    _option("--eval-steps", "evaluation.every", str, "epoch, or a number of steps."),
    _option("--per-device-eval-batch-size", "evaluation.per_device", int, "Records (pointwise: groups) at once."),
    _option("--keep-best --load-best-model-at-end", "evaluation.keep_best", bool, "End with the best model measured."),
    _option("--metric-for-best-model", "evaluation.metric", click.Choice(METRICS), "What makes a model the best."),
    _option("--patience --early-stopping-patience", "evaluation.patience", int, "Stop when so many are no better."),
    _option("--max-train-samples", "data.max_records", int, "Use the first so many records; 0: all."),
    _option("--bad-records", "data.bad_records", click.Choice(["error", "skip"]), "What to do with malformed ones."),
    _option("--bos", "prompt.bos", click.Choice(["single", "double"]), "double: as the published checkpoints."),
    _option("--prompt-template-path", "prompt.template", NAME, "A template's name or YAML file, for the card."),
    _option("--num-train-epochs", "schedule.num_epochs", float, "Passes over the data."),
    _option("--max-train-steps --max-steps", "schedule.max_steps", int, "Optimizer steps; 0: by epochs."),
    _option("--seed", "schedule.seed", int, "Of everything random."),
    _option("--lr-scheduler-type", "schedule.lr_scheduler", click.Choice(_SCHEDULERS), "The learning rate's course."),
    _option(
        "--num-warmup-steps --warmup-steps",
        "schedule.warmup_steps",
        int,
        "Optimizer steps over which the learning rate rises from 0, the rate of the first step.",
    ),
    _option("--warmup-ratio", "schedule.warmup_ratio", float, "Length of the warm-up as a share of all steps."),
    _option("--per-device-train-batch-size", "batch.per_device", int, "Records (pointwise: groups) at once."),
    _option("--gradient-accumulation-steps", "batch.accumulation", int, "Forward passes an optimizer step."),
    _option("--group-by-length", "batch.by_length", bool, "Listwise: records of like length together: less padding."),
    _option("--gradient-checkpointing", "batch.gradient_checkpointing", bool, "Less memory, more time."),
    _option("--deepspeed", "batch.deepspeed", NAME, "zero2, zero2-offload, zero3, zero3-offload, or a file."),
    _option("--learning-rate", "optim.learning_rate", float, "At its highest."),
    _option("--weight-decay", "optim.weight_decay", float, "Of AdamW."),
    _option("--max-grad-norm", "optim.max_grad_norm", float, "Gradients are scaled down to it; 0: never."),
    _option("--noisy-embedding-alpha", "optim.noisy_embedding_alpha", float, "NEFTune; 0: no noise."),
    _option("--lora", "lora.enabled", bool, "Train adapters in place of all weights."),
    _option("--lora-r", "lora.r", int, "Rank of the adapters."),
    _option("--lora-alpha", "lora.alpha", int, "Adapters are scaled by alpha / r."),
    _option("--lora-dropout", "lora.dropout", float, "Dropout on what goes into the adapters."),
    _option("--lora-target-modules", "lora.target_modules", str, "Layer names, comma-separated, or all-linear."),
    _option("--start-from-adapter", "lora.start_from", NAME, "A trained adapter's folder, in place of a new one."),
    _option("--output-dir", "checkpoint.output_dir", NAME, "Folder of the trained model."),
    _option("--checkpointing-steps --save-steps", "checkpoint.every", str, "epoch, none, or a number of steps."),
    _option("--save-total-limit", "checkpoint.keep", int, "Checkpoints to keep; 0: all."),
    _option("--logging-steps", "logging.every_steps", int, "Steps between two entries."),
    _option("--report-to", "logging.report_to", str, "Trackers: tensorboard, wandb, ... or all."),
)
LISTWISE = (
    _option("--objective", "objective.name", click.Choice(OBJECTIVES["listwise"]), "What is minimised."),
    _option("--ranking-loss", "objective.ranking_loss", click.Choice(RANKING_LOSSES), "Of ranking and combined."),
    _option("--weighted", "objective.weighted", bool, "RankNet: weigh pairs by 1 / (rank_i + rank_j)."),
    _option("--ranking-weight", "objective.ranking_weight", float, "Of the ranking loss in the combined one."),
    _option("--identifiers", "data.identifiers", click.Choice(["keep", "alpha", "numeric"]), "Convert the records'."),
    _option("--overlong", "data.overlong", click.Choice(["error", "skip", "truncate"]), "Over the context size."),
    _option("--context-size", "prompt.context_tokens", int, "Tokens of prompt and answer."),
    _option("--window-size", "prompt.window_size", int, "Passages in a window at inference, for the card."),
    _option("--stride", "prompt.stride", int, "Ranks the window moves at inference, for the card."),
    _option("--max-passage-words", "prompt.max_passage_words", int, "Words of a passage at inference, for the card."),
)
POINTWISE = (
    _option("--objective", "objective.name", click.Choice(OBJECTIVES["pointwise"]), "kl and margin need a teacher."),
    _option("--label-weight", "objective.label_weight", float, "Cross-entropy added to kl and margin."),
    _option("--train-n-passages --train-group-size", "data.group_size", int, "Passages in a group."),
    _option("--q-max-len", "prompt.query_tokens", int, "Tokens of the query part."),
    _option("--p-max-len", "prompt.passage_tokens", int, "Tokens of the passage part."),
    _option("--append-eos", "prompt.append_eos", bool, "EOS behind the pair (--input-format v2)."),
    _option("--head", "prompt.head", click.Choice(HEADS), "Where the score is read."),
    _option("--instruction", "prompt.instruction", str, "What counts as relevant, in place of the template's."),
    _option("--positive-passage-no-shuffle", "data.positive_no_shuffle", bool, "Always the first positive."),
    _option("--negative-passage-no-shuffle", "data.negative_no_shuffle", bool, "Always the first negatives."),
)
FORMATS = {"v1": "rankllama", "v2": "rankllama-v2"}
IGNORED_VALUES = (
    "--dataset-proc-num",
    "--preprocessing-num-workers",
    "--cache-dir",
    "--config-name",
    "--model-type",
    "--dataloader-num-workers",
)
IGNORED_SWITCHES = ("--overwrite-cache", "--low-cpu-mem-usage", "--do-train")


_PREFIX = "recipe__"


def key_of(path: str) -> str:
    """What a recipe option is called among the parameters of a command."""
    return _PREFIX + path.replace(".", "__")


def recipe_options(options: Sequence[RecipeOption]) -> Callable[[FC], FC]:
    """All options of a table, none with a default: what is not said is the recipe's."""

    def decorate(command: FC) -> FC:
        for option in reversed(options):
            names = [f"{n}/--no-{n.removeprefix('--')}" if option.kind is bool else n for n in option.names]
            kind = {} if option.kind is bool else {"type": option.kind}
            command = click.option(*names, key_of(option.path), default=None, help=option.help, **kind)(command)
        return command

    return decorate


def shared_options(command: FC) -> FC:
    """Options that are more than one value of a recipe, and those of the originals that do nothing."""
    for decorate in (
        *(ignored(name, takes_value=True) for name in IGNORED_VALUES),
        *(ignored(name, takes_value=False) for name in IGNORED_SWITCHES),
        click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Any value of the recipe."),
        click.option("--with-tracking/--no-with-tracking", default=None, help="Report to trackers (all installed)."),
        click.option("--fp16/--no-fp16", default=None, help="float16; --no-fp16: float32."),
        click.option("--bf16/--no-bf16", default=None, help="bfloat16; --no-bf16: float32."),
        click.option("--recipe", type=NAME, help="A recipe's name (see `train recipes`) or YAML file."),
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """What a command line says of a recipe; None where it says nothing."""

    recipe: str | None = None
    """A recipe's name or file."""
    values: Mapping[str, Any]
    """`section.key` -> value, of the table's options that were given."""
    settings: tuple[str, ...] = ()
    """Texts of `--set`."""
    bf16: bool | None = None
    fp16: bool | None = None
    input_format: str | None = None
    with_tracking: bool | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RecipeOptions:
        """Sort the parameters of a command into the table's options and the others."""
        values = {
            key.removeprefix(_PREFIX).replace("__", "."): value
            for key, value in given.items()
            if key.startswith(_PREFIX) and value is not None
        }
        names = ("recipe", "settings", "bf16", "fp16", "input_format", "with_tracking")
        return cls(values=values, **{name: given[name] for name in names if name in given})

    @property
    def changes_something(self) -> bool:
        """Whether any option was given, beside the recipe's name."""
        switches = (self.bf16, self.fp16, self.input_format, self.with_tracking)
        return bool(self.values or self.settings) or any(value is not None for value in switches)


def resolve_recipe(method: str, options: RecipeOptions) -> Recipe:
    """The recipe in force: the named one, then the options, then `--set`. Raises ConfigError."""
    base = load_recipe(options.recipe) if options.recipe else Recipe(method=method)
    if base.method != method:
        raise ConfigError(f"--recipe {options.recipe}: is for `train {base.method}`, not `train {method}`")
    recipe = base.changed(_overrides(options), where="")
    recipe = recipe.changed(dict(parse_setting(text) for text in options.settings), where="--set ")
    _refuse_idle(recipe, options.values)
    return recipe


def _overrides(options: RecipeOptions) -> dict[str, object]:
    """`section.key` -> value, of the options that were given."""
    changes: dict[str, object] = dict(options.values)
    for flag, precision in ((options.bf16, "bf16"), (options.fp16, "fp16")):
        if flag is not None:
            changes.setdefault("model.precision", precision if flag else "fp32")
    if options.bf16 and options.fp16:
        raise ConfigError("--bf16 and --fp16: give one of them")
    if options.fp16:
        changes["model.precision"] = "fp16"
    if options.input_format:
        changes["prompt.template"] = FORMATS[options.input_format]
    if options.with_tracking is not None:
        tracked = changes.get("logging.report_to", "all")
        changes["logging.report_to"] = tracked if options.with_tracking else ()
    # The recipe's way of saying it gives way to the command line's.
    if "schedule.warmup_steps" in changes:
        changes.setdefault("schedule.warmup_ratio", 0.0)
    if "schedule.warmup_ratio" in changes:
        changes.setdefault("schedule.warmup_steps", 0)
    return changes


def _refuse_idle(recipe: Recipe, values: Mapping[str, Any]) -> None:
    """Raise ConfigError for options that would change nothing."""
    for option in (*COMMON, *LISTWISE):
        if values.get(option.path) in (None, False):
            continue
        section = option.path.partition(".")[0]
        if section == "lora" and not recipe.lora.enabled:
            raise ConfigError(f"{option.names[0]}: has no effect without --lora")
        if section == "evaluation" and not recipe.data.eval:
            raise ConfigError(f"{option.names[0]}: has no effect without --eval-dataset-path")
        is_of_ranking = option.path in ("objective.ranking_loss", "objective.weighted")
        if is_of_ranking and recipe.objective_name == "generation":
            raise ConfigError(f"{option.names[0]}: has no effect with --objective generation; use ranking or combined")
        if option.path == "objective.ranking_weight" and recipe.objective_name != "combined":
            raise ConfigError(f"{option.names[0]}: has no effect without --objective combined")
