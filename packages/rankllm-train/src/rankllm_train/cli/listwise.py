"""`train listwise`."""

from __future__ import annotations

from typing import Any

import click

from rankllm_train.cli import SETTINGS
from rankllm_train.cli.options import COMMON, LISTWISE, recipe_options, shared_options
from rankllm_train.cli.running import run, run_options


@click.command("listwise", context_settings=SETTINGS)
@shared_options
@recipe_options((*COMMON, *LISTWISE))
@run_options
def command(**given: Any) -> None:
    """Train a listwise reranker: it reads a window of passages and gives their order.

    Values come from the recipe, then from the options, then from --set.
    """
    run("listwise", given)
