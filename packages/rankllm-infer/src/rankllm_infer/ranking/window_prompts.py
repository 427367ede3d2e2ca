"""The prompts of one request's windows: passages shortened until a window fits the context, and then looked for in it.

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
"""A first prompt so many times too long is tried at its least at once: cutting step by step could take a minute."""
_FIRST_CUT_CHARACTERS = 256
"""Where cutting by characters begins; halved until it fits."""
_LEAD_CHARACTERS = 12
"""Characters in front of a passage that are looked for with it: `[7] a` is in no prompt by chance, `a` is in each."""
_PART_CHARACTERS = 24
"""Characters of a part of a long passage; a template that changes its ends may leave the middle."""


@dataclass(slots=True, kw_only=True)
class WindowPrompts:
    """Writes the prompts of the windows of one request."""

    request: Request
    card: ListwiseCard
    settings: RankingSettings
    writer: PromptWriter
    read: Read
    texts: dict[str, str] = field(default_factory=dict)
    """docid -> its text, as far as it can be used."""
    query: str = field(init=False)
    """The query, made safe once for all windows."""

    def __post_init__(self) -> None:
        self.query = safe_query(self.request.query.text, alpha=self.card.identifiers == "alpha")

    def prompt(self, candidates: Sequence[Candidate]) -> tuple[Prompt, PromptFindings]:
        """The prompt of a window, and what it does not show of its passages."""
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
        """The window with passages short enough for the context."""
        shown: list[ShownWindow] = []  # the last one written

        def write(words: int, characters: int | None) -> WrittenPrompt:
            shown[:] = [self._show(candidates, labels, [first_words(text, words)[:characters] for text in texts])]
            return shown[0].written

        written, words = fit_window(
            write,
            n_passages=len(candidates),
            longest_words=max(map(words_in, texts)),
            max_words=self.card.max_passage_words,
            # The original budgets the prompt without the opening bracket; leave the room it needs to us.
            prompt_tokens=self.card.context_tokens - answer_tokens + (1 if self.read == "first-token" else 0),
            qid=self.request.query.qid,
        )
        (fitted,) = shown
        if self.settings.strategy == "full" and written.n_tokens < write(self.card.max_passage_words, None).n_tokens:
            raise self._does_not_fit(len(candidates), words)
        return fitted

    def _show(self, candidates: Sequence[Candidate], labels: Sequence[str], passages: Sequence[str]) -> ShownWindow:
        """The window with these passages in it."""
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
        """All at once is a wish for whole passages: how far to shorten them is the user's choice."""
        shorten = f"--max-passage-words {words}, " if words > 1 else ""
        return ContextTooSmallError(
            f"query {self.request.query.qid!r}: its {n_candidates} candidates do not fit the context of "
            f"{self.card.context_tokens} tokens at once; use {shorten}a larger --context-size, "
            "a smaller --top-k-candidates, or another --strategy"
        )

    def _text(self, candidate: Candidate) -> str:
        """The candidate's text, repaired once however many windows it is in, and kept no longer than it can be used."""
        if candidate.docid not in self.texts:
            try:
                text = passage_text(candidate.doc)
            except RankLLMError as error:
                raise RankLLMError(f"docid {candidate.docid!r}: {error}") from None
            self.texts[candidate.docid] = first_words(text, self.card.max_passage_words)
        return self.texts[candidate.docid]


class ContextTooSmallError(RankLLMError):
    """Not even one character a passage fits beside the query."""


def fit_window(
    write: Callable[[int, int | None], WrittenPrompt],
    *,
    n_passages: int,
    longest_words: int,
    max_words: int,
    prompt_tokens: int,
    qid: str,
) -> tuple[WrittenPrompt, int]:
    """The window's prompt with the most words a passage that the original's rule finds, and that number of words.

    write: the prompt with so many words a passage, and of those so many characters (None: all). longest_words: of the
    longest passage; with as many words or more the prompt is the same. prompt_tokens: tokens the prompt may have
    (context less answer).
    Raises ContextTooSmallError naming the query when one character a passage is still too much.
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
            # Text without blanks: one "word" can be a whole page.
            characters = _FIRST_CUT_CHARACTERS if characters is None else characters // 2
        else:
            raise _too_small(qid, prompt.n_tokens, prompt_tokens)
        prompt = write(words, characters)
    return prompt, words


def _too_small(qid: str, n_tokens: int, prompt_tokens: int) -> ContextTooSmallError:
    return ContextTooSmallError(
        f"query {qid!r}: the prompt takes {n_tokens} tokens with one character a passage, and {prompt_tokens} are left "
        "for it; shorten the query, or use a smaller --window-size (--strategy full: --top-k-candidates) or a larger "
        "--context-size"
    )


@dataclass(frozen=True, slots=True)
class ShownWindow:
    """A window's prompt, and what was to be in it."""

    written: WrittenPrompt
    messages: tuple[Message, ...]

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages as they were put in, shortened and made safe, by their positions."""
        spans = (span for message in self.messages for span in message.spans)
        return tuple({span.position: span.text for span in spans if span.position is not None}.values())

    @property
    def key(self) -> Hashable:
        """What stands for the prompt."""
        return self.written.token_ids or self.written.text


def find_in_window(
    window: ShownWindow, *, write: Callable[[Sequence[str]], Hashable], text_of: Callable[[int], str]
) -> PromptFindings:
    """Look at each passage of a window: its text is in the prompt, or another text would give another prompt.

    write: the key of the window with other passages in it; asked for only where a text is not found.
    text_of: the whole text of a passage by its position; asked for only where two are shown alike.
    """
    passages, text = window.passages, window.written.text
    shown = [position for position, passage in enumerate(passages) if passage and not passage.isspace()]
    are_distinct = len(set(passages)) == len(passages)
    if are_distinct and all(message.content in text for message in window.messages if message.role == "user"):
        return PromptFindings(n_prompts=len(shown))  # nearly always: what was said is there, word for word
    missing = _not_found(window, passages, shown)
    nothing = _without_effect(window.key, passages, missing, write) if missing else ()
    return PromptFindings(
        n_prompts=len(shown),
        nothing=nothing,
        same=find_same(passages, [position for position in shown if position not in nothing], text_of),
    )


def _not_found(window: ShownWindow, passages: Sequence[str], shown: Sequence[int]) -> list[int]:
    """The passages whose text is not in the prompt, one behind the other."""
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
    """By position: the passage with what the template writes in front of it."""
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
    """Whether a long passage is there but for what a chat template, or repairing the whole prompt, has changed."""
    repaired = fix_text(passage)
    middle = max(0, (len(repaired) - _PART_CHARACTERS) // 2)
    parts = (repaired[:_PART_CHARACTERS], repaired[middle : middle + _PART_CHARACTERS], repaired[-_PART_CHARACTERS:])
    return len(repaired) >= _PART_CHARACTERS and any(part in text for part in parts)


def _without_effect(
    key: Hashable, passages: Sequence[str], missing: Sequence[int], write: Callable[[Sequence[str]], Hashable]
) -> tuple[int, ...]:
    """Those in whose place any other text would give the same prompt."""

    def has_no_effect(positions: Sequence[int]) -> bool:
        changed = list(passages)
        for position in positions:
            changed[position] = "a" if changed[position].startswith("0") else "0"
        return write(changed) == key

    if has_no_effect(missing):  # one more prompt for the whole window, where the template drops all of it
        return tuple(missing)
    return tuple(position for position in missing if has_no_effect([position])) if len(missing) > 1 else ()
