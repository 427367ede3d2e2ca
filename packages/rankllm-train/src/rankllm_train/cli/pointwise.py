"""`train pointwise`."""

from __future__ import annotations

from typing import Any

import click

from rankllm_train.cli import SETTINGS
from rankllm_train.cli.options import COMMON, FORMATS, POINTWISE, recipe_options, shared_options
from rankllm_train.cli.running import run, run_options


@click.command("pointwise", context_settings=SETTINGS)
@shared_options
@recipe_options((*COMMON, *POINTWISE))
@click.option("--input-format", type=click.Choice(list(FORMATS)), help="v1: as published; v2: tevatron's later one.")
@run_options
def command(**given: Any) -> None:
    """Train a pointwise reranker: it reads one passage and gives it a score.

    Values come from the recipe, then from the options, then from --set.
    """
    run("pointwise", given)
