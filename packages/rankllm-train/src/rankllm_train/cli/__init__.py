"""Command line of rankllm-train. Subcommands are imported only when called, which keeps `--help` fast."""

from __future__ import annotations

import os
from typing import NoReturn

import click

from rankllm_core.command_line import SETTINGS as SETTINGS
from rankllm_core.command_line import LazyGroup, run_program
from rankllm_core.command_line import say as say
from rankllm_train import __version__

COMMANDS = {
    "listwise": "Train a listwise reranker (RankZephyr, FIRST).",
    "pointwise": "Train a pointwise reranker (RankLLaMA, cross-encoders).",
    "recipes": "List recipes, print a recipe, or preview the effect of options.",
    "mine": "Mine hard negatives from a first-stage run and write pointwise records.",
    "label": "Label windows with relevance judgements or reranker results and write listwise records.",
    "split": "Split records into training and dev sets without leakage.",
    "check-data": "Validate a training file record by record.",
    "merge": "Merge a LoRA adapter into its base model.",
}
MODULES = {"listwise": "training", "pointwise": "training", "merge": "training"}
"""Commands whose module is not named after the command."""
DEFAULT_COMMAND = "listwise"
_OWN_OPTIONS = ("-h", "--help", "--version")


class TrainGroup(LazyGroup):
    """Command group that runs `listwise` for options without a command, or `pointwise` for tevatron options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the intended command before options that do not belong to the group."""
        if args and args[0].startswith("--local_rank="):
            # Added by DeepSpeed's launcher in front of the user's arguments. The environment variables carry the same
            # rank.
            args = args[1:]
        if args and args[0].startswith("-") and args[0] not in _OWN_OPTIONS:
            from rankllm_train.cli.originals import tevatron_command

            words = tevatron_command(args)
            if words and os.environ.get("RANK", "0") == "0":
                say(f"Options of tevatron: running `train {' '.join(words)}`; unspecified values come from the recipe")
            args = [*(words or [DEFAULT_COMMAND]), *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=TrainGroup,
    package="rankllm_train.cli",
    summaries=COMMANDS,
    modules=MODULES,
    originals="rankllm_train.cli.originals",
    context_settings=SETTINGS,
)
@click.version_option(__version__, prog_name="rankllm-train")
def cli() -> None:
    """Fine-tune large language models as rerankers.

    To get started, run `train recipes`. `train OPTIONS` without a command means `train listwise OPTIONS` or, with
    tevatron options such as --train-n-passages, `train pointwise --recipe rankllama OPTIONS`.
    """


def main() -> NoReturn:
    """Run the program. User errors are printed as one line; bugs keep their traceback."""
    run_program(cli)
