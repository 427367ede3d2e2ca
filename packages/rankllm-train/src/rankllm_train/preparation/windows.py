"""Windows of a labelled list as listwise records: sampling of passages, and writing of prompt and answer.

The prompt is identical to the one written for the same passages at inference.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.prompts.template import ListwiseTemplate, Message, default_listwise_template, load_template
from rankllm_core.text import first_words, passage_text, safe_query, title_and_text
from rankllm_core.types import MAX_ALPHA, IdentifierKind, identifiers
from rankllm_train.data.rankings import target_ranks
from rankllm_train.data.records import parse_listwise

_ROLES = {"system": "system", "user": "human"}
WindowSample = Literal["uniform", "with-relevant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """Sampling of windows. RankZephyr's augmentation: 2 to 20 passages, shuffled (arXiv:2312.02724)."""

    per_query: int = 1
    """Number of windows drawn from each list."""
    min_size: int = 2
    max_size: int = 20
    """The window size is drawn uniformly from `min_size` to `max_size`, or to the number of candidates if smaller."""
    shuffle: bool = True
    """Whether to shuffle the passages; otherwise they are in first-stage order."""
    sample: WindowSample = "with-relevant"
    """`uniform`: any passages. `with-relevant`: one of the relevant passages, then any others."""
    require_relevant: bool = True
    """Whether to skip windows without a relevant passage."""
    seed: int = 42

    def __post_init__(self) -> None:
        if not 2 <= self.min_size <= self.max_size:
            raise ConfigError(
                f"windows: expected 2 <= --min-window <= --max-window, found {self.min_size} and {self.max_size}"
            )
        if self.per_query < 1:
            raise ConfigError(f"windows: expected 1 or more per query, found {self.per_query}")


def draw_windows(n: int, rule: WindowRule, *, relevant: Collection[int], key: str) -> Iterator[tuple[int, ...]]:
    """Yield `rule.per_query` windows over n candidates, as indices in the order shown.

    relevant: indices of relevant candidates; if there are none, windows are drawn uniformly. key: identifies the list;
    windows are a function of it, the seed and their number.
    Raises ConfigError if there are fewer candidates than the minimum window size.
    """
    if n < rule.min_size:
        raise ConfigError(f"windows: expected {rule.min_size} or more candidates, found {n}")
    for number in range(1, rule.per_query + 1):
        draw = random.Random(f"{rule.seed}/{key}/{number}")
        size = draw.randint(rule.min_size, min(rule.max_size, n))
        chosen: list[int] = []
        if rule.sample == "with-relevant" and relevant:
            chosen.append(draw.choice(sorted(relevant)))
        others = [position for position in range(n) if position not in chosen]
        chosen += draw.sample(others, size - len(chosen))
        if rule.shuffle:
            draw.shuffle(chosen)
        else:
            chosen.sort()
        yield tuple(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWriter:
    """Writes windows as training records."""

    template: ListwiseTemplate
    identifiers: IdentifierKind
    max_passage_words: int = 300
    """Maximum words per passage, as at inference; see the card key of this name."""

    def record(
        self,
        query: str,
        docs: Sequence[Mapping[str, object]],
        *,
        docids: Sequence[str],
        best_first: Sequence[int],
        record_id: str,
        positive_docids: Sequence[str] = (),
    ) -> dict[str, object]:
        """Return the record of a window, in the format that `train listwise` reads.

        docs: passages in the order shown. best_first: their indices in the target order. positive_docids: docids known
        to be relevant, for `train split`. Raises RankLLMError naming the docid of a passage without a text field.
        """
        labels = identifiers(self.identifiers, len(docs))
        messages = self._messages(query, [self._text(doc, docid) for doc, docid in zip(docs, docids, strict=True)])
        turns = [{"from": _ROLES[message.role], "value": message.content} for message in messages]
        turns.append({"from": "gpt", "value": self.template.write_answer([labels[place] for place in best_first])})
        record: dict[str, object] = {"id": record_id, "query": query, "docids": list(docids)}
        if positive_docids:
            record["positive_docids"] = list(positive_docids)
        return record | {"conversations": turns}

    def _messages(self, query: str, texts: Sequence[str]) -> tuple[Message, ...]:
        alpha = self.identifiers == "alpha"
        labels = identifiers(self.identifiers, len(texts))
        return self.template.render(
            safe_query(query, alpha=alpha),
            [first_words(text, self.max_passage_words) for text in texts],
            labels=labels,
        )

    @staticmethod
    def _text(doc: Mapping[str, object], docid: str) -> str:
        try:
            return _repaired_text(*title_and_text(doc))
        except RankLLMError as error:
            raise RankLLMError(f"docid {docid!r}: {error}") from None


@lru_cache(maxsize=8192)
def _repaired_text(title: str, text: str) -> str:
    """Return a repaired passage, cached: repair takes most of the time, and passages occur in windows of many
    queries."""
    return passage_text({"title": title, "text": text})


def record_writer(
    template: str | None, identifiers: IdentifierKind | None, *, max_passage_words: int, max_size: int
) -> RecordWriter:
    """Return the writer for a template and identifiers; one that is None follows from the other, numeric by default.

    template: name of a bundled template, or a YAML file. max_size: maximum window size.
    Raises ConfigError if they do not match, or if `train listwise` could not read the records.
    """
    loaded = load_template(template) if template else None
    if loaded is not None and not isinstance(loaded, ListwiseTemplate):
        raise ConfigError(f"template {loaded.name}: expected a listwise template, found a {loaded.kind} one")
    if loaded is not None and identifiers is None:
        identifiers = "alpha" if loaded.identifiers == "alpha" else "numeric"
    kind: IdentifierKind = identifiers or "numeric"
    if loaded is None:
        loaded = default_listwise_template(kind)
    if loaded.identifiers not in (None, kind):
        raise ConfigError(
            f"--identifiers {kind}: template {loaded.name} uses {loaded.identifiers} identifiers; "
            "choose a matching template with --prompt-template-path"
        )
    if kind == "alpha" and max_size > MAX_ALPHA:
        raise ConfigError(
            f"--max-window {max_size}: alpha identifiers only go up to Z; use at most {MAX_ALPHA}, or numeric "
            "identifiers"
        )
    writer = RecordWriter(template=loaded, identifiers=kind, max_passage_words=max_passage_words)
    _check_readable(writer)
    return writer


def _check_readable(writer: RecordWriter) -> None:
    """Raise ConfigError unless `train listwise` can read records of this template."""
    name = writer.template.name
    if writer.template.method != "singleturn_listwise":
        raise ConfigError(
            f"template {name}: has one turn per passage, but records have a single prompt; use a single-turn template"
        )
    if "{score" in writer.template.body:
        raise ConfigError(
            f"template {name}: shows first-stage scores, which records do not contain; use another template"
        )
    made = writer.record("q", [{"text": "a"}, {"text": "b"}], docids=("1", "2"), best_first=(1, 0), record_id="sample")
    try:
        ranks = target_ranks(parse_listwise(made, path=name, line=1))
    except RankLLMError as error:
        raise ConfigError(f"template {name}: produces records that `train listwise` cannot read: {error}") from None
    if ranks != (2, 1):
        raise ConfigError(f"template {name}: its records are read back in a different order; use another template")
    if re.search(r"\{candidate\}[^\n]", writer.template.body):
        raise ConfigError(
            f"template {name}: has text after the passage on the same line, which cannot be separated from it when a "
            "long passage is truncated; move it to a line of its own"
        )
