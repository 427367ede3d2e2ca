"""Measure the positional bias of smollm2-first, and the effect of subtracting it, on the development questions.

Each set's candidates are ranked in randomly drawn windows, as in `rankllm-infer calibrate`. Prints two tables: the bias
of each identifier, and the fraction of pairs of passages with different grades in the right order, with each set's bias
subtracted.

    uv run --package rankllm-infer python scripts/models/place_bias.py --data DATA --work dev

The logits are kept in WORK and not computed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from dev_scores import SETS, identity, prepare

from rankllm_core.data.records import read_requests
from rankllm_core.files import write_text
from rankllm_core.trec.qrels import read_qrels
from rankllm_core.types import Request, identifiers
from rankllm_infer.api import Reranker, load_reranker
from rankllm_infer.checkpoints.hub import shipped_folder
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.identifier_prior import measure_prior, shuffled_windows, without_prior

DEPTHS = {"nq": 20, "nfcorpus": 20, "wikiqa": 20, "msmarco": 20, "dl20-bm25": 40}
"""Number of candidates for each set's first sixty questions."""
N_QUERIES = 60
MODEL, SIZE = "smollm2-first", 10
"""Model and its window size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Passages in the order shown, with their identifiers' logits."""

    grades: tuple[int, ...]
    scores: tuple[float, ...]


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with the collections."
)
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for requests and logits.")
def main(data: Path, work: Path) -> None:
    """Compute what is missing, and print both tables."""
    work.mkdir(parents=True, exist_ok=True)
    with load_reranker(MODEL, RerankOptions(with_trace=True)) as reranker:
        found = {name: windows_of(name, data, work, reranker) for name in DEPTHS}
    measured = {name: measure_prior([w.scores for w in windows]) for name, windows in found.items()}
    priors = {name: prior.means for name, prior in measured.items()}
    click.echo(row(["prior", *identifiers("alpha", SIZE), "standard errors up to", "windows"]))
    for name, prior in measured.items():
        shares = [f"{share:+.2f}" for share in prior.means]
        click.echo(row([name, *shares, f"{max(prior.errors):.2f}", str(prior.n_windows)]))
    click.echo(row(["pairs in order", "none", *priors]))
    for name, windows in found.items():
        shares = [pairs_in_order(windows, prior) for prior in ((), *priors.values())]
        click.echo(row([name, *(f"{share:.4f}" for share in shares)]))


def windows_of(name: str, data: Path, work: Path, reranker: Reranker) -> list[Window]:
    """Return the windows of a set, computed unless their logits are stored."""
    requests = prepare(SETS[name], data, work / f"{name}-{N_QUERIES}x{DEPTHS[name]}.jsonl", N_QUERIES, DEPTHS[name])
    qrels = read_qrels(data / SETS[name].folder / SETS[name].qrels)
    kept = work / f"{name}-place-bias.{identity(shipped_folder(MODEL))}.json"
    asked = [w for request in read_requests(requests) for w in shuffled_windows(request, size=SIZE, seed=0)]
    if not kept.exists():
        with write_text(kept) as stream:
            json.dump({result.query.qid: result.trace[0].scores for result in reranker.stream(asked)}, stream)
    scores = json.loads(kept.read_text(encoding="utf-8"))
    return [Window(grades=grades_of(w, qrels), scores=tuple(scores[w.query.qid])) for w in asked]


def grades_of(window: Request, qrels: Mapping[str, Mapping[str, int]]) -> tuple[int, ...]:
    """Return the grade of each passage; its window is called QID/NUMBER."""
    judged = qrels.get(window.query.qid.rsplit("/", 1)[0], {})
    return tuple(judged.get(candidate.docid, 0) for candidate in window.candidates)


def pairs_in_order(windows: Sequence[Window], prior: Sequence[float]) -> float:
    """Return the fraction of pairs with different grades in a window whose better passage has the higher logit."""
    n_pairs = n_right = 0
    for window in windows:
        scores = without_prior(window.scores, prior)
        for better, score in zip(window.grades, scores, strict=True):
            lower = [other for grade, other in zip(window.grades, scores, strict=True) if grade < better]
            n_pairs += len(lower)
            n_right += sum(score > other for other in lower)
    return n_right / n_pairs


def row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
