"""Measure how trained adapters rank the development questions, alone and fused with the first stage at several weights.

The bundled rerankers' data, training stages and `fuse_weight` are chosen by these scores.

    uv run --package rankllm-infer python scripts/models/dev_scores.py --data DATA --work dev models/pointwise-1/step_*

Results are kept in WORK/scores.jsonl and not measured again for the same weights.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from rankllm_core.card import load_card
from rankllm_core.data.records import read_requests
from rankllm_core.trec.qrels import read_qrels
from rankllm_core.types import Request, Result
from rankllm_infer.evaluation.evaluate import evaluate
from rankllm_infer.ranking.fuse import fuse
from rankllm_infer.ranking.identifier_prior import read_prior

MEASURE = "nDCG@10"
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
"""Weight of the first stage; 1 is the first stage alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSet:
    """Questions used to make choices."""

    folder: str
    queries: str
    qrels: str
    run: str
    corpus: str = "corpus.jsonl.gz"


SETS = {
    "nq": DevSet(folder="nq_qed", queries="queries.tsv", qrels="qrels.txt", run="runs/bm25.run.gz"),
    "nfcorpus": DevSet(folder="nfcorpus", queries="queries.dev.tsv", qrels="qrels.dev.txt", run="runs/bm25.dev.run.gz"),
    "wikiqa": DevSet(
        folder="wikiqa",
        queries="queries.dev.tsv",
        qrels="qrels.dev.txt",
        run="runs/bm25.dev.run.gz",
        corpus="corpus.jsonl",
    ),
    "msmarco": DevSet(
        folder="msmarco_dev600", queries="queries.train.tsv", qrels="qrels.train.txt", run="runs/bm25.train.run.gz"
    ),
    "dl20-bm25": DevSet(
        folder="trec_dl20",
        queries="queries.tsv",
        qrels="qrels.txt",
        run="runs/BM25.run.gz",
    ),
    "dl20-splade": DevSet(
        folder="trec_dl20",
        queries="queries.tsv",
        qrels="qrels.txt",
        run="runs/SPLADE_P_P_ENSEMBLE_DISTIL.run.gz",
    ),
}
"""msmarco provides questions unlike those of the training data; nothing is trained on it. Those of TREC DL 2020 are for
choosing the weights for the same first stages' lists of 2021; DEFAULT_SETS leaves them out."""

DEFAULT_SETS = ("nq", "nfcorpus", "wikiqa", "msmarco")


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with the collections."
)
@click.option(
    "--work", required=True, type=click.Path(path_type=Path), help="Folder for requests, results and scores.jsonl."
)
@click.option("--base-model", help="Base model, if the hub cannot be reached.")
@click.option("--set", "names", multiple=True, type=click.Choice(list(SETS)), default=DEFAULT_SETS, show_default=True)
@click.option(
    "--queries", "n_queries", default=60, show_default=True, help="Number of queries per set, from its start."
)
@click.option("--depth", default=20, show_default=True, help="Candidates per query.")
@click.option(
    "--identifier-prior",
    type=click.Path(path_type=Path, exists=True),
    help="Positional bias to subtract from FIRST's logits.",
)
@click.option("--num-passes", type=click.IntRange(2), help="Passes of a listwise model over each list.")
@click.option("--pass-depth", type=click.IntRange(2), help="Depth of the passes after the first.")
@click.argument("adapters", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(
    data: Path,
    work: Path,
    base_model: str | None,
    names: Sequence[str],
    n_queries: int,
    depth: int,
    identifier_prior: Path | None,
    num_passes: int | None,
    pass_depth: int | None,
    adapters: Sequence[Path],
) -> None:
    """Measure what is missing, and print everything."""
    work.mkdir(parents=True, exist_ok=True)
    scores = work / "scores.jsonl"
    passes = {"num_passes": num_passes, "pass_depth": pass_depth}
    options = {"--base-model": base_model, "--identifier-prior": identifier_prior}
    options |= {"--num-passes": num_passes, "--pass-depth": pass_depth}
    own = [(option, value) for option, value in options.items() if value is not None]
    for adapter in adapters:
        for name in names:
            key = {"adapter": "/".join(adapter.parts[-2:]), "weights": identity(adapter)}
            key |= {"set": name, "queries": n_queries, "depth": depth}
            key |= {"identifier_prior": list(read_prior(identifier_prior).numbers)} if identifier_prior else {}
            key |= {name: value for name, value in passes.items() if value is not None}
            if key not in [{k: v for k, v in known.items() if k != MEASURE} for known in read_scores(scores)]:
                requests = prepare(SETS[name], data, work / f"{name}-{n_queries}x{depth}.jsonl", n_queries, depth)
                found = measure(adapter, SETS[name], data, requests, [word for option in own for word in option])
                with scores.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(key | {MEASURE: found}) + "\n")
    for known in read_scores(scores):
        found = "  ".join(f"{weight} {value:.4f}" for weight, value in known[MEASURE].items())
        how = "  prior taken off" if "identifier_prior" in known else ""
        how += f"  {known['num_passes']} passes" if "num_passes" in known else ""
        how += f", from the second on over {known['pass_depth']}" if "pass_depth" in known else ""
        click.echo(f"{known['adapter']:<28} {known['set']:<9} {known['queries']:>4} queries  {found}{how}")


