"""Prompts of one request's windows: passages are truncated until a window fits the context, then searched for in it.

Source: castorini/rank_llm@1b3cabb src/rank_llm/rerank/listwise/rank_listwise_os_llm.py, `create_prompt`, with a lower
bound.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from rankllm_core.card import ListwiseCard
from rankllm_core.errors import RankLLMError
from rankllm_core.prompts.content import PromptFindings, find_same
from rankllm_core.prompts.template import Message
from rankllm_core.text import first_words, fix_text, passage_text, safe_query, words_in
from rankllm_core.types import Candidate, Request
from rankllm_infer.engines.base import Prompt, Read
from rankllm_infer.ranking.prompts import OPENING, PromptWriter, WrittenPrompt, window_labels
from rankllm_infer.ranking.settings import RankingSettings

_HOPELESS_RATIO = 4
"""If the first prompt is this many times too long, the minimum is tried immediately: stepwise truncation could take a
minute."""
_FIRST_CUT_CHARACTERS = 256
"""Initial number of characters when truncating by characters; halved until it fits."""
_LEAD_CHARACTERS = 12
"""Characters before a passage that are searched together with it: `[7] a` never occurs by chance, `a` always does."""
_PART_CHARACTERS = 24
"""Characters in a part of a long passage; a template that changes its ends may keep the middle."""


@dataclass(slots=True, kw_only=True)
class WindowPrompts:
    """Writes the prompts for the windows of one request."""

    request: Request
    card: ListwiseCard
    settings: RankingSettings
    writer: PromptWriter
    read: Read
    texts: dict[str, str] = field(default_factory=dict)
    """docid -> usable part of its text."""
    query: str = field(init=False)
    """Query, sanitized once for all windows."""

    def __post_init__(self) -> None:
        self.query = safe_query(self.request.query.text, alpha=self.card.identifiers == "alpha")

    def prompt(self, candidates: Sequence[Candidate]) -> tuple[Prompt, PromptFindings]:
        """Return the prompt of a window, and findings about passages it does not show."""
        labels = window_labels(self.card, len(candidates))
        texts = [self._text(candidate) for candidate in candidates]
        answer_tokens = self.writer.count(self.card.template.write_answer(labels))
        window = self._fitted(candidates, labels, texts, answer_tokens=answer_tokens)
        prompt = Prompt(
            text=window.written.text,
            read=self.read,
            identifiers=labels,
            messages=window.written.messages,
            token_ids=window.written.token_ids,
            max_new_tokens=1 if self.read == "first-token" else answer_tokens,
            form=self.card.template.answer_form,
            top_k=self.settings.decode_top_k,
        )
        findings = find_in_window(
            window,
            write=lambda passages: self._show(candidates, labels, passages).key,
            text_of=lambda position: passage_text(candidates[position].doc),
        )
        return prompt, findings

    def _fitted(
        self, candidates: Sequence[Candidate], labels: Sequence[str], texts: Sequence[str], *, answer_tokens: int
    ) -> ShownWindow:
        """Return the window with passages truncated to fit the context."""
        shown: list[ShownWindow] = []  # the last one written

        def write(words: int, characters: int | None) -> WrittenPrompt:
            shown[:] = [self._show(candidates, labels, [first_words(text, words)[:characters] for text in texts])]
            return shown[0].written

        written, words = fit_window(
            write,
            n_passages=len(candidates),
            longest_words=max(map(words_in, texts)),
            max_words=self.card.max_passage_words,
            # The original budgets the prompt without the opening bracket; reserve room for it here.
            prompt_tokens=self.card.context_tokens - answer_tokens + (1 if self.read == "first-token" else 0),
            qid=self.request.query.qid,
        )
        (fitted,) = shown
        if self.settings.strategy == "full" and written.n_tokens < write(self.card.max_passage_words, None).n_tokens:
            raise self._does_not_fit(len(candidates), words)
        return fitted

    def _show(self, candidates: Sequence[Candidate], labels: Sequence[str], passages: Sequence[str]) -> ShownWindow:
        """Write the window with these passages."""
        messages = self.card.template.render(
            self.query,
            passages,
            labels=labels,
            scores=[candidate.score for candidate in candidates],
            system_message=self.settings.system_message,
            few_shot=self.settings.few_shot,
        )
        written = self.writer.write(messages, opening=OPENING if self.read == "first-token" else "")
        return ShownWindow(written, messages)

    def _does_not_fit(self, n_candidates: int, words: int) -> ContextTooSmallError:
        """Build the error for --strategy full: it promises whole passages, so truncating them is the user's
        decision."""
        shorten = f"--max-passage-words {words}, " if words > 1 else ""
        return ContextTooSmallError(
            f"query {self.request.query.qid!r}: its {n_candidates} candidates together exceed the context of "
            f"{self.card.context_tokens} tokens; use {shorten}a larger --context-size, "
            "a smaller --top-k-candidates, or another --strategy"
        )

    def _text(self, candidate: Candidate) -> str:
        """Return the candidate's text, repaired once for all windows and truncated to its usable length."""
        if candidate.docid not in self.texts:
            try:
                text = passage_text(candidate.doc)
            except RankLLMError as error:
                raise RankLLMError(f"docid {candidate.docid!r}: {error}") from None
            self.texts[candidate.docid] = first_words(text, self.card.max_passage_words)
        return self.texts[candidate.docid]


class ContextTooSmallError(RankLLMError):
    """Not even one character per passage fits next to the query."""


