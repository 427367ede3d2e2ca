"""`rankllm-infer calibrate`: what a FIRST model makes of each identifier, whatever passage it calls."""

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
    """One command line of `calibrate`."""

    model: str
    requests: StoredRequests
    seed: int
    """Of the windows: what is shown is shuffled before it is a request."""
    output: Path | None
    overwrite: bool
    options: RerankOptions


def read_command(given: Mapping[str, Any]) -> CalibrateCommand:
    """The command line as one value. Raises UsageError where it does not go together."""
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
    changed(_INPUT["requests"], default=MISSING, text="Requests to measure with, JSONL. No judgements are needed."),
    changed(_ROWS["top_k_candidates"], least=2, default_text="all", text="Number of candidates per query to show."),
    changed(_INPUT["max_queries"], text="Maximum number of queries to measure with."),
    *select(ModelArguments),
    *(row for row in select(RerankOptions) if row.option.group in ("Model", *ENGINE_GROUPS)),
    *select(DtypeSwitches),
    *select(RerankOptions, "template", "use_alpha", "context_size", "max_passage_words", "use_logits"),
    changed(_ROWS["window_size"], least=2),
    changed(_ROWS["seed"], text="Random seed for the windows."),
    changed(_OUTPUT["output"], flags=("--output",), text="Measured prior, for `rerank --identifier-prior`."),
    changed(_OUTPUT["overwrite"], text="Replace an existing output."),
)
def command(**given: Any) -> None:
    """Measure the place bias of a FIRST model: what it adds to [A], [B], ... whatever passage stands there.

    Each query's candidates are shown in windows drawn by lot, where the passages of each place are alike on the
    average. `rerank --identifier-prior FILE` takes off what is found; in a model's rankllm.yaml the line
    `identifier_prior` does so always.
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
        say("Warning: the standard errors are large beside the spread of the logits; give more queries")
    if output is not None:
        import yaml

        with write_text(output) as stream:
            yaml.safe_dump(prior_to_dict(prior, model=asked.model), stream, sort_keys=False, width=120)
        say(f"Wrote {output}: rerank --identifier-prior {output} takes it off")


def _measure(asked: CalibrateCommand) -> tuple[ListwiseCard, IdentifierPrior]:
    """Ask the windows. Raises ConfigError where the model is no FIRST one."""
    from rankllm_core.card import ListwiseCard
    from rankllm_infer.api import load_reranker
    from rankllm_infer.plan import plan_reranking
    from rankllm_infer.ranking.identifier_prior import measure_prior

    model, options = asked.model, asked.options
    card = plan_reranking(model, options).card.card
    if not isinstance(card, ListwiseCard) or card.answer != "first-token":
        raise ConfigError(
            f"{model}: is not read by its identifiers' logits, as FIRST is; there is nothing to measure "
            "(--use-logits reads a listwise model so)"
        )
    windows = _windows(asked, size=card.window_size)
    say(f"Loading {model} ...")
    raw = replace(options, identifier_prior=())
    bar = counter("calibrate", unit="window", total=len(windows), delay_s=0.0)
    with load_reranker(model, raw) as reranker, bar as show:
        for warning in reranker.warnings:
            # The stride is ours: windows drawn by lot do not overlap. The card's prior is what is measured anew.
            if not warning.startswith(("--stride:", "--identifier-prior:")):
                say(f"Warning: {warning}")
        n_read = itertools.count(1)
        results = list(reranker.stream(windows, on_finished=lambda result: show(next(n_read))))
    return card, measure_prior(list(_scores(results)))


def _windows(asked: CalibrateCommand, *, size: int) -> list[Request]:
    """Each query's candidates in windows drawn by lot. Raises RankLLMError where they are too few."""
    from rankllm_infer.ranking.identifier_prior import FEWEST_WINDOWS, shuffled_windows

    windows = [window for request in asked.requests for window in shuffled_windows(request, size=size, seed=asked.seed)]
    if len(windows) < FEWEST_WINDOWS:
        raise RankLLMError(
            f"{asked.requests.path}: {count(len(windows), 'window')} of {size} candidates of a query, "
            f"expected {FEWEST_WINDOWS} at least; give more queries, or more candidates of each"
        )
    return windows


def _scores(results: Sequence[Result]) -> Iterator[tuple[float, ...]]:
    """The logits of each window's identifiers, in their order. What could not be read whole is left out, and said."""
    bad = [result for result in results if result.status != "ok"]
    if bad:
        qid, _, number = bad[0].query.qid.rpartition("/")
        why = bad[0].error or "; ".join(bad[0].defects)
        say(f"Warning: {count(len(bad), 'window')} left out; query {qid!r}, window {int(number) + 1}: {why}")
    for result in results:
        if result.status == "ok" and result.trace[0].scores:
            yield result.trace[0].scores


def _table(prior: IdentifierPrior, labels: Sequence[str]) -> Iterator[str]:
    """A line an identifier."""
    yield f"{'':>6}  {'prior':>7}  {'standard error':>14}"
    for label, mean, error in zip(labels, prior.means, prior.errors, strict=True):
        yield f"{f'[{label}]':>6}  {mean:+7.2f}  {error:14.2f}"
    yield f"{count(prior.n_windows, 'window')}; within one, the logits' standard deviation is {prior.spread:.2f}"
