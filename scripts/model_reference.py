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
# Models that need no options

```bash
rankllm-infer models                                   # this table
rankllm-infer models castorini/rank_zephyr_7b_v1_full  # everything about one model, including the wording of its prompt
rankllm-infer rerank --model-path castorini/rank_zephyr_7b_v1_full --requests requests.jsonl --output ranked.trec
```

Each of these models has a [card](loading-models.md#model-cards) that says how to prompt it and how to read its answers.
The cards are part of rankllm. `*` matches any characters, and a local folder with a model's name is treated as that
model. Other models work too ([without a card](loading-models.md#without-a-card)).

**verified** says how a card was checked:

- *against published weights*: scores were measured with the published weights.
- *on random weights of this architecture*: prompt and scores were compared with the reference implementation on a small
  model with random weights, because the published weights were not available.
- *from its documentation*: the facts come from the sources listed below.

**head** is the output that is read: `permutation` and `first-token` (FIRST) for listwise models;
`sequence-classification` (a score head), `yes-no` (the difference of two logits) or `single-token` (one logit) for
pointwise models; `two-tokens` (which of two passages is preferred) for pairwise models.

This page is generated from the cards by `scripts/model_reference.py`.
"""
TAIL = """
## Unsupported models

These rerankers compute scores in ways that rankllm does not implement:

- `castorini/LiT5-*`: a T5 that encodes each passage separately and whose decoder reads all passages together.
- `jinaai/jina-reranker-v3`: the score is a cosine similarity of hidden states, for up to 64 passages together.
"""
SHOWN = ("output", "probability", "limits", "base", "parameters", "paper", "source")
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
