"""Windows of a labelled list as listwise records: which passages are drawn, and how prompt and answer are written.

The prompt is the one that inference writes for the same passages.
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
    """How windows are drawn. RankZephyr's augmentation: 2 to 20 passages, shuffled (arXiv:2312.02724)."""

    per_query: int = 1
    """Windows that are drawn from each list."""
    min_size: int = 2
    max_size: int = 20
    """The number of passages is drawn evenly from `min_size` to `max_size`, or to as many as there are."""
    shuffle: bool = True
    """Whether passages are shown in random order; if not, in first-stage order."""
    sample: WindowSample = "with-relevant"
    """`uniform`: any passages. `with-relevant`: one of the relevant ones, then any others."""
    require_relevant: bool = True
    """Whether a window without a relevant passage is left out."""
    seed: int = 42

    def __post_init__(self) -> None:
        if not 2 <= self.min_size <= self.max_size:
            raise ConfigError(
                f"windows: expected 2 <= --min-window <= --max-window, found {self.min_size} and {self.max_size}"
            )
        if self.per_query < 1:
            raise ConfigError(f"windows: expected 1 or more a query, found {self.per_query}")


def draw_windows(n: int, rule: WindowRule, *, relevant: Collection[int], key: str) -> Iterator[tuple[int, ...]]:
    """Yield `rule.per_query` windows over n candidates: positions in the order in which they are shown.

    relevant: positions of relevant candidates; where there is none, windows are drawn evenly. key: names the list;
    the windows are a function of it, of the seed and of their number.
    Raises ConfigError where there are fewer candidates than the smallest window holds.
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
    """Writes windows as records."""

    template: ListwiseTemplate
    identifiers: IdentifierKind
    max_passage_words: int = 300
    """As inference cuts passages; see the card's key of this name."""

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
        """The record of a window, in the layout that `train listwise` reads.

        docs: the passages in the order shown. best_first: their positions in the order to learn. positive_docids:
        those known to be relevant, for `train split`. Raises RankLLMError naming the docid of a passage without a text
        field.
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
    """Repairing a passage takes most of the time, and each is in the windows of many queries."""
    return passage_text({"title": title, "text": text})


def record_writer(
    template: str | None, identifiers: IdentifierKind | None, *, max_passage_words: int, max_size: int
) -> RecordWriter:
    """The writer for a template and identifiers; what is not given follows from the other, and else is numeric.

    template: a shipped one's name, or a YAML file. max_size: passages of the largest window.
    Raises ConfigError where they do not go together, or make records that `train listwise` does not read.
    """
    loaded = load_template(template) if template else None
    if loaded is not None and not isinstance(loaded, ListwiseTemplate):
        raise ConfigError(f"template {loaded.name}: is a {loaded.kind} template; expected a listwise one")
    if loaded is not None and identifiers is None:
        identifiers = "alpha" if loaded.identifiers == "alpha" else "numeric"
    kind: IdentifierKind = identifiers or "numeric"
    if loaded is None:
        loaded = default_listwise_template(kind)
    if loaded.identifiers not in (None, kind):
        raise ConfigError(
            f"--identifiers {kind}: template {loaded.name} speaks of {loaded.identifiers} ones; "
            "give the template for them with --prompt-template-path"
        )
    if kind == "alpha" and max_size > MAX_ALPHA:
        raise ConfigError(f"--max-window {max_size}: alpha identifiers end at Z; use at most {MAX_ALPHA}, or numeric")
    writer = RecordWriter(template=loaded, identifiers=kind, max_passage_words=max_passage_words)
    _check_readable(writer)
    return writer


def _check_readable(writer: RecordWriter) -> None:
    """Raise ConfigError unless `train listwise` reads records of this template."""
    name = writer.template.name
    if writer.template.method != "singleturn_listwise":
        raise ConfigError(f"template {name}: has one turn a passage; records hold one prompt: use a single-turn one")
    if "{score" in writer.template.body:
        raise ConfigError(f"template {name}: shows first-stage scores, which records do not keep; use another one")
    made = writer.record("q", [{"text": "a"}, {"text": "b"}], docids=("1", "2"), best_first=(1, 0), record_id="sample")
    try:
        ranks = target_ranks(parse_listwise(made, path=name, line=1))
    except RankLLMError as error:
        raise ConfigError(f"template {name}: makes records that `train listwise` does not read: {error}") from None
    if ranks != (2, 1):
        raise ConfigError(f"template {name}: its records read back as another order; use another template")
    if re.search(r"\{candidate\}[^\n]", writer.template.body):
        raise ConfigError(
            f"template {name}: has words behind the passage in its line, which could not be told from it when a long "
            "passage is cut; put them in a line of their own"
        )