def identity(adapter: Path) -> str:
    """Return an identity of weights and card, which results depend on."""
    files = (adapter / name for name in ("adapter_model.safetensors", "rankllm.yaml"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def read_scores(path: Path) -> list[dict]:
    """Return the scores measured so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def prepare(dev_set: DevSet, data: Path, target: Path, n_queries: int, depth: int) -> Path:
    """Return a requests file with the questions and their candidates."""
    if not target.exists():
        folder = data / dev_set.folder
        command = [
            "prepare",
            "--retrieval-results",
            folder / dev_set.run,
            "--query-data-name",
            folder / dev_set.queries,
        ]
        command += ["--corpus-data-name", folder / dev_set.corpus, "--depth", depth, "--max-queries", n_queries]
        call([*command, "--format", "requests", "--output-path", target])
    return target


def measure(adapter: Path, dev_set: DevSet, data: Path, requests: Path, options: Sequence[object]) -> dict[str, float]:
    """Map the first stage's weight to nDCG@10 over the judged questions. options: of `rerank`."""
    hashed = hashlib.sha256(repr([*map(str, options)]).encode()).hexdigest()[:6]
    stem = requests.with_name(f"{requests.stem}.{'.'.join(adapter.parts[-2:])}.{hashed}")
    results = Path(f"{stem}.jsonl")
    command = ["rerank", "--model-path", adapter, "--requests", requests, "--fuse-weight", 0, "--overwrite"]
    call([*command, *options, "--output", f"{stem}.trec", "--output-jsonl", results])
    card = load_card(adapter)
    by_rank = card is not None and card.kind == "listwise"
    asked = {request.query.qid: request for request in read_requests(requests)}
    ranked = [(asked[found.query.qid], as_result(found)) for found in read_requests(results)]
    qrels = read_qrels(data / dev_set.folder / dev_set.qrels)
    values = {}
    for weight in WEIGHTS:
        fused = [fuse(result, request, weight, n_ranked=None, by_rank=by_rank) for request, result in ranked]
        run = {result.query.qid: [(c.docid, c.score) for c in result.candidates] for result in fused}
        values[str(weight)] = evaluate(qrels, run, [MEASURE], run_queries_only=True).means[MEASURE]
    return values


def as_result(found: Request) -> Result:
    """Return a line of results with the model's own scores, before fusion."""
    return Result(query=found.query, candidates=tuple(replace(c, model_score=c.score) for c in found.candidates))


def call(command: Sequence[object]) -> None:
    """Run rankllm-infer; an error ends the script."""
    done = subprocess.run(["rankllm-infer", *map(str, command)], check=False)
    if done.returncode:
        raise click.ClickException(f"rankllm-infer {command[0]}: exit status {done.returncode}")


if __name__ == "__main__":
    main()
