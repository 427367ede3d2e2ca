"""FIRST, generation and permutation decoding of the same windows, one at a time: seconds per window.

The ways take turns within each run. An untrained model's free answer may end early, or never be a ranking: so free
generation is also timed at the length of a whole answer, its end token held back. That is what the others are compared
with.

uv run --package rankllm-infer --group demo python scripts/bench/decoding.py --data DIR --run RUN
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

import click
from bench_machine import describe_machine, pin_threads

if TYPE_CHECKING:
    from rankllm_core.types import Request
    from rankllm_infer.engines.base import Answer, Prompt
    from rankllm_infer.engines.transformers.model import LoadedModel

FULL_LENGTH = "generation, a whole answer's tokens"


@dataclass
class Way:
    """One decoding mode and its measurements: a value per run and window."""

    identifiers: str
    name: str
    prompts: list[Prompt]
    answer: Callable[[Prompt], Answer | None]
    cpu_s: list[list[float]] = field(default_factory=list)
    wall_s: list[list[float]] = field(default_factory=list)
    answers: list[Answer | None] = field(default_factory=list)

    def run(self, window: int) -> None:
        """Time one window."""
        wall, cpu = time.perf_counter(), time.process_time()
        answer = self.answer(self.prompts[window])
        self.cpu_s[window].append(time.process_time() - cpu)
        self.wall_s[window].append(time.perf_counter() - wall)
        if len(self.answers) <= window:
            self.answers.append(answer)

    def seconds(self, measured: list[list[float]]) -> float:
        """Mean over the windows of the median over the runs."""
        return mean(median(runs) for runs in measured)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model-path", help="Model to use.  [default: the demo model]")
@click.option("--queries", "n_queries", default=3, show_default=True, help="Number of queries; each gives one window.")
@click.option("--depth", default=20, show_default=True, help="Passages per window.")
@click.option(
    "--identifiers", "kinds", type=click.Choice(["alpha", "numeric"]), multiple=True, default=["alpha", "numeric"]
)
@click.option("--runs", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--dtype", default="auto", show_default=True)
def main(
    data: Path,
    run: Path,
    model_path: str | None,
    n_queries: int,
    depth: int,
    kinds: tuple[str, ...],
    runs: int,
    threads: int,
    dtype: str,
) -> None:
    """Print one markdown row per decoding mode."""
    from rankllm_infer.checkpoints.demo_model import demo_model_path
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.transformers.batches import TransformersSettings
    from rankllm_infer.engines.transformers.loading import load_model
    from rankllm_infer.formats.prepare import build_requests

    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    loaded = load_model(find_model(model_path or str(demo_model_path())), "causal", TransformersSettings(dtype=dtype))
    pin_threads(threads)
    print(describe_machine(threads), flush=True)
    ways = [way for kind in kinds for way in make_ways(loaded, requests, kind)]
    for way in ways:
        way.cpu_s, way.wall_s = ([[] for _ in requests] for _ in range(2))
    ways[-1].answer(ways[-1].prompts[0])  # warm-up
    for _ in range(runs):
        for window in range(len(requests)):
            for way in ways:
                way.run(window)
    print_table(ways)
    print(same_orders(ways))


def make_ways(loaded: LoadedModel, requests: list[Request], kind: str) -> list[Way]:
    """All decoding modes for windows with one kind of identifiers."""
    from rankllm_core.card import ListwiseCard
    from rankllm_core.prompts.template import load_template
    from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
    from rankllm_infer.plan import make_method
    from rankllm_infer.ranking.settings import RankingSettings

    engine = TransformersEngine(loaded, limits=BatchLimits(max_prompts=1))
    template = load_template("rank_zephyr_alpha" if kind == "alpha" else "rank_zephyr")
    card = ListwiseCard(template=template, identifiers=kind)

    def prompts(settings: RankingSettings, card: ListwiseCard = card) -> list[Prompt]:
        method = make_method(card, settings, loaded.tokenizer)
        return [next(method.flow(request))[0] for request in requests]

    def answer(prompt: Prompt) -> Answer:
        engine.submit(0, prompt)
        ((_, given),) = engine.collect()
        if isinstance(given, Exception):
            raise given
        return given

    free = RankingSettings()
    held = replace(free, free_decoding=False)
    ways = [
        Way(kind, FULL_LENGTH, prompts(free), lambda prompt: generate_whole(loaded, prompt)),
        Way(kind, "generation, until the model ends it", prompts(free), answer),
        Way(kind, "permutations only", prompts(held), answer),
        Way(kind, "permutations only, --decode-top-k 10", prompts(replace(held, decode_top_k=10)), answer),
    ]
    if kind == "alpha":
        ways.append(Way(kind, "FIRST", prompts(free, replace(card, answer="first-token")), answer))
    return ways


def generate_whole(loaded: LoadedModel, prompt: Prompt) -> None:
    """Generate as many tokens as a complete answer has, like the engine but without the end token."""
    import torch
    from transformers import GenerationConfig

    ids = torch.tensor([prompt.token_ids])
    length = prompt.max_new_tokens
    eos = loaded.tokenizer.eos_token_id
    config = GenerationConfig(
        do_sample=False, min_new_tokens=length, max_new_tokens=length, pad_token_id=eos, eos_token_id=eos
    )
    with torch.inference_mode():
        made = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    if made.shape[1] != ids.shape[1] + length:
        raise click.ClickException(f"generated {made.shape[1] - ids.shape[1]} tokens, not {length}")


def print_table(ways: list[Way]) -> None:
    """Print one row per mode; `times` compares CPU seconds with generation of a complete answer."""
    print("\n| identifiers | way | CPU s/window | wall s/window | times as fast | answer tokens |")
    print("|---|---|---|---|---|---|")
    whole = {way.identifiers: way.seconds(way.cpu_s) for way in ways if way.name == FULL_LENGTH}
    for way in ways:
        cpu_s = way.seconds(way.cpu_s)
        tokens = mean(
            prompt.max_new_tokens if answer is None else answer.usage.completion_tokens
            for prompt, answer in zip(way.prompts, way.answers, strict=True)
        )
        print(
            f"| {way.identifiers} | {way.name} | {cpu_s:.2f} | {way.seconds(way.wall_s):.2f} "
            f"| {whole[way.identifiers] / cpu_s:.2f} | {tokens:.0f} |"
        )


def same_orders(ways: list[Way]) -> str:
    """Report how many free answers are complete rankings, and whether constrained decoding gives the same ones."""
    from rankllm_core.answers.reader import read_answer

    named = {(way.identifiers, way.name): way for way in ways}
    well_formed = same = n_windows = 0
    for kind in dict.fromkeys(way.identifiers for way in ways):
        free, held = (named[kind, name] for name in ("generation, until the model ends it", "permutations only"))
        for prompt, written, allowed in zip(free.prompts, free.answers, held.answers, strict=True):
            n_windows += 1
            texts = [answer.text if answer else "" for answer in (written, allowed)]
            orders = [read_answer(text, prompt.identifiers) for text in texts]
            well_formed += orders[0].status == "ok"
            same += orders[0].status == "ok" and orders[0].order == orders[1].order
    return f"\n{well_formed} of {n_windows} free answers are whole rankings; {same} of them are the same."


if __name__ == "__main__":
    main()
