"""Cost and quality of each strategy: calls, rounds, tokens and nDCG@10, with an oracle that reads the judgements.

The oracle ranks a window by judged relevance plus Gaussian noise, so no model is needed and the numbers are the same on
every machine. With --model-path, a real model is measured as well, with CPU seconds.

    uv run --package rankllm-infer python scripts/bench/strategies.py --data DIR --run RUN
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.card import ListwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.trec import Qrels, read_qrels
from rankllm_core.types import Request, Result, Usage
from rankllm_infer.api import Reranker, load_reranker
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.evaluation.evaluate import evaluate
from rankllm_infer.formats.prepare import build_requests
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.prompts import MessagePromptWriter
from rankllm_infer.ranking.settings import RankingSettings

if TYPE_CHECKING:
    from collections.abc import Callable

WAYS: Mapping[str, Mapping[str, object]] = {
    "sliding": {},
    "sliding, 2 passes": {"num_passes": 2},
    "sliding, 2 passes, the second over 30": {"num_passes": 2, "pass_depth": 30},
    "full": {"strategy": "full"},
    "top-down": {"strategy": "top-down"},
    "tournament": {"strategy": "tournament"},
    "tournament, top 5": {"strategy": "tournament", "rank_top_k": 5},
    "full, 5 permutations": {"strategy": "full", "permutations": 5},
    "sliding, 5 permutations": {"permutations": 5},
    "top-down, 5 permutations": {"strategy": "top-down", "permutations": 5},
}
MODEL_WAYS = ("sliding", "top-down", "tournament", "tournament, top 5")
"""Without `full`, because a window with letters is limited to 26 passages."""
MEASURE = "nDCG@10"
_SHOWN = re.compile(r"^\[(\d+)\] p(\d+) ", re.MULTILINE)


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder with queries, corpus and qrels."
)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True, help="First-stage run.")
@click.option("--queries", "n_queries", type=int, help="Number of queries, from the start of the set.  [default: all]")
@click.option("--depth", default=100, show_default=True)
@click.option(
    "--noise",
    type=float,
    multiple=True,
    default=(0.0, 1.0),
    show_default=True,
    help="Noise levels, in relevance grades.",
)
@click.option("--model-path", help="Also rank with this FIRST model.")
def main(
    data: Path, run: Path, n_queries: int | None, depth: int, noise: tuple[float, ...], model_path: str | None
) -> None:
    """Print one markdown row per strategy and noise level, with means over queries."""
    requests, _ = build_requests(
        run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=depth, max_queries=n_queries
    )
    qrels = read_qrels(data / "qrels.txt")
    requests = [request for request in requests if qrels.get(request.query.qid)]
    print(f"{len(requests)} judged queries, {depth} candidates; {MEASURE} of the first stage: {score(requests, qrels)}")
    print(f"\n| strategy | noise | calls | rounds | prompt tokens (estimated) | {MEASURE} |\n|---|---|---|---|---|---|")
    marked, grades = mark(requests, qrels)
    for sigma in noise:
        for way, options in WAYS.items():
            engine = ScriptedEngine(oracle(grades, sigma), batch_size=64)
            size = depth if options.get("strategy") == "full" else 20
            card = ListwiseCard(template=load_template("rank_zephyr"), context_tokens=65536, window_size=size)
            settings = RankingSettings(**options)  # type: ignore[arg-type]
            reranker = Reranker(ListwiseMethod(card, settings, MessagePromptWriter()), engine)
            results = reranker.rerank(marked)
            print(f"| {way} | {sigma:g} | {cost(results)} | {score(results, qrels)} |", flush=True)
    if model_path is not None:
        name = Path(model_path).name
        print(f"\n| {name} by FIRST | calls | rounds | prompt tokens | {MEASURE} | CPU s/query |")
        print("|---|---|---|---|---|---|")
        for row in model_rows(model_path, requests, qrels):
            print(row, flush=True)


def mark(requests: Sequence[Request], qrels: Qrels) -> tuple[list[Request], list[int]]:
    """The requests with `p` and a number before each passage, which identifies it for the oracle, and the grade of
    each number.
    """
    marked, grades = [], []
    for request in requests:
        candidates = []
        for candidate in request.candidates:
            doc = dict(candidate.doc) | {"text": f"p{len(grades)} {candidate.doc['text']}"}
            candidates.append(replace(candidate, doc=doc))
            grades.append(qrels[request.query.qid].get(candidate.docid, 0))
        marked.append(replace(request, candidates=tuple(candidates)))
    return marked, grades


def oracle(grades: Sequence[int], sigma: float) -> Callable[[Prompt], Answer]:
    """A model that ranks by grade plus noise, drawn separately for each prompt; ties keep their order in the prompt."""

    def answer(prompt: Prompt) -> Answer:
        draw = random.Random(prompt.text)
        shown = [(label, grades[int(number)] + draw.gauss(0, sigma)) for label, number in _SHOWN.findall(prompt.text)]
        text = " > ".join(f"[{label}]" for label, _ in sorted(shown, key=lambda pair: -pair[1]))
        usage = Usage(calls=1, prompt_tokens=MessagePromptWriter().write(prompt.messages).n_tokens)
        return Answer(text=text, usage=usage)

    return answer


def cost(results: Sequence[Result]) -> str:
    """Calls, rounds and prompt tokens per query, as cells of a row."""
    usage, n = sum((result.usage for result in results), Usage()), len(results)
    return f"{usage.calls / n:.1f} | {usage.rounds / n:.1f} | {usage.prompt_tokens / n:,.0f}"


def score(ranked: Sequence[Request] | Sequence[Result], qrels: Qrels) -> str:
    """Their nDCG@10."""
    run = {one.query.qid: [(c.docid, c.score) for c in one.candidates] for one in ranked}
    return f"{evaluate(qrels, run, [MEASURE], run_queries_only=True).means[MEASURE]:.4f}"


def model_rows(model_path: str, requests: Sequence[Request], qrels: Qrels) -> Iterator[str]:
    """One row per strategy, using FIRST with letters."""
    from bench_machine import pin_threads

    for way in MODEL_WAYS:
        options = RerankOptions(method="listwise", use_logits=True, use_alpha=True, **WAYS[way])  # type: ignore[arg-type]
        with load_reranker(model_path, options) as reranker:
            pin_threads(1)
            began = time.process_time()
            results = reranker.rerank(requests)
            seconds = (time.process_time() - began) / len(results)
        yield f"| {way} | {cost(results)} | {score(results, qrels)} | {seconds:.1f} |"


if __name__ == "__main__":
    main()
