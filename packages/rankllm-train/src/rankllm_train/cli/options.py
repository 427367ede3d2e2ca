"""Command-line changes to a recipe: from the options in `recipe_table` to the effective recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.decorators import FC

from rankllm_core.command_line import NAME
from rankllm_core.errors import ConfigError
from rankllm_train.cli.recipe_table import (
    COMMON,
    FORMATS,
    LISTWISE,
    RecipeOption,
)
from rankllm_train.recipe.recipe import Recipe, load_recipe, parse_setting

_PREFIX = "recipe__"


def key_of(path: str) -> str:
    """Return the parameter name of the option that sets this recipe value."""
    return _PREFIX + path.replace(".", "__")


def recipe_options(options: Sequence[RecipeOption]) -> Callable[[FC], FC]:
    """Decorate a command with a table's options. click gets no defaults: unspecified values come from the recipe."""

    def decorate(command: FC) -> FC:
        for option in reversed(options):
            names = [f"{n}/--no-{n.removeprefix('--')}" if option.kind is bool else n for n in option.names]
            kind = {} if option.kind is bool else {"type": option.kind}
            command = click.option(*names, key_of(option.path), default=None, help=option.help_text, **kind)(command)
        return command

    return decorate


def shared_options(command: FC) -> FC:
    """Decorate a command with options that set several recipe values."""
    for decorate in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Set any recipe value. Can be repeated.",
        ),
        click.option(
            "--with-tracking/--no-with-tracking",
            default=None,
            help="Report to all installed experiment trackers, or to those in --report-to.",
        ),
        click.option("--fp16/--no-fp16", default=None, help="Compute in float16; --no-fp16: in float32."),
        click.option("--bf16/--no-bf16", default=None, help="Compute in bfloat16; --no-bf16: in float32."),
        click.option(
            "--recipe", type=NAME, help="Recipe to start from: a name listed by `train recipes`, or a YAML file."
        ),
    ):
        command = decorate(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeOptions:
    """Recipe values set on the command line; None for unspecified ones."""

    recipe: str | None = None
    """Recipe name or file."""
    values: Mapping[str, Any]
    """`section.key` -> value, for each specified table option."""
    settings: tuple[str, ...] = ()
    """Arguments of `--set`."""
    bf16: bool | None = None
    fp16: bool | None = None
    input_format: str | None = None
    with_tracking: bool | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RecipeOptions:
        """Split a command's parameters into options of the table and the rest."""
        values = {
            key.removeprefix(_PREFIX).replace("__", "."): value
            for key, value in given.items()
            if key.startswith(_PREFIX) and value is not None
        }
        names = ("recipe", "settings", "bf16", "fp16", "input_format", "with_tracking")
        return cls(values=values, **{name: given[name] for name in names if name in given})

    @property
    def changes_something(self) -> bool:
        """Whether any option was given besides the recipe name."""
        switches = (self.bf16, self.fp16, self.input_format, self.with_tracking)
        return bool(self.values or self.settings) or any(value is not None for value in switches)


def resolve_recipe(method: str, options: RecipeOptions) -> Recipe:
    """Return the effective recipe: the named one, overridden by the options, then by `--set`. Raises ConfigError."""
    base = load_recipe(options.recipe) if options.recipe else Recipe(method=method)
    if base.method != method:
        raise ConfigError(f"--recipe {options.recipe}: it is a recipe for `train {base.method}`, not `train {method}`")
    recipe = base.changed(_overrides(options), where="")
    recipe = recipe.changed(dict(parse_setting(text) for text in options.settings), where="--set ")
    _refuse_idle(recipe, options.values)
    return recipe


def _overrides(options: RecipeOptions) -> dict[str, object]:
    """`section.key` -> value of the options that were given."""
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
    # The command line replaces the recipe's warm-up, whichever of the two keys states it.
    if "schedule.warmup_steps" in changes:
        changes.setdefault("schedule.warmup_ratio", 0.0)
    if "schedule.warmup_ratio" in changes:
        changes.setdefault("schedule.warmup_steps", 0)
    return changes


def _refuse_idle(recipe: Recipe, values: Mapping[str, Any]) -> None:
    """Raise ConfigError for options that have no effect."""
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
