"""`train merge`."""

from __future__ import annotations

import click

from rankllm_train.cli import SETTINGS
from rankllm_train.cli.path_types import NAME


@click.command("merge", context_settings=SETTINGS)
@click.argument("adapter", type=NAME)
@click.argument("out", type=NAME)
@click.option(
    "--base-model", type=NAME, help="Folder or hub name of the base model, in place of the one that the adapter names."
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the merged weights; auto: the base model's. The sum is taken in float32.",
)
def command(adapter: str, out: str, base_model: str | None, dtype: str) -> None:
    """Merge the LoRA adapter in folder ADAPTER into its base and write the whole model, with its card, to OUT."""
    from rankllm_train.artifacts.merge import merge

    click.echo(merge(adapter, out, base_model=base_model, dtype=dtype))
