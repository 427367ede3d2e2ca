"""`rankllm-infer doctor` and `probe`: diagnose this machine, and verify that a model matches its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rankllm_infer.cli import SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank.command import given_options
from rankllm_infer.cli.rerank.options import DtypeSwitches, ModelArguments, RerankOutput
from rankllm_infer.option_table import ENGINES, LOCAL, Row, changed, rows_of
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_core.probe import Comparison, Probe
    from rankllm_infer.api import Reranker

_OUTPUT = rows_of(RerankOutput)


def _is_local(row: Row) -> bool:
    """Return whether the option selects the local model or how it is run."""
    is_of_model = row.option.group == "Model" or row.option.group.startswith("Engine")
    return is_of_model and row.name != "verify" and bool({*LOCAL} & {*row.option.engines})


_LOCAL_MODEL = tuple(
    changed(
        row, engines=ENGINES if row.option.engines == LOCAL else row.option.engines
    )  # these commands offer no other engine
    if row.name != "engine"
    else changed(row, choices=LOCAL, text="Inference engine.")
    for row in (*select(RerankOptions), *select(DtypeSwitches))
    if _is_local(row)
)
_PROMPT = ("template", "use_alpha", "use_logits", "context_size", "max_passage_words", "window_size", "stride")


@click.command("doctor", cls=GroupedCommand, context_settings=SETTINGS)
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object.")
@row_options(
    changed(rows_of(ModelArguments)["model_path"], default=None, text="Model to load and verify against its probe."),
    *_LOCAL_MODEL,
)
def command(*, as_json: bool, **given: Any) -> int:
    """Report which engines, devices and packages work on this machine, and how to install the missing ones.

    With --model-path, also load a model as `rerank` does and rescore the probe in its card: a few prompts with their
    recorded scores.

    Exit status: 0 success, 1 error or scores that differ from the recorded ones, 2 wrong usage.
    """
    from rankllm_core.files import dumps
    from rankllm_infer.diagnosis import examine

    if given["model_path"] is None:
        _refuse_without_model(given)
        found = examine()
        click.echo(dumps(found.to_dict()) if as_json else "\n".join(found.lines()))
        return 0
    options = replace(_options(given), verify=False)
    with _loaded(given["model_path"], options) as reranker:
        comparison, where = reranker.verify(), reranker.description
    found = examine()
    if as_json:
        click.echo(dumps(found.to_dict() | {"model": {"description": where, **_record(comparison)}}))
    else:
        click.echo("\n".join([*found.lines(), "", "Model", f"  {where}", f"  {_outcome(comparison)}"]))
    return 0 if comparison is None or comparison.agrees else 1


@click.command("probe", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(
    *select(ModelArguments),
    *_LOCAL_MODEL,
    *select(RerankOptions, *_PROMPT, "q_max_len", "p_max_len"),
    changed(
        _OUTPUT["output"],
        flags=("--output",),
        text="File for the card with the probe, to be stored next to the weights as rankllm.yaml.",
    ),
    changed(_OUTPUT["overwrite"], text="Replace an existing output or, with --write, the card's existing probe."),
)
@click.option("--write/--no-write", default=False, help="Add the probe to rankllm.yaml in the model's folder.")
def probe(*, write: bool, **given: Any) -> None:
    """Record a model's scores for a few short prompts in its card, so that a wrong model is detected on loading.

    `rerank` rescores the probe when it loads the model and warns if the scores differ, which reveals a wrong base
    model, adapter, template, BOS rule, quantization or score head. `train` records a probe with each checkpoint; this
    command adds one to any other model, as it is currently loaded and prompted.
    """
    from rankllm_infer.plan import plan_reranking
    from rankllm_infer.probing import card_file, write_card

    model, output, overwrite = str(given["model_path"]), given["output"], bool(given["overwrite"])
    if write and output is not None:
        raise click.UsageError("--write and --output contradict each other; give one of them")
    options = replace(_options(given), verify=False)
    card = plan_reranking(model, options).card.card
    target = card_file(model, card, output=output, write=write, overwrite=overwrite)
    with _loaded(model, options) as reranker:
        found = reranker.record_probe()
    for line in _table(found):
        click.echo(line)
    if target is not None:
        write_card(replace(card, probe=found), target)
        say(f"Wrote {target}" + ("" if write else "; store it next to the model's weights as rankllm.yaml"))


def _options(given: Mapping[str, Any]) -> RerankOptions:
    """Build RerankOptions from the command line; prompt options that the command lacks keep their defaults."""
    return given_options({"template": None, **given})


def _refuse_without_model(given: Mapping[str, Any]) -> None:
    for row in _LOCAL_MODEL:
        if given.get(row.name) not in (None, ()):
            raise click.UsageError(f"{row.spelled} has no effect without --model-path")


def _loaded(model: str, options: RerankOptions) -> Reranker:
    from rankllm_infer.api import start_reranker
    from rankllm_infer.plan import plan_reranking

    say(f"Loading {model} ...")
    reranker = start_reranker(plan_reranking(model, options))
    for warning in reranker.warnings:
        say(f"Warning: {warning}")
    return reranker


def _outcome(comparison: Comparison | None) -> str:
    from rankllm_infer.probing import mismatch

    if comparison is None:
        return "probe: the card contains none; record one with `rankllm-infer probe`"
    return f"probe: {comparison}" if comparison.agrees else f"probe: {mismatch(comparison)}"


def _record(comparison: Comparison | None) -> dict[str, object]:
    """Convert the outcome for JSON."""
    if comparison is None:
        return {"verified": None}
    return {
        "verified": comparison.agrees,
        "difference": comparison.difference,
        "tolerance": comparison.tolerance,
        "recorded": comparison.recorded.to_dict(),
        "found": comparison.found.to_dict(),
    }


def _table(found: Probe) -> list[str]:
    """Format the passages of each query with their scores, best first."""
    lines = [f"Scores in {found.dtype}"]
    for query in found.queries:
        lines += [query.query, *(f"{query.scores[place]:9.3f}  {query.passages[place]}" for place in query.order)]
    return lines
