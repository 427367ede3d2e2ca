"""Savings from computing logits only where a loss reads them: our forward pass and transformers' own, in one run.

Dense is the usual way: `model(input_ids, labels=...)` makes logits at all positions, raises them to float32 and takes
the cross-entropy over all positions; the ranking loss reads its row of them. Ranking alone is measured against two
dense ways: one reads log-probabilities, taken in float32 at all positions as the cross-entropy takes them, the other
logits. The losses are the same, since RankNet sees differences. Lean and dense run forward and backward on the same
weights and the same record, whose length is nearest to the number of tokens asked for.

Speed: CPU seconds of the process, the two ways in turns, medians, after one round to warm up. Memory: the highest
resident size of a fresh process during one forward and backward pass, less its size before it, when the model was
loaded and a short record had gone through. Gradients count. Every block is a mapping of its own there
(MALLOC_MMAP_THRESHOLD_), so that memory given back is gone: the figure is what the pass needs, not how the heap was cut
up.

    uv run --package rankllm-train python scripts/bench/lean_training.py --model-path DIR --data records.jsonl.xz
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from bench_machine import describe_machine, pin_threads

if TYPE_CHECKING:
    from torch import Tensor

    from rankllm_train.encoding.listwise_encoder import ListwiseExample

OBJECTIVES = ("generation", "ranking", "combined")
WAYS = ("dense", "lean")
N_RECORDS = 100
"""Number of records, of which the one of the right length is used."""
SHORT_PROMPT_TOKENS = 32
GIB = 1 << 30


class Case(NamedTuple):
    """The subject of a table row."""

    model_path: str
    data: str
    objective: str
    dtype: str
    """fp32, or bf16: weights in float32 under autocast, as rankllm trains."""
    tokens: int
    gradient_checkpointing: bool
    threads: int
    cross_entropy: bool = True
    """Whether the dense ranking objective uses log-probabilities, at all positions in float32, or logits."""

    @property
    def name(self) -> str:
        """The objective, and the variant of the dense computation if it is not the default."""
        return self.objective if self.cross_entropy else f"{self.objective}, dense logits only"


class Subject:
    """A model and a record, to be processed with the lean or the dense forward pass."""

    def __init__(self, case: Case) -> None:
        from rankllm_train.models.loading import load_model
        from rankllm_train.recipe.sections import LoraSection, ModelSection
        from rankllm_train.training.objectives import ListwiseObjective

        pin_threads(case.threads)
        section = ModelSection(name_or_path=case.model_path, precision=case.dtype)
        self.is_bf16 = case.dtype == "bf16"
        self.cross_entropy = case.cross_entropy
        self.objective = ListwiseObjective(name=case.objective, weighted=True, weight=10.0)
        self.model = load_model(section, kind="causal", lora=LoraSection(), seed=0).train()
        if case.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.batch, self.short_batch, self.n_logits = _batches(case, section)

    def step(self, way: str, *, short: bool = False) -> float:
        """Run forward and backward, leave the gradients on the model, and return the loss."""
        import torch

        batch = self.short_batch if short else self.batch
        self.model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.is_bf16):
            loss = self._lean_loss(batch) if way == "lean" else self._dense_loss(batch)
        loss.backward()
        return float(loss.detach())

    def gradients(self) -> dict[str, Tensor]:
        """Copies of the gradients by parameter name."""
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    def _lean_loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self.objective.parts(self.objective.sums(self.model, batch), self.objective.counts(batch)).total

    def _dense_loss(self, batch: dict[str, Tensor]) -> Tensor:
        import torch

        from rankllm_train.training.losses import IGNORED_LABEL, ranknet

        labels_BT = None
        if "labels" in batch:  # ours are already shifted by one; transformers shifts them itself
            labels_BT = torch.full_like(batch["labels"], IGNORED_LABEL)
            labels_BT[:, 1:] = batch["labels"][:, :-1]
        own_forward = type(self.model).forward  # the lean one is bound to the object
        out = own_forward(self.model, input_ids=batch["input_ids"], labels=labels_BT, use_cache=False)
        if self.objective.name == "generation":
            return out.loss
        logits_BTV = out.logits
        if self.cross_entropy and labels_BT is None:
            logits_BTV = logits_BTV.float().log_softmax(dim=-1)
        rows_BV = logits_BTV[torch.arange(len(logits_BTV)), batch["read_positions"]].float()
        list_loss = ranknet(rows_BV.gather(1, batch["read_ids"]), batch["ranks"], discount=True)
        return list_loss if labels_BT is None else out.loss + self.objective.weight * list_loss


def _batches(case: Case, section: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
    """The nearest record as a batch of one, the same with a short prompt, and the number of read positions."""
    from rankllm_train.data.rankings import with_identifiers
    from rankllm_train.data.sources import listwise_source
    from rankllm_train.encoding.batches import ListwiseCollator
    from rankllm_train.encoding.listwise import ListwiseItem, encode_listwise
    from rankllm_train.encoding.listwise_encoder import ListwiseEncoder
    from rankllm_train.models.loading import load_tokenizer

    data = encode_listwise(
        (with_identifiers(record, "alpha") for record in listwise_source(case.data, limit=N_RECORDS)),
        ListwiseEncoder(load_tokenizer(section), objective=case.objective),
        objective=case.objective,
        context_tokens=2 * case.tokens,
        overlong="skip",
    )
    collate = ListwiseCollator(objective=case.objective, identifier_ids=data.identifier_ids, pad_id=0)
    example = min(data.examples, key=lambda e: abs(len(e) - case.tokens))
    whole, short = (collate([ListwiseItem(0, e)]) for e in (example, _with_short_prompt(example)))
    return whole, short, len(example) - example.n_prompt if case.objective != "ranking" else 1


def _with_short_prompt(example: ListwiseExample) -> ListwiseExample:
    cut = example.n_prompt - SHORT_PROMPT_TOKENS
    return replace(example, token_ids=example.token_ids[cut:], n_prompt=SHORT_PROMPT_TOKENS)


def extra_memory(case: Case, way: str) -> int:
    """Bytes by which one pass increases the resident size of a fresh process."""
    child = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps([case, way])],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": str(case.threads)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(child.stdout.split()[-1])


def measure_here(case: Case, way: str) -> int:
    """Measurement that `extra_memory` requests from its child process."""
    subject = Subject(case)
    subject.step(way, short=True)
    subject.model.zero_grad(set_to_none=True)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak resident size
    before = _status_bytes("VmRSS")
    subject.step(way)
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def table_row(case: Case, *, repeats: int) -> str:
    """Measure one case."""
    memory = {way: extra_memory(case, way) for way in WAYS}
    subject = Subject(case)
    losses, gradients = {}, {}
    for way in WAYS:
        losses[way] = subject.step(way)
        gradients[way] = subject.gradients()
    furthest = max(float((gradients["lean"][name] - g).abs().max()) for name, g in gradients["dense"].items())
    largest = max(float(g.abs().max()) for g in gradients["dense"].values())
    gradients.clear()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            began = time.process_time()
            subject.step(way)
            seconds[way].append(time.process_time() - began)
    n_tokens = subject.batch["input_ids"].numel()
    speed = {way: n_tokens / median(seconds[way]) for way in WAYS}
    return (
        f"| {case.name} | {case.dtype} | {n_tokens:,} | {subject.n_logits} "
        f"| {speed['dense']:.0f} | {speed['lean']:.0f} | {speed['lean'] / speed['dense']:.2f} "
        f"| {memory['dense'] / GIB:.2f} | {memory['lean'] / GIB:.2f} | {memory['lean'] / memory['dense']:.2f} "
        f"| {losses['lean']:.4f} | {abs(losses['lean'] - losses['dense']):.1e} | {furthest / largest:.1e} |"
    )


@click.command()
@click.option("--model-path", help="Folder of a language model, such as SmolLM2-135M-Instruct.")
@click.option("--data", type=click.Path(exists=True), help="Listwise training records.")
@click.option("--objective", "objectives", multiple=True, default=OBJECTIVES, show_default=True)
@click.option("--dtype", "dtypes", multiple=True, default=("fp32", "bf16"), show_default=True)
@click.option("--tokens", default=2048, show_default=True)
@click.option("--gradient-checkpointing", is_flag=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--child", hidden=True)
def main(
    model_path: str,
    data: str,
    objectives: tuple[str, ...],
    dtypes: tuple[str, ...],
    tokens: int,
    gradient_checkpointing: bool,
    repeats: int,
    threads: int,
    child: str | None,
) -> None:
    """Print one markdown row per objective and precision."""
    if child:
        values, way = json.loads(child)
        print(measure_here(Case(*values), way))
        return
    print(describe_machine(threads), flush=True)
    print(
        "\n| objective | precision | tokens | positions read | tokens/s dense | lean | ratio "
        "| extra GiB dense | lean | ratio | loss | loss differs by | gradients differ by |"
        "\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for dtype in dtypes:
        for objective in objectives:
            case = Case(model_path, data, objective, dtype, tokens, gradient_checkpointing, threads)
            print(table_row(case, repeats=repeats), flush=True)
            if objective == "ranking":
                print(table_row(case._replace(cross_entropy=False), repeats=repeats), flush=True)


if __name__ == "__main__":
    main()
