"""`rankllm-infer calibrate`: measure the positional bias of a FIRST model, per identifier."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.files import check_output, refuse_same_file, write_text
from rankllm_infer.cli import SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank.command import given_options
from rankllm_infer.cli.rerank.options import DtypeSwitches, ModelArguments, RerankInput, RerankOutput
from rankllm_infer.console import counter
from rankllm_infer.option_table import ENGINE_GROUPS, changed, rows_of
from rankllm_infer.options import RerankOptions
from rankllm_infer.watching import count

if TYPE_CHECKING:
    from rankllm_core.card import ListwiseCard
    from rankllm_core.types import Request, Result
    from rankllm_infer.jobs.fingerprint import StoredRequests
    from rankllm_infer.ranking.identifier_prior import IdentifierPrior

_ROWS, _INPUT, _OUTPUT = (rows_of(owner) for owner in (RerankOptions, RerankInput, RerankOutput))


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateCommand:
    """Parsed command line of `calibrate`."""

    model: str
    requests: StoredRequests
    seed: int
    """Random seed for shuffling candidates into windows."""
    output: Path | None
    overwrite: bool
    options: RerankOptions


def read_command(given: Mapping[str, Any]) -> CalibrateCommand:
    """Parse the command line into one value. Raises UsageError for options that contradict each other."""
    from rankllm_infer.jobs.fingerprint import StoredRequests

    options = given_options({name: value for name, value in given.items() if name != "seed"})
    return CalibrateCommand(
        model=given["model_path"],
        requests=StoredRequests(
            given["requests"], is_pairs=False, max_queries=given["max_queries"], depth=given["top_k_candidates"]
        ),
        seed=_ROWS["seed"].default if given["seed"] is None else given["seed"],
        output=given["output"],
        overwrite=bool(given["overwrite"]),
        options=replace(options, stride=given["window_size"], with_trace=True),
    )


@click.command("calibrate", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(
    changed(
        _INPUT["requests"], default=MISSING, text="Requests to measure on (JSONL). No relevance judgements are needed."
    ),
    changed(_ROWS["top_k_candidates"], least=2, default_text="all", text="Number of candidates per query to use."),
    changed(_INPUT["max_queries"], text="Maximum number of queries to measure on."),
    *select(ModelArguments),
    *(row for row in select(RerankOptions) if row.option.group in ("Model", *ENGINE_GROUPS)),
    *select(DtypeSwitches),
    *select(RerankOptions, "template", "use_alpha", "context_size", "max_passage_words", "use_logits"),
    changed(_ROWS["window_size"], least=2),
    changed(_ROWS["seed"], text="Random seed for shuffling candidates into windows."),
    changed(
        _OUTPUT["output"],
        flags=("--output",),
        text="File for the measured bias, for use with `rerank --identifier-prior`.",
    ),
    changed(_OUTPUT["overwrite"], text="Replace an existing output."),
)
def command(**given: Any) -> None:
    """Measure the positional bias of a FIRST model: per-identifier logit offsets, independent of the passages.

    Each query's candidates are shown in randomly shuffled windows, so that every position sees equally relevant
    passages on average. `rerank --identifier-prior FILE` subtracts the measured bias; to subtract it by default, add
    `identifier_prior` to the model's rankllm.yaml.
    """
    from rankllm_core.types import identifiers
    from rankllm_infer.ranking.identifier_prior import prior_to_dict

    asked = read_command(given)
    output = asked.output
    if output is not None:
        check_output(output, overwrite=asked.overwrite)
        refuse_same_file(asked.requests.path, output)
    card, prior = _measure(asked)
    for line in _table(prior, identifiers(card.identifiers, card.window_size)):
        click.echo(line)
    if prior.is_vague:
        say("Warning: the standard errors are large relative to the spread of the logits; use more queries")
    if output is not None:
        import yaml

        with write_text(output) as stream:
            yaml.safe_dump(prior_to_dict(prior, model=asked.model), stream, sort_keys=False, width=120)
        say(f"Wrote {output}; to subtract it: rerank --identifier-prior {output}")


def _measure(asked: CalibrateCommand) -> tuple[ListwiseCard, IdentifierPrior]:
    """Run the model on shuffled windows. Raises ConfigError if the model is not a FIRST model."""
    from rankllm_core.card import ListwiseCard
    from rankllm_infer.api import start_reranker
    from rankllm_infer.plan import plan_reranking
    from rankllm_infer.ranking.identifier_prior import measure_prior

    model, options = asked.model, asked.options
    card = plan_reranking(model, options).card.card
    if not isinstance(card, ListwiseCard) or card.answer != "first-token":
        raise ConfigError(
            f"{model}: is not a FIRST model, which ranks by the logits of its identifiers; nothing to measure "
            "(--use-logits applies FIRST to a listwise model)"
        )
    windows = _windows(asked, size=card.window_size)
    say(f"Loading {model} ...")
    raw = replace(options, identifier_prior=())
    bar = counter("calibrate", unit="window", total=len(windows), delay_s=0.0)
    with start_reranker(plan_reranking(model, raw)) as reranker, bar as show:
        for warning in reranker.warnings:
            # The stride is set here: shuffled windows do not overlap. The card's prior is what is being remeasured.
            if not warning.startswith(("--stride:", "--identifier-prior:")):
                say(f"Warning: {warning}")
        n_read = itertools.count(1)
        results = list(reranker.stream(windows, on_finished=lambda result: show(next(n_read))))
    return card, measure_prior(list(_scores(results)))


def _windows(asked: CalibrateCommand, *, size: int) -> list[Request]:
    """Shuffle each query's candidates into windows. Raises RankLLMError if there are too few windows."""
    from rankllm_infer.ranking.identifier_prior import FEWEST_WINDOWS, shuffled_windows

    windows = [window for request in asked.requests for window in shuffled_windows(request, size=size, seed=asked.seed)]
    if len(windows) < FEWEST_WINDOWS:
        raise RankLLMError(
            f"{asked.requests.path}: found {count(len(windows), 'window')} of {size} candidates each, "
            f"expected at least {FEWEST_WINDOWS}; use more queries or more candidates per query"
        )
    return windows


def _scores(results: Sequence[Result]) -> Iterator[tuple[float, ...]]:
    """Yield the identifiers' logits of each window, in identifier order; skip incomplete windows with a warning."""
    bad = [result for result in results if result.status != "ok"]
    if bad:
        qid, _, number = bad[0].query.qid.rpartition("/")
        why = bad[0].error or "; ".join(bad[0].defects)
        say(f"Warning: {count(len(bad), 'window')} skipped; first: query {qid!r}, window {int(number) + 1}: {why}")
    for result in results:
        if result.status == "ok" and result.trace[0].scores:
            yield result.trace[0].scores


def _table(prior: IdentifierPrior, labels: Sequence[str]) -> Iterator[str]:
    """Format the prior, one line per identifier."""
    yield f"{'':>6}  {'prior':>7}  {'standard error':>14}"
    for label, mean, error in zip(labels, prior.means, prior.errors, strict=True):
        yield f"{f'[{label}]':>6}  {mean:+7.2f}  {error:14.2f}"
    yield f"{count(prior.n_windows, 'window')}; standard deviation of the logits within a window: {prior.spread:.2f}"