def fit_window(
    write: Callable[[int, int | None], WrittenPrompt],
    *,
    n_passages: int,
    longest_words: int,
    max_words: int,
    prompt_tokens: int,
    qid: str,
) -> tuple[WrittenPrompt, int]:
    """Return a window's prompt with the largest number of words per passage found by the original's rule, and that
    number.

    write: returns the prompt for a number of words per passage and a number of characters of these (None: all).
    longest_words: words of the longest passage; larger numbers do not change the prompt. prompt_tokens: maximum tokens
    of the prompt (context minus answer). Raises ContextTooSmallError naming the query if one character per passage is
    still too much.
    """
    words, characters = max_words, None
    prompt = write(words, characters)
    if prompt.n_tokens > _HOPELESS_RATIO * prompt_tokens and (least := write(1, 1)).n_tokens > prompt_tokens:
        raise _too_small(qid, least.n_tokens, prompt_tokens)
    while (over := prompt.n_tokens - prompt_tokens) > 0:
        if words > 1:
            words = max(1, words - max(1, over // (4 * n_passages)))
            if words >= longest_words:
                continue
        elif characters != 1:
            # Text without spaces: one "word" can be a whole page.
            characters = _FIRST_CUT_CHARACTERS if characters is None else characters // 2
        else:
            raise _too_small(qid, prompt.n_tokens, prompt_tokens)
        prompt = write(words, characters)
    return prompt, words


def _too_small(qid: str, n_tokens: int, prompt_tokens: int) -> ContextTooSmallError:
    return ContextTooSmallError(
        f"query {qid!r}: the prompt takes {n_tokens} tokens with one character per passage, but {prompt_tokens} are "
        "available; shorten the query, or use a smaller --window-size (--strategy full: --top-k-candidates) or a "
        "larger --context-size"
    )


@dataclass(frozen=True, slots=True)
class ShownWindow:
    """Prompt of a window, with the messages it was written from."""

    written: WrittenPrompt
    messages: tuple[Message, ...]

    @property
    def passages(self) -> tuple[str, ...]:
        """Passages as inserted, truncated and sanitized, by position."""
        spans = (span for message in self.messages for span in message.spans)
        return tuple({span.position: span.text for span in spans if span.position is not None}.values())

    @property
    def key(self) -> Hashable:
        """Value that identifies the prompt."""
        return self.written.token_ids or self.written.text


def find_in_window(
    window: ShownWindow, *, write: Callable[[Sequence[str]], Hashable], text_of: Callable[[int], str]
) -> PromptFindings:
    """Check that each passage of a window is shown: its text is in the prompt, or other text would change the prompt.

    write: returns the key of the window with other passages; called only if a text is not found. text_of: returns the
    whole text of a passage by position; called only if two passages are shown identically.
    """
    passages, text = window.passages, window.written.text
    shown = [position for position, passage in enumerate(passages) if passage and not passage.isspace()]
    are_distinct = len(set(passages)) == len(passages)
    if are_distinct and all(message.content in text for message in window.messages if message.role == "user"):
        return PromptFindings(n_prompts=len(shown))  # the usual case: all messages are in the prompt, verbatim
    missing = _not_found(window, passages, shown)
    nothing = _without_effect(window.key, passages, missing, write) if missing else ()
    return PromptFindings(
        n_prompts=len(shown),
        nothing=nothing,
        same=find_same(passages, [position for position in shown if position not in nothing], text_of),
    )


def _not_found(window: ShownWindow, passages: Sequence[str], shown: Sequence[int]) -> list[int]:
    """Return the passages whose text does not follow the previous one in the prompt."""
    text, start = window.written.text, 0
    missing = []
    needles = _needles(window)
    for position in shown:
        needle = needles[position]
        found = text.find(needle, start)
        if found >= 0:
            start = found + len(needle)
        elif not _is_partly_in(passages[position], text):
            missing.append(position)
    return missing


def _needles(window: ShownWindow) -> dict[int, str]:
    """Map positions to the passage together with the template text before it."""
    needles: dict[int, str] = {}
    for message in window.messages:
        before = ""
        for span in message.spans:
            if span.position is not None:
                needles.setdefault(span.position, before[-_LEAD_CHARACTERS:].lstrip() + span.text)
                before = ""
            else:
                before += span.text
    return needles


def _is_partly_in(passage: str, text: str) -> bool:
    """Return whether a long passage is shown apart from changes by the chat template or by repairing the whole
    prompt."""
    repaired = fix_text(passage)
    middle = max(0, (len(repaired) - _PART_CHARACTERS) // 2)
    parts = (repaired[:_PART_CHARACTERS], repaired[middle : middle + _PART_CHARACTERS], repaired[-_PART_CHARACTERS:])
    return len(repaired) >= _PART_CHARACTERS and any(part in text for part in parts)


def _without_effect(
    key: Hashable, passages: Sequence[str], missing: Sequence[int], write: Callable[[Sequence[str]], Hashable]
) -> tuple[int, ...]:
    """Return the missing passages that could be replaced by any text without changing the prompt."""

    def has_no_effect(positions: Sequence[int]) -> bool:
        changed = list(passages)
        for position in positions:
            changed[position] = "a" if changed[position].startswith("0") else "0"
        return write(changed) == key

    if has_no_effect(missing):  # one extra prompt covers a template that drops all passages
        return tuple(missing)
    return tuple(position for position in missing if has_no_effect([position])) if len(missing) > 1 else ()
