"""Generate docs/models.md from the bundled cards and the known facts about each model.

uv run --all-packages python scripts/model_reference.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rankllm_core.known_models import VERIFIED
from rankllm_infer.known_models import COLUMNS, ModelFacts, known_models

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
HEAD = """\
# Models that need no flags

```bash
rankllm-infer models                                   # this table
rankllm-infer models castorini/rank_zephyr_7b_v1_full  # everything about one model, with the words of its prompt
rankllm-infer rerank --model-path castorini/rank_zephyr_7b_v1_full --requests requests.jsonl --output ranked.trec
```

Each of these models has a card that says how it is prompted and read: it ships with rankllm, or is part of the bundled
reranker. `*` stands for any characters, and a local folder that keeps a model's name is that model. Other models work
too; [loading-models.md](loading-models.md#without-a-card) says what they are taken for.

**verified** is how far a card was checked:

- *against published weights*: its scores were measured with the weights that users load.
- *on random weights of this architecture*: prompt and scores were compared with the reference's on a small model with
  random weights. No published weights were at hand.
- *from its documentation*: the facts are those of the sources named below.

**head** is what is read of the model: `permutation` and `first-token` (FIRST) of a listwise model;
`sequence-classification` (a score head), `yes-no` (the difference of two logits) or `single-token` (one logit) of a
pointwise one; `two-tokens` (which of two passages is preferred) of a pairwise one.

This page is generated from the cards by `scripts/model_reference.py`.
"""
TAIL = """
## What a card cannot say

These rerankers are read in ways that rankllm does not have:

- `castorini/LiT5-*`: a T5 whose decoder reads all passages at once, each encoded by itself.
- `jinaai/jina-reranker-v3`: the score is a cosine of hidden states, for up to 64 passages at once.
"""
SHOWN = ("read", "probability", "limits", "base", "parameters", "paper", "source")
"""Facts listed in a model's section; the table contains the others."""


def reference() -> str:
    """Return the whole page."""
    models = known_models()
    sections = (line for facts in models for line in _section(facts))
    return "\n".join([HEAD, *_table(models), *sections, TAIL])


def _table(models: tuple[ModelFacts, ...]) -> Iterator[str]:
    yield _line(COLUMNS)
    yield "|" + "---|" * len(COLUMNS)
    for facts in sorted(models, key=lambda facts: VERIFIED.index(facts.known.verified)):
        for model, kind, head, template, engines, *rest in facts.rows():
            yield _line([f"`{model}`", kind, head, f"`{template}`", engines.replace(" ", ", "), *rest])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _section(facts: ModelFacts) -> Iterator[str]:
    yield ""
    yield f"## {facts.known.name}"
    yield ""
    yield "Models: " + ", ".join(f"`{pattern}`" for pattern in facts.known.patterns) + "."
    yield ""
    yield from (f"- {name}: {text}" for name, text in facts.facts() if name in SHOWN)
    yield f"- verified {facts.known.verified}. {facts.known.how}"
    yield from (f"- {note}" for note in facts.known.notes)
    yield from (f"- Unconfirmed: {text}" for text in facts.known.unconfirmed)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
