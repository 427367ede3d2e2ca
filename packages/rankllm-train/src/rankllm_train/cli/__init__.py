"""The command line of rankllm-train. Subcommands are imported when they are called, so that `--help` is quick."""

from __future__ import annotations

from typing import NoReturn

import click

from rankllm_core.command_line import SETTINGS as SETTINGS
from rankllm_core.command_line import LazyGroup, run_program
from rankllm_core.command_line import say as say
from rankllm_train import __version__

COMMANDS = {
    "listwise": "Train a listwise reranker: RankZephyr, FIRST.",
    "pointwise": "Train a pointwise reranker: RankLLaMA.",
    "recipes": "List the recipes, print one, show what options change.",
    "mine": "Make pointwise records: hard negatives from a first-stage run.",
    "label": "Make listwise records: from judgements, or from a reranker's results.",
    "split": "Split records into train and dev, without a leak.",
    "check-data": "Check a listwise training file record by record.",
    "merge": "Merge a LoRA adapter into its base model.",
}
MODULES = {"listwise": "training", "pointwise": "training", "merge": "training"}
"""Commands that share a module."""
DEFAULT_COMMAND = "listwise"
_OWN_OPTIONS = ("-h", "--help", "--version")


class TrainGroup(LazyGroup):
    """A group that takes options without a command for `listwise`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before options that are not the group's own."""
        if args and args[0].startswith("--local_rank="):
            # From DeepSpeed's launcher, before all that the user wrote. The environment says the same.
            args = args[1:]
        if args and args[0].startswith("-") and args[0] not in _OWN_OPTIONS:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=TrainGroup, package="rankllm_train.cli", summaries=COMMANDS, modules=MODULES, context_settings=SETTINGS
)
@click.version_option(__version__, prog_name="rankllm-train")
def cli() -> None:
    """Fine-tune large language models as rerankers.

    First steps: `train recipes`. `train OPTIONS` without a command is `train listwise OPTIONS`.
    """


def main() -> NoReturn:
    """Run the program. Errors of the user are one line; bugs keep their traceback."""
    run_program(cli)
