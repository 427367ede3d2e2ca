"""The command line of rankllm-infer. Subcommands are imported when they are called, so that `--help` is quick."""

from __future__ import annotations

import warnings
from typing import NoReturn

import click

from rankllm_core.command_line import EXIT_SOME_FAILED as EXIT_SOME_FAILED
from rankllm_core.command_line import SETTINGS as COMMON_SETTINGS
from rankllm_core.command_line import LazyGroup, run_program
from rankllm_core.command_line import say as say
from rankllm_infer import __version__

COMMANDS = {
    "retrieve": "Find candidates: the first stage.",
    "prepare": "Join a first-stage run with queries and passages.",
    "rerank": "Rerank candidates with a language model.",
    "serve": "Serve a reranker over HTTP.",
    "calibrate": "Measure what a FIRST model adds to each identifier, whatever passage it calls.",
    "mcp": "Serve a reranker to MCP clients: desktop applications and agents.",
    "convert": "Turn runs, results and request files into one another.",
    "evaluate": "Score runs against judgements, as trec_eval does.",
    "compare": "Set runs side by side: intervals, significance, queries won and lost.",
    "report": "Explain a ranking: one HTML page, query by query.",
    "models": "List the models that need no flags, or print everything about one.",
    "prompts": "List prompt templates, or show what a model will see.",
    "probe": "Record what a model answers to a few prompts, so that a wrong one is noticed.",
    "doctor": "Say which engines and devices work here, and verify a model.",
    "demo": "Rerank an embedded collection with an embedded model.",
}
SETTINGS = COMMON_SETTINGS | {"show_default": True}


@click.group(
    cls=LazyGroup,
    package="rankllm_infer.cli",
    summaries=COMMANDS,
    modules={"probe": "doctor"},
    context_settings=SETTINGS,
)
@click.version_option(__version__, prog_name="rankllm-infer")
def cli() -> None:
    """Rerank with large language models.

    First steps: `rankllm-infer demo`. Your own data: `retrieve`, `rerank`, `evaluate`.
    """


def main() -> NoReturn:
    """Run the program. Errors of the user are one line; bugs keep their traceback."""
    # What transformers will change one day is for programmers.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    run_program(cli)
