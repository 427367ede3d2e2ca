"""Dependence of scores and orders on the rest of the batch, in fp32 and bf16, for batch sizes 1 to 64.

uv run --package rankllm-infer --group demo python scripts/bench/batch_invariance.py --data DIR --run RUN
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import click
from bench_machine import describe_machine, pin_threads

SIZES = (1, 4, 16, 64)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--queries", "n_queries", default=5, show_default=True)
@click.option("--depth", default=20, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(data: Path, run: Path, n_queries: int, depth: int, threads: int) -> None:
    """Print, for each dtype and engine setting, the largest difference to batch size 1, swapped pairs and ties."""
    from rankllm_infer.api import Reranker, load_reranker
    from rankllm_infer.checkpoints.demo_model import demo_model_path
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.transformers.batches import TransformersSettings
    from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
    from rankllm_infer.engines.transformers.loading import load_model
    from rankllm_infer.formats.prepare import build_requests
    from rankllm_infer.options import RerankOptions

    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    model = str(demo_model_path())
    ways = {
        "pointwise, yes/no": {"method": "pointwise"},
        "listwise, FIRST": {"method": "listwise", "use_logits": True, "use_alpha": True},
    }
    print(describe_machine(threads), flush=True)
    print("\n| way | dtype | batch size | largest difference to size 1 | swapped pairs | ties | pairs |")
    print("|---|---|---|---|---|---|---|")
    for way, options in ways.items():
        for dtype in ("float32", "bfloat16"):
            alone: list[dict[str, float]] = []
            for size in SIZES:
                # A separate engine: load_reranker uses batches of one for float32 on a CPU, and this needs larger ones;
                # the usual token budget would cut large batches.
                engine = TransformersEngine(
                    load_model(find_model(model), "causal", TransformersSettings(dtype=dtype, device="cpu")),
                    limits=BatchLimits(max_prompts=size, max_tokens=1 << 20),
                )
                with load_reranker(model, RerankOptions(dtype=dtype, device="cpu", **options)) as loaded:
                    reranker = Reranker(loaded.method, engine)
                    pin_threads(threads)
                    scores = [
                        {c.docid: float(c.model_score) for c in result.candidates}
                        for result in reranker.rerank(requests)
                    ]
                alone = alone or scores
                gap = max(abs(a[d] - b[d]) for a, b in zip(alone, scores, strict=True) for d in a)
                swaps = ties = pairs = 0
                for first, now in zip(alone, scores, strict=True):
                    for x, y in combinations(first, 2):
                        pairs += 1
                        ties += now[x] == now[y]
                        swaps += (first[x] - first[y]) * (now[x] - now[y]) < 0
                print(f"| {way} | {dtype} | {size} | {gap:.1e} | {swaps} | {ties} | {pairs} |", flush=True)


if __name__ == "__main__":
    main()
