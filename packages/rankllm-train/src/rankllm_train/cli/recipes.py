"""`train recipes`."""

from __future__ import annotations

from typing import Any

import click

from rankllm_train.cli import SETTINGS
from rankllm_train.cli.options import COMMON, LISTWISE, POINTWISE, recipe_options, resolve_recipe, shared_options
from rankllm_train.cli.path_types import NAME
from rankllm_train.recipe.recipe import load_recipe, recipe_differences, recipe_names, recipe_text

_TAKEN = {option.path for option in (*COMMON, *LISTWISE)}
_REST = tuple(option for option in POINTWISE if option.path not in _TAKEN)


@click.command("recipes", context_settings=SETTINGS)
@click.argument("name", type=NAME, required=False)
@shared_options
@recipe_options((*COMMON, *LISTWISE, *_REST))
def command(name: str | None, **given: Any) -> None:
    """List the recipes, print one in full, or show what options change in it."""
    name = name or given["recipe"]
    if name is None:
        for known in recipe_names():
            click.echo(f"{known:20} {load_recipe(known).description}")
        return
    base = load_recipe(name)
    changes = recipe_differences(base, resolve_recipe(base.method, given | {"recipe": name}))
    if changes or any(value not in (None, ()) for key, value in given.items() if key != "recipe"):
        for path, (old, new) in changes.items():
            click.echo(f"{path}: {old!r} -> {new!r}")
    else:
        click.echo(recipe_text(name) if name in recipe_names() else _shown(base), nl=False)


def _shown(recipe: Any) -> str:
    import yaml

    return yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=120)
