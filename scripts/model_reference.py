"""Generate docs/models.md from the bundled cards and the facts about each model.

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

rankllm includes a [card](loading-models.md#model-cards) for each of these models, which specifies its prompt and how
its output is turned into a ranking. `*` matches any characters. A local folder with the same name as a model is treated
as that model. Other models work too ([without a card](loading-models.md#without-a-card)).

**verified** is how the card was checked:

- *against published weights*: scores were measured with the published weights.
- *on random weights of this architecture*: prompts and scores were compared with the reference implementation on a
  small randomly initialized model, because the published weights were not available.
- *from its documentation*: the card is based on the sources listed in the model's section.

**head** is the model output that is used: `permutation` and `first-token` (FIRST) for listwise models;
`sequence-classification` (a score head), `yes-no` (the difference between two logits) or `single-token` (one logit) for
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
"""Facts listed in a model's section; the other facts are in the table."""
VERIFICATION = {
    "against published weights": "Verified against the published weights.",
    "on random weights of this architecture": "Verified with random weights of this architecture.",
    "from its documentation": "Based on its documentation.",
}
"""Level of verification -> sentence in a model's section."""


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
    yield f"- {VERIFICATION[facts.known.verified]} {facts.known.how}"
    yield from (f"- {note}" for note in facts.known.notes)
    yield from (f"- Unconfirmed: {text}" for text in facts.known.unconfirmed)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
