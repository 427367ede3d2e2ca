"""Command line of rankllm-infer. Subcommands are imported only when called, which keeps `--help` fast."""

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
    "retrieve": "Retrieve candidates for queries: the first stage.",
    "prepare": "Join a first-stage run with its query and passage texts.",
    "rerank": "Rerank candidates with a language model.",
    "serve": "Serve a reranker over HTTP.",
    "calibrate": "Measure the positional bias of a FIRST model.",
    "mcp": "Serve a reranker to MCP clients: desktop applications and agents.",
    "convert": "Convert between runs, results and request files.",
    "evaluate": "Evaluate runs against relevance judgements with trec_eval's measures.",
    "compare": "Compare runs with a baseline: confidence intervals and significance tests.",
    "report": "Explain a ranking, query by query, in an HTML page.",
    "models": "List the models that work without further options, or describe one.",
    "prompts": "List prompt templates, or show the prompts that a model sees.",
    "probe": "Record a model's scores for a few prompts, to detect a wrong model on loading.",
    "doctor": "Report which engines and devices work on this machine, and verify a model.",
    "demo": "Rerank an embedded collection with a bundled reranker.",
}
SETTINGS = COMMON_SETTINGS | {"show_default": True}


@click.group(
    cls=LazyGroup,
    package="rankllm_infer.cli",
    summaries=COMMANDS,
    modules={"probe": "doctor"},
    originals="rankllm_infer.cli.originals",
    context_settings=SETTINGS,
)
@click.version_option(__version__, prog_name="rankllm-infer")
def cli() -> None:
    """Rerank search results with large language models.

    To try it: `rankllm-infer demo`. For your own data: `retrieve`, `rerank`, `evaluate`.
    """


def main() -> NoReturn:
    """Run the program. User errors are printed as one line; bugs keep their traceback."""
    # Future changes in transformers concern developers, not users.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    run_program(cli)
