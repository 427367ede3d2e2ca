"""Modes of `rerank` without a run over many queries: ranking a single query and estimating costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import EXIT_SOME_FAILED, say
from rankllm_infer.cli.rerank.options import RerankCommand
from rankllm_infer.console import SCREEN, costs_table, result_json, result_table
from rankllm_infer.jobs.costs import estimate_costs
from rankllm_infer.jobs.fingerprint import check_requests
from rankllm_infer.jobs.outputs import OutputFiles, open_outputs
from rankllm_infer.jobs.rerank import load_model
from rankllm_infer.plan import plan_reranking

if TYPE_CHECKING:
    from rankllm_core.types import Request


def one_query(
    asked: RerankCommand,
    files: OutputFiles,
    requests: Iterable[Request],
    *,
    sources: Sequence[str | Path],
    loading: str,
) -> int:
    """Rank a single request and print the result. Returns the exit status.

    sources: input files, which must not be overwritten. loading: message shown while the model loads.
    """
    for path in files.paths():
        check_output(path, overwrite=asked.outputs.overwrite)
        for source in sources:
            refuse_same_file(source, path)
    (request,) = requests
    check_requests([request], files, strict=False)
    say(loading)
    with load_model(plan_reranking(asked.model, asked.options), SCREEN) as reranker:
        (result,) = reranker.rerank([request])
    if result.status == "failed":
        say(f"Error: {result.error}")
        return EXIT_SOME_FAILED
    if files.paths():
        with open_outputs(files) as writer:
            writer.write(result)
    click.echo(result_json(result) if asked.outputs.as_json else result_table(result, request))
    return 0


def count_costs(asked: RerankCommand, requests: Iterable[Request]) -> int:
    """Print the estimated cost of the run. Returns the exit status."""
    outputs, plan = asked.outputs, plan_reranking(asked.model, asked.options)
    for warning in plan.warnings:
        say(f"Warning: {warning}")
    counted = SCREEN.counted(requests, "count prompts", unit=" queries")
    # Requests are read once per strategy; a file-backed input can be re-read, this counted one cannot.
    requests = list(counted) if outputs.all_strategies else counted
    costs = estimate_costs(plan, requests, all_strategies=outputs.all_strategies)
    prices = None
    if outputs.price_in is not None or outputs.price_out is not None:
        prices = (outputs.price_in or 0.0, outputs.price_out or 0.0)
    click.echo(costs_table(costs, prices=prices, is_exact=plan.files is not None))
    return 0
