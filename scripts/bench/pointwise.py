"""The same pairs scored by sentence-transformers' CrossEncoder, a plain padded loop and rankllm, in one run.

Each runs in a separate process, to measure peak memory, in alternation. All get the same token ids.
SmolLM2-135M-Instruct gets a score head drawn from a seed, since none is published: this is about speed, not quality.

uv run --package rankllm-infer --group demo --with sentence-transformers python scripts/bench/pointwise.py \
  --data trec_dl21 --run trec_dl21/runs/BM25.run.gz --cache DIR
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import click
from bench_machine import describe_machine, pin_threads

CROSS_ENCODER, LOOP, OURS = "CrossEncoder", "padded loop", "rankllm"
WAYS = (
    (CROSS_ENCODER, "float32", ""),
    (CROSS_ENCODER, "bfloat16", ""),
    (LOOP, "bfloat16", ""),
    (LOOP, "bfloat16", "sorted by length"),
    (OURS, "float32", ""),
    (OURS, "bfloat16", ""),
    (OURS, "bfloat16", "--compile"),
)
BATCH = 32
SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Pair:
    """A query-passage pair: its number, the query's, texts and ids, and the number of leading ids shared by the
    query's pairs.
    """

    number: int
    query: int
    texts: tuple[str, str]
    ids: tuple[int, ...]
    n_shared: int


@dataclass
class Worker:
    """A process that scores all pairs with one implementation on request, and its measurements."""

    way: tuple[str, str, str]
    process: Any
    pipe: Any
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    def run(self) -> None:
        """One repetition."""
        self.pipe.send("run")
        cpu_s, wall_s, self.scores, self.peak_mib = self.pipe.recv()
        self.cpu_s.append(cpu_s)
        self.wall_s.append(wall_s)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for the model with its head.")
@click.option("--queries", "n_queries", default=3, show_default=True)
@click.option("--depth", default=100, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--distinct", is_flag=True, help="Skip repeated pairs, since the collection contains duplicate passages.")
@click.option("--flips/--no-flips", default=True, show_default=True, help="Also score at batch sizes 1 to 64.")
@click.option(
    "--without-cross-encoder", is_flag=True, help="Skip the comparison with CrossEncoder (sentence-transformers)."
)
def main(
    data: Path,
    run: Path,
    cache: Path,
    n_queries: int,
    depth: int,
    repeats: int,
    threads: int,
    distinct: bool,
    flips: bool,
    without_cross_encoder: bool,
) -> None:
    """Print one row per implementation, the differences of their scores, and the effect of the batch size."""
    if not without_cross_encoder and importlib.util.find_spec("sentence_transformers") is None:
        raise click.UsageError(
            "sentence-transformers is not installed; run with `uv run --with sentence-transformers ...`, "
            "or give --without-cross-encoder"
        )
    model = make_model(cache)
    pairs = make_pairs(model, data, run, n_queries=n_queries, depth=depth, distinct=distinct)
    pin_threads(threads)
    print(describe_machine(threads), flush=True)
    n_tokens = sum(len(pair.ids) for pair in pairs)
    n_unique, n_computed = work(pairs)
    print(f"{len(pairs)} pairs, {n_unique} of them different; {n_tokens:,} tokens, of which rankllm computes")
    print(f"{n_computed:,} in bfloat16: each pair once, and once a batch what its pairs begin with")
    ways = [way for way in WAYS if way[0] != CROSS_ENCODER or not without_cross_encoder]
    workers = [start_worker(way, model, pairs, threads) for way in ways]
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(repeats):
        for dtype, found in peaks.items():
            found.append(gemm_flops(dtype))
        for worker in workers:
            worker.run()
    medians = {dtype: median(found) for dtype, found in peaks.items()}
    print_table(workers, pairs, model, peaks=medians, computed=n_computed)
    print_differences(workers)
    for worker in workers:
        worker.pipe.send("stop")
        worker.process.join()
    if flips:
        print_flips(model, pairs)


def make_model(cache: Path) -> str:
    """Save SmolLM2 with a score head of small random weights once."""
    from rankllm_infer.checkpoints.demo_model import demo_model_path

    if (cache / "config.json").exists():
        return str(cache)
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        demo_model_path(), num_labels=1, dtype=torch.float32, trust_remote_code=False
    )
    model.config.pad_token_id = model.config.eos_token_id
    AutoTokenizer.from_pretrained(demo_model_path(), trust_remote_code=False).save_pretrained(cache)
    model.save_pretrained(cache)
    return str(cache)


def make_pairs(model: str, data: Path, run: Path, *, n_queries: int, depth: int, distinct: bool) -> list[Pair]:
    """RankLLaMA's pairs of the first queries, truncated to 32 + 164 tokens."""
    from transformers import AutoTokenizer

    from rankllm_core.card import PointwiseCard
    from rankllm_core.prompts.template import load_template
    from rankllm_core.text import title_and_text
    from rankllm_infer.formats.prepare import build_requests
    from rankllm_infer.plan import make_method
    from rankllm_infer.ranking.settings import RankingSettings

    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    card = PointwiseCard(template=load_template("rankllama"))
    method = make_method(card, RankingSettings(), AutoTokenizer.from_pretrained(model, trust_remote_code=False))
    began = time.process_time()
    prompts = [next(method.flow(request)) for request in requests]
    print(f"Tokenisation of all pairs: {time.process_time() - began:.3f} CPU s")
    pairs, seen = [], set()
    for query, (request, asked) in enumerate(zip(requests, prompts, strict=True)):
        for candidate, prompt in zip(request.candidates, asked, strict=True):
            if distinct and prompt.token_ids in seen:
                continue
            seen.add(prompt.token_ids)
            title, text = title_and_text(candidate.doc)
            texts = (
                card.template.query.format(query=request.query.text),
                card.template.passage.format(title=title, text=text),
            )
            pairs.append(Pair(len(pairs), query, texts, prompt.token_ids, prompt.n_shared))
    return pairs


