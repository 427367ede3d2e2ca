"""Differences of scores and orders between bfloat16 and float32, for the bundled rerankers as `rerank` runs them.

uv run --package rankllm-infer --group demo python scripts/bench/dtypes.py --data DIR --run RUN
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import median

import click
from bench_machine import describe_machine, pin_threads

MODELS = ("smollm2-pointwise", "smollm2-first")
DTYPES = ("float32", "bfloat16")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("--queries", "n_queries", default=10, show_default=True)
@click.option("--depth", default=20, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(data: Path, run: Path, models: tuple[str, ...], n_queries: int, depth: int, threads: int) -> None:
    """Print, for each model, how much scores change and how many pairs of candidates swap places."""
    from rankllm_infer import RerankOptions, load_reranker
    from rankllm_infer.formats.prepare import build_requests

    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    pin_threads(threads)
    print(describe_machine(threads), flush=True)
    print("\n| model | spread of scores | median difference | largest | swapped pairs | first place kept |")
    print("|---|---|---|---|---|---|")
    for model in models:
        scores = []
        for dtype in DTYPES:
            with load_reranker(model, RerankOptions(dtype=dtype, device="cpu", fuse_weight=0.0)) as reranker:
                results = reranker.rerank(requests)
            scores.append([{c.docid: float(c.model_score) for c in result.candidates} for result in results])
        print(_row(model, list(zip(*scores, strict=True))), flush=True)


def _row(model: str, queries: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    gaps = [abs(exact[docid] - coarse[docid]) for exact, coarse in queries for docid in exact]
    spread = median(max(exact.values()) - min(exact.values()) for exact, _ in queries)
    pairs = [
        (exact[a] - exact[b]) * (coarse[a] - coarse[b]) < 0
        for exact, coarse in queries
        for a, b in combinations(exact, 2)
    ]
    kept = sum(max(exact, key=exact.__getitem__) == max(coarse, key=coarse.__getitem__) for exact, coarse in queries)
    return (
        f"| `{model}` | {spread:.2f} | {median(gaps):.1e} | {max(gaps):.1e} | {sum(pairs)} of {len(pairs)} "
        f"| {kept} of {len(queries)} |"
    )


if __name__ == "__main__":
    main()
