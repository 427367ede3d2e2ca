"""Rerank real first-stage lists with each method and print a table: quality, seconds, tokens, statuses.

The data is a folder with corpus.jsonl.gz, queries.tsv, qrels.txt and a run. Threads are pinned and the load is checked.

    uv run --package rankllm-infer --group demo python scripts/bench/real_data.py --data DIR --run RUN
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click
from bench_machine import describe_machine, pin_threads

MODES = {
    "listwise, free generation": {"method": "listwise", "free_decoding": True},
    "listwise, permutations only": {"method": "listwise"},
    "listwise, FIRST": {"method": "listwise", "use_logits": True, "use_alpha": True},
    "pointwise, yes/no": {"method": "pointwise"},
}
MEASURE = "nDCG@10"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), multiple=True, required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), multiple=True, required=True)
@click.option("--model-path", help="Model to use.  [default: the demo model]")
@click.option(
    "--queries", "n_queries", default=20, show_default=True, help="Number of queries per set, from its start."
)
@click.option("--depth", default=20, show_default=True, help="Candidates per query, all in one window.")
@click.option("--threads", default=1, show_default=True)
@click.option("--dtype", default="auto", show_default=True)
def main(
    data: tuple[Path, ...],
    run: tuple[Path, ...],
    model_path: str | None,
    n_queries: int,
    depth: int,
    threads: int,
    dtype: str,
) -> None:
    """Print one markdown row per data set and reranking method."""
    from rankllm_core.trec import read_qrels
    from rankllm_infer.api import load_reranker
    from rankllm_infer.checkpoints.demo_model import demo_model_path
    from rankllm_infer.evaluation.evaluate import evaluate
    from rankllm_infer.formats.prepare import build_requests
    from rankllm_infer.jobs.outputs import Summary
    from rankllm_infer.options import RerankOptions

    model = model_path or str(demo_model_path())
    print(describe_machine(threads), flush=True)
    print(f"\n| set | way | {MEASURE} before | after | s/query | prompt tokens | generated | calls | answers |")
    print("|---|---|---|---|---|---|---|---|---|")
    for folder, run_file in zip(data, run, strict=True):
        requests, _ = build_requests(
            run_file,
            queries=folder / "queries.tsv",
            corpus=folder / "corpus.jsonl.gz",
            depth=depth,
            max_queries=n_queries,
        )
        qrels = read_qrels(folder / "qrels.txt")
        for way, options in MODES.items():
            with load_reranker(model, RerankOptions(dtype=dtype, **options)) as reranker:
                pin_threads(threads)
                began = time.perf_counter()
                results = reranker.rerank(requests)
                seconds = time.perf_counter() - began
            summary = Summary()
            for result in results:
                summary.add(result)
            scores = [
                evaluate(
                    qrels,
                    {r.query.qid: [(c.docid, c.score) for c in r.candidates] for r in ranked},
                    [MEASURE],
                    run_queries_only=True,
                ).means[MEASURE]
                for ranked in (requests, results)
            ]
            statuses = ", ".join(f"{name} {count}" for name, count in Counter(summary.statuses).most_common())
            usage = summary.usage
            print(
                f"| {folder.name} | {way} | {scores[0]:.4f} | {scores[1]:.4f} | {seconds / len(requests):.2f} "
                f"| {usage.prompt_tokens:,} | {usage.completion_tokens:,} | {usage.calls:,} | {statuses} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
