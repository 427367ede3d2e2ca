"""What smollm2-first makes of a passage's place, and what taking it off does, on the development questions.

Each set's candidates are asked in windows drawn by lot, as `rankllm-infer calibrate` asks them. Two tables: the prior
of each identifier, and how many pairs of a window's passages that are judged unlike are in the right order, with the
prior of each set taken off.

    uv run --package rankllm-infer python scripts/models/place_bias.py --data DATA --work dev

The logits are kept in WORK and not asked for again.
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
"""Candidates of each set's first sixty questions."""
N_QUERIES = 60
MODEL, SIZE = "smollm2-first", 10
"""The model, and its windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Passages in the order in which they were shown, and their identifiers' logits."""

    grades: tuple[int, ...]
    scores: tuple[float, ...]


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the collections.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Requests and logits.")
def main(data: Path, work: Path) -> None:
    """Ask what is not known yet, and print both tables."""
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
    """The windows of a set, asked unless their logits are kept."""
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
    """Of each passage; its window is called QID/NUMBER."""
    judged = qrels.get(window.query.qid.rsplit("/", 1)[0], {})
    return tuple(judged.get(candidate.docid, 0) for candidate in window.candidates)


def pairs_in_order(windows: Sequence[Window], prior: Sequence[float]) -> float:
    """Of all pairs of a window that are judged unlike, the share whose better one has the greater logit."""
    n_pairs = n_right = 0
    for window in windows:
        scores = without_prior(window.scores, prior)
        for better, score in zip(window.grades, scores, strict=True):
            lower = [other for grade, other in zip(window.grades, scores, strict=True) if grade < better]
            n_pairs += len(lower)
            n_right += sum(score > other for other in lower)
    return n_right / n_pairs


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
