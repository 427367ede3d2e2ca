"""Generate docs/rerank-options.md from the option table of `rankllm-infer rerank`.

uv run --all-packages python scripts/option_reference.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

from rankllm_infer.cli.rerank.options import OWNERS
from rankllm_infer.option_table import GROUPS, Row, rows_of
from rankllm_infer.options import RerankOptions

PAGE = Path(__file__).parents[1] / "docs" / "rerank-options.md"
HEAD = """\
# `rerank` options

```bash
rankllm-infer rerank --model-path smollm2-first --requests requests.jsonl --output ranked.trec --window-size 10
```

In Python, options are keyword arguments of `load_reranker` and fields of `RerankOptions` ([python.md](python.md)):

```python
from rankllm_infer import load_reranker

reranker = load_reranker("smollm2-first", window_size=10)
```

Options may also be written with underscores (`--window_size`). Use the `--no-` form to turn off a switch. Setting an
option that has no effect because of the model, the engine or another option is an error.

- **default**: "from the card" means the value in the model's `rankllm.yaml`, or in the bundled card for a published
  model ([loading-models.md](loading-models.md#model-cards)).
- **applies to**: generation and FIRST are the two listwise methods. If the cell is blank, the option always applies.
- **resume**: whether the option must stay the same for an interrupted run to resume. The journal is stored next to the
  first output (`--output`, `--output-jsonl`, `--trace`), so that path must stay the same.
  - same value (card): the card is compared, with all options applied to it.
  - same value (as loaded): the selected device and dtype are compared, not the option itself.
  - same contents: files, models and servers are compared by content, not by name.

This page is generated from the option table by `scripts/option_reference.py`.
"""
RESUME = {
    "none": "any value",
    "option": "same value",
    "card": "same value (card)",
    "content": "same contents",
    "loaded": "same value (as loaded)",
}


def reference() -> str:
    """Return the whole page."""
    return HEAD + "".join(f"\n{line}\n" if line.startswith("#") else f"{line}\n" for line in _tables())


def _tables() -> Iterator[str]:
    rows = [row for owner in OWNERS for row in rows_of(owner).values()]
    for group in GROUPS:
        if not any(row.option.group == group for row in rows):
            continue
        yield f"## {group}"
        yield ""
        yield "| option | Python | description | default | applies to | resume |"
        yield "|---|---|---|---|---|---|"
        yield from (_line(row) for row in rows if row.option.group == group)


def _line(row: Row) -> str:
    field = f"`{row.name}`" if row.owner is RerankOptions else ""
    default = "required" if row.default is MISSING else "off" if row.default is False else row.default_text
    cells = (_spelling(row), field, row.help, default, row.scope, RESUME[row.option.effect])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _spelling(row: Row) -> str:
    if row.option.set_by.startswith("--"):
        return f"set by `{row.option.set_by}`"
    if row.option.set_by:
        return f"environment: `{row.option.set_by}`"
    name, *aliases = row.option.flags
    texts = [f"`{name} / {row.off}`" if row.is_switch else f"`{name} {row.metavar}`"]
    if row.bounds:
        texts[0] += f" ({row.bounds})"
    return ", ".join([*texts, *(f"`{alias}`" for alias in aliases)])


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
