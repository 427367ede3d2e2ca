"""`train recipes`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from rankllm_core.command_line import NAME
from rankllm_train.cli import SETTINGS
from rankllm_train.cli.grouped_help import RECIPE_GROUPS, GroupedCommand
from rankllm_train.cli.options import RecipeOptions, recipe_options, resolve_recipe, shared_options
from rankllm_train.cli.recipe_table import COMMON, LISTWISE, POINTWISE
from rankllm_train.recipe.recipe import Recipe, load_recipe, recipe_differences, recipe_names, recipe_text

_TAKEN = {option.path for option in (*COMMON, *LISTWISE)}
_REST = tuple(option for option in POINTWISE if option.path not in _TAKEN)


@click.command("recipes", cls=GroupedCommand, groups=RECIPE_GROUPS, context_settings=SETTINGS)
@click.argument("name", type=NAME, required=False)
@shared_options
@recipe_options((*COMMON, *LISTWISE, *_REST))
def command(name: str | None, **given: Any) -> None:
    """List the bundled recipes, print one in full, or preview the values that the specified options change in it."""
    options = RecipeOptions.of(given)
    name = name or options.recipe
    if name is None:
        for known in recipe_names():
            click.echo(f"{known:20} {load_recipe(known).description}")
        return
    base = load_recipe(name)
    changes = recipe_differences(base, resolve_recipe(base.method, replace(options, recipe=name)))
    if changes or options.changes_something:
        for path, (old, new) in changes.items():
            click.echo(f"{path}: {old!r} -> {new!r}")
    else:
        click.echo(recipe_text(name) if name in recipe_names() else _shown(base), nl=False)


def _shown(recipe: Recipe) -> str:
    import yaml

    return yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=120)
