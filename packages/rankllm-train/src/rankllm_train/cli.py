"""The command line of rankllm-train."""

from __future__ import annotations

from typing import NoReturn

import click

from rankllm_train import __version__

COMING = "training arrives with the next release; until then, rerank with published checkpoints: rankllm-infer rerank"


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Whatever is asked for, the answer is that it is coming, not that its options are wrong.
        "ignore_unknown_options": True,
        "allow_extra_args": True,
    }
)
@click.version_option(__version__, prog_name="rankllm-train")
def command() -> NoReturn:
    """Fine-tune LLM rerankers.

    Listwise: RankZephyr (generation) and FIRST (first-token logits). Pointwise: RankLLaMA. Nothing of this is here yet:
    training arrives with the next release. `rankllm-infer` reranks today.
    """
    raise click.ClickException(COMING)


def main() -> NoReturn:
    """Run the program; `train`, `rankllm-train` and `python -m rankllm_train` are the same."""
    command()