def work(pairs: Sequence[Pair]) -> tuple[int, int]:
    """The number of distinct pairs and of computed tokens: a query's shared ids once per batch."""
    from rankllm_infer.engines.transformers.batches import BatchLimits, BatchQueue

    queue = BatchQueue(BatchLimits(max_prompts=BATCH, max_tokens=2048))
    for ticket, prompt in enumerate(prompts_of(pairs)):
        queue.add(ticket, prompt)
    n_unique = n_tokens = 0
    while queue:
        batch = queue.take()
        n_unique += len(batch.prompts)
        n_tokens += batch.n_shared + sum(len(prompt.token_ids) - batch.n_shared for prompt in batch.prompts)
    return n_unique, n_tokens


def prompts_of(pairs: Sequence[Pair]) -> list[Any]:
    """The pairs in the form that rankllm's engines accept."""
    from rankllm_infer.engines.base import Prompt

    return [Prompt(text="", read="head", token_ids=pair.ids, n_shared=pair.n_shared) for pair in pairs]


def start_worker(way: tuple[str, str, str], model: str, pairs: Sequence[Pair], threads: int) -> Worker:
    """Start a process, and wait until it has loaded its model and scored a few pairs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, way, model, pairs, threads), daemon=True)
    process.start()
    ours.recv()
    return Worker(way, process, ours)


def serve(pipe: Any, way: tuple[str, str, str], model: str, pairs: Sequence[Pair], threads: int) -> None:
    """The main function of a worker process."""
    score = {CROSS_ENCODER: cross_encoder, LOOP: padded_loop, OURS: rankllm}[way[0]](model, *way[1:])
    pin_threads(threads)
    score(pairs[:BATCH])
    pipe.send("ready")
    while pipe.recv() == "run":
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score(pairs)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        pipe.send((cpu, wall, scores, peak_mib()))


def peak_mib() -> float:
    """Peak memory of this process. (`getrusage` would include the parent's peak before the start.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


Scoring = Callable[[Sequence[Pair]], list[float]]


def cross_encoder(model: str, dtype: str, _: str) -> Scoring:
    """sentence-transformers' own `predict`, including tokenization; its ids are then replaced by the common ones."""
    import torch
    from sentence_transformers import CrossEncoder

    class SameIds(CrossEncoder):
        """Feeds the common ids to the model."""

        ids: dict[tuple[str, str], tuple[int, ...]]

        def preprocess(self, inputs: Any, prompt: str | None = None, **options: Any) -> dict[str, Any]:
            features = super().preprocess(inputs, prompt=prompt, **options)
            ids_BT, mask_BT = padded([self.ids[tuple(texts)] for texts in inputs])
            return features | {"input_ids": ids_BT, "attention_mask": mask_BT}

    encoder = SameIds(model, device="cpu", max_length=196, model_kwargs={"dtype": getattr(torch, dtype)})

    def score(pairs: Sequence[Pair]) -> list[float]:
        encoder.ids = {pair.texts: pair.ids for pair in pairs}
        texts = [pair.texts for pair in pairs]
        return encoder.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()

    return score


def padded(rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """ids_BT and mask_BT, padded on the right with id 2, which is SmolLM2's."""
    import torch

    longest = max(map(len, rows))
    ids_BT = torch.tensor([[*row] + [2] * (longest - len(row)) for row in rows])
    mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids_BT, mask_BT


def padded_loop(model: str, dtype: str, order: str) -> Scoring:
    """The usual loop: batches of 32, padded, with an attention mask."""
    import torch
    from transformers import AutoModelForSequenceClassification

    loaded = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=getattr(torch, dtype), trust_remote_code=False
    ).eval()

    @torch.inference_mode()
    def score(pairs: Sequence[Pair]) -> list[float]:
        queue = sorted(range(len(pairs)), key=lambda place: -len(pairs[place].ids)) if order else range(len(pairs))
        scores = [0.0] * len(pairs)
        for start in range(0, len(pairs), BATCH):
            places = queue[start : start + BATCH]
            ids_BT, mask_BT = padded([pairs[place].ids for place in places])
            logits = loaded(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits
            for place, value in zip(places, logits[:, 0].tolist(), strict=True):
                scores[place] = value
        return scores

    return score


def rankllm(model: str, dtype: str, options: str, *, size: int = 0) -> Scoring:
    """rankllm's engine as `rerank` configures it. size: a batch size without a token budget."""
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.transformers.batches import TransformersSettings
    from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
    from rankllm_infer.engines.transformers.loading import load_model

    settings = TransformersSettings(dtype=dtype, device="cpu")
    loaded = load_model(find_model(model), "sequence-classification", settings)
    usual = BatchLimits(max_prompts=1 if dtype == "float32" else BATCH)
    limits = BatchLimits(max_prompts=size, max_tokens=1 << 20) if size else usual
    engine = TransformersEngine(loaded, limits=limits, compiles=options == "--compile")

    def score(pairs: Sequence[Pair]) -> list[float]:
        for ticket, prompt in enumerate(prompts_of(pairs)):
            engine.submit(ticket, prompt)
        found: dict[int, Any] = {}
        while answers := engine.collect():
            found |= dict(answers)
        return [found[place].scores[0] for place in range(len(pairs))]

    return score


def gemm_flops(dtype: str) -> float:
    """Floating-point operations per CPU second of one thread in a large matrix product, best of five."""
    import torch

    n = 2048
    matrix = torch.randn(n, n, dtype=getattr(torch, dtype))
    best = 0.0
    for _ in range(5):
        began = time.process_time()
        torch.nn.functional.linear(matrix, matrix)
        best = max(best, 2 * n**3 / (time.process_time() - began))
    return best


def model_flops(model: str, lengths: Sequence[int], n_tokens: int) -> float:
    """Operations of the linear layers over this many tokens, and of causal attention within rows of these lengths."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    hidden, inner = config.hidden_size, config.intermediate_size
    head = hidden // config.num_attention_heads
    linear = 2 * hidden * hidden + 2 * hidden * config.num_key_value_heads * head + 3 * hidden * inner
    attention = sum(4 * hidden * n * (n + 1) / 2 for n in lengths)
    return config.num_hidden_layers * (2 * linear * n_tokens + attention)


def print_table(
    workers: Sequence[Worker], pairs: Sequence[Pair], model: str, *, peaks: dict[str, float], computed: int
) -> None:
    """Print one row per implementation."""
    lengths, different = [len(pair.ids) for pair in pairs], [len(ids) for ids in {pair.ids for pair in pairs}]
    for dtype, flops in peaks.items():
        print(f"Matrix products of 2048 in {dtype}: {flops / 1e9:,.0f} GFLOP/s")
    print("\n| way | dtype | CPU s | wall s | pairs/s | tokens/s | peak MiB | of the GEMM peak | times CrossEncoder |")
    print("|---|---|---|---|---|---|---|---|---|")
    base = {worker.way[1]: median(worker.cpu_s) for worker in workers if worker.way[0] == CROSS_ENCODER}
    for worker in workers:
        name, dtype, options = worker.way
        seconds = median(worker.cpu_s)
        done = model_flops(model, lengths, sum(lengths))
        if name == OURS:
            done = model_flops(model, different, sum(different) if dtype == "float32" else computed)
        faster = ", ".join(f"{base[d] / seconds:.2f} ({d})" for d in base if d in (dtype, "float32"))
        print(
            f"| {name} {options} | {dtype} | {seconds:.2f} | {median(worker.wall_s):.2f} | {len(pairs) / seconds:.1f} "
            f"| {sum(lengths) / seconds:,.0f} | {worker.peak_mib:,.0f} | {done / seconds / peaks[dtype]:.0%} "
            f"| {faster} |",
            flush=True,
        )


def print_differences(workers: Sequence[Worker]) -> None:
    """Print how much each implementation's scores differ from the first one's in float32."""
    first = next(worker for worker in workers if worker.way[1] == "float32")
    print(f"\nLargest difference to {first.way[0]} in float32 (scores up to {max(map(abs, first.scores)):.2f}):")
    for worker in workers:
        gap = max(abs(a - b) for a, b in zip(first.scores, worker.scores, strict=True))
        print(f"- {' '.join(worker.way).strip()}: {gap:.1e}", flush=True)


def print_flips(model: str, pairs: Sequence[Pair]) -> None:
    """Print the pairs of a query's passages that swap places with the batch size."""
    print("\n| dtype | batch size | largest difference to size 1 | swapped | ties | of |\n|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        alone: list[float] = []
        for size in SIZES:
            scores = rankllm(model, dtype, "", size=size)(pairs)
            alone = alone or scores
            gap = max(abs(a - b) for a, b in zip(alone, scores, strict=True))
            swapped = ties = n = 0
            for one, other in combinations(pairs, 2):
                if one.query == other.query:
                    a, b = one.number, other.number
                    n += 1
                    ties += scores[a] == scores[b]
                    swapped += (alone[a] - alone[b]) * (scores[a] - scores[b]) < 0
            print(f"| {dtype} | {size} | {gap:.1e} | {swapped:,} | {ties:,} | {n:,} |", flush=True)


if __name__ == "__main__":
    main()
