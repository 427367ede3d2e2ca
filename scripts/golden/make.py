"""Make tests/golden/vectors.json: small expected values that any clone can test parity with.

Nothing of rankllm is imported. Logits and scores come from plain transformers, on a tiny Llama whose weights are a
formula; losses, windows and measures from double loops over their definitions. Usage: make.py [OUTPUT]
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "vectors.json"
CHARACTERS = "".join(map(chr, range(32, 127)))
"""The vocabulary: token N is character N of this, so that prompts can be read."""
PROMPTS = (
    ("Query: sky. [A] cats sleep [B] air scatters blue light. Best: [", "AB"),
    ("Query: moon. [A] tides follow the moon [B] bread rises [C] the moon is far. Best: [", "ABC"),
    ("Query: x. [A] a [B] b [C] c [D] d [E] e. Best: [", "ABCDE"),
    ("[1] one [2] two [3] three. Best: [", "123"),
)
PAIRS = (
    ("query: sky", "document: air scatters blue light"),
    ("query: sky", "document: cats"),
    ("query: how far away is the moon", "document: about 384,000 kilometres"),
)
RANKINGS: tuple[tuple[list[float], list[int]], ...] = (
    ([2.0, 1.0, 0.5], [1, 2, 3]),
    ([0.1, 0.4, -0.3, 0.9], [2, 1, 4, 3]),
    ([-1.5, 3.0, 3.0, 0.0, 2.5], [5, 1, 2, 4, 3]),
)
"""Scores of a list, and the target rank of each passage."""
GROUPS = ([3.0, 1.0, -2.0], [0.0, 0.5, 0.25, -1.0])
"""Scores of a group whose first passage is the relevant one."""
WINDOWS = ((100, 20, 10), (45, 20, 10), (20, 20, 10), (7, 20, 10), (31, 10, 5))
"""Passages, window size, stride."""
GRADES = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"d": 1, "e": 0}, "q3": {"f": 3}}
RUN = {"q1": ["b", "a", "x", "c"], "q2": ["d", "e"]}
"""q3 is judged and was not retrieved: it counts 0, as `trec_eval -c` counts it."""


def config(**options: Any) -> LlamaConfig:
    """A Llama of a few thousand weights. Its padding token is the blank."""
    return LlamaConfig(
        vocab_size=len(CHARACTERS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        **options,
    )


def fill(model: torch.nn.Module) -> None:
    """Weights by a formula, the same on every machine and in every release of torch."""
    with torch.no_grad():
        for number, (_, weight) in enumerate(sorted(model.named_parameters())):
            if weight.dim() == 1:  # the scales of the norms
                weight.fill_(1.0)
                continue
            steps = torch.arange(weight.numel(), dtype=torch.float64).reshape(weight.shape)
            weight.copy_((0.35 * torch.sin(steps * 0.7391 + number + 1)).to(weight.dtype))


def decoder() -> LlamaForCausalLM:
    """The language model, in float32."""
    model = LlamaForCausalLM(config()).float().eval()
    fill(model)
    return model


def classifier() -> LlamaForSequenceClassification:
    """The same model under a score head of one number."""
    model = LlamaForSequenceClassification(config(num_labels=1)).float().eval()
    fill(model)
    return model


def ids_of(text: str) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


def first_logits(prompt: str, labels: str) -> dict[str, Any]:
    """Logits of the identifiers at the last position, and the order they mean."""
    with torch.no_grad():
        last = decoder()(torch.tensor([ids_of(prompt)])).logits[0, -1]
    logits = [last[CHARACTERS.index(label)].item() for label in labels]
    order = sorted(range(len(labels)), key=lambda i: -logits[i])
    return {"prompt": prompt, "token_ids": ids_of(prompt), "identifiers": labels, "logits": logits, "order": order}


def pair_score(query: str, document: str) -> dict[str, Any]:
    """The head's score at the last token."""
    ids = ids_of(f"{query} {document}")
    with torch.no_grad():
        score = classifier()(torch.tensor([ids])).logits[0, 0].item()
    return {"text": f"{query} {document}", "token_ids": ids, "score": score}


def ranknet(scores: list[float], ranks: list[int], *, weighted: bool) -> float:
    """Mean logistic loss of the pairs in which the first should be above; weighted: by 1 / (sum of the two ranks)."""
    losses = []
    for i, first in enumerate(scores):
        for j, second in enumerate(scores):
            if ranks[i] < ranks[j]:
                weight = 1 / (ranks[i] + ranks[j]) if weighted else 1.0
                losses.append(weight * math.log1p(math.exp(second - first)))
    return sum(losses) / len(losses)


def cross_entropy(scores: list[float]) -> float:
    """Of the first score under the softmax of all."""
    return -scores[0] + math.log(sum(math.exp(score) for score in scores))


def windows(n: int, size: int, stride: int) -> list[list[int]]:
    """From the bottom up, each [start, end); the last one begins at rank 0."""
    found, end = [], n
    while True:
        found.append([max(0, end - size), end])
        if end - size <= 0:
            return found
        end -= stride


def measures() -> dict[str, float]:
    """Means over the judged queries. Gain is the grade, discount log2(rank + 1), as trec_eval's ndcg_cut."""
    sums = {"nDCG@10": 0.0, "RR@10": 0.0, "AP": 0.0, "Recall@2": 0.0}
    for qid, ranking in RUN.items():
        grades = [GRADES[qid].get(docid, 0) for docid in ranking]
        ideal = sorted(GRADES[qid].values(), reverse=True)
        dcg, best = (sum(g / math.log2(r + 2) for r, g in enumerate(found)) for found in (grades, ideal))
        hits = [rank for rank, grade in enumerate(grades, start=1) if grade > 0]
        n_relevant = sum(grade > 0 for grade in ideal)
        sums["nDCG@10"] += dcg / best
        sums["RR@10"] += 1 / hits[0] if hits else 0.0
        sums["AP"] += sum(count / rank for count, rank in enumerate(hits, start=1)) / n_relevant
        sums["Recall@2"] += sum(rank <= 2 for rank in hits) / n_relevant
    return {name: value / len(GRADES) for name, value in sums.items()}


def vectors() -> dict[str, Any]:
    """All of them."""
    return {
        "made_by": "scripts/golden/make.py",
        "first_logits": [first_logits(prompt, labels) for prompt, labels in PROMPTS],
        "pair_scores": [pair_score(query, document) for query, document in PAIRS],
        "ranking_losses": [
            {
                "scores": scores,
                "ranks": ranks,
                "ranknet": ranknet(scores, ranks, weighted=False),
                "ranknet_weighted": ranknet(scores, ranks, weighted=True),
            }
            for scores, ranks in RANKINGS
        ],
        "group_losses": [{"scores": scores, "cross_entropy": cross_entropy(scores)} for scores in GROUPS],
        "windows": [
            {"n": n, "size": size, "stride": stride, "windows": windows(n, size, stride)} for n, size, stride in WINDOWS
        ],
        "evaluation": {"qrels": GRADES, "run": RUN, "means": measures()},
    }


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    target.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {target}")
