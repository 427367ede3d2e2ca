"""Pointwise reranking: every query-passage pair is scored independently; all pairs of a request may run
concurrently."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.prompts.content import Passage, PromptFindings, find_in_prompts
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import Message, Span
from rankllm_core.text import first_words, title_and_text
from rankllm_core.trec.runs import decreasing_scores, to_float32
from rankllm_core.types import Candidate, Request, Result, Usage, WindowTrace
from rankllm_infer.engines.base import Answer, EngineError, Prompt, Read
from rankllm_infer.ranking.flow import Flow
from rankllm_infer.ranking.fuse import fuse
from rankllm_infer.ranking.settings import RankingSettings

UNREPORTED_LOGPROB = -20.0
"""Log-probability assumed for an answer that a server did not report.

Source: texttron/tevatron@dd06310 src/tevatron/eval/rerank_vllm.py.
"""
_RETOKENIZED = 64
"""Additional tokens allowed for: a passage truncated to a number of tokens may be tokenized into a few more in the
prompt."""


class PairWriter(Protocol):
    """Writes one pair in the form that an engine takes."""

    def write(self, query: str, *, title: str, text: str, instruction: str | None = None) -> Prompt:
        """Return the prompt of one pair. instruction: None for the template's own."""


class TokenPairWriter:
    """Writes pairs with the model's own tokenizer."""

    def __init__(self, encoder: PairEncoder, card: PointwiseCard) -> None:
        self._encoder = encoder
        self._card = card

    def write(self, query: str, *, title: str, text: str, instruction: str | None = None) -> Prompt:
        """Return the prompt of one pair, with its token ids."""
        template = self._card.template
        if template.is_text:
            prompt, ids = self._encoder.encode_question(query, title=title, text=text, instruction=instruction)
            card = self._card
            return Prompt(text=prompt, read=_read_of(card), identifiers=card.tokens_read, token_ids=ids)
        if template.layout == "pair":
            shown, ids, n_first = self._encoder.encode_texts(query, title=title, text=text)
            return Prompt(text=shown, read="head", token_ids=ids, n_first=n_first)
        shown = template.query.format(query=query) + " " + template.passage.format(title=title, text=text)
        return Prompt(text=shown, read="head", token_ids=self._encoder.encode(query, title=title, text=text))


class MessagePairWriter:
    """Writes pairs as chat messages, for an unknown tokenizer: lengths are counted in words."""

    def __init__(self, card: PointwiseCard) -> None:
        self._card = card

    def write(self, query: str, *, title: str, text: str, instruction: str | None = None) -> Prompt:
        """Return the prompt of one pair, as messages."""
        template = self._card.template
        # Convert token limits to words at 4/3 tokens per word, the usual ratio for English text.
        query = first_words(query, max(1, self._card.query_tokens * 3 // 4))
        document = first_words(f"{title} {text}" if title else text, max(1, self._card.passage_tokens * 3 // 4))
        messages = template.render(query, document, instruction)
        if template.answer_prefix:
            messages = (*messages, Message("assistant", (Span(template.answer_prefix),)))
        return Prompt(
            text="\n".join(f"{message.role}: {message.content}" for message in messages),
            read=_read_of(self._card),
            identifiers=self._card.tokens_read,
            messages=messages,
            max_new_tokens=1,
        )


def _read_of(card: PointwiseCard) -> Read:
    return "first-token" if card.tokens_read else "head"


def _check_served(card: PointwiseCard) -> None:
    """Raise ConfigError if a chat server cannot return this head's score."""
    if card.head == "sequence-classification":
        raise ConfigError("a chat server has no score head; use a yes/no template (--prompt-template-path yes_no)")
    if card.head == "single-token":
        raise ConfigError(
            f"template {card.template.name}: is read by the logit of one token, but a server reports "
            "log-probabilities; use --engine transformers or vllm, or a yes/no template (--prompt-template-path yes_no)"
        )
    if not card.template.is_chat:
        raise ConfigError(
            f"template {card.template.name}: has no chat turns, but a chat server adds its own; "
            "use --engine transformers or vllm"
        )


class PointwiseMethod:
    """Scores every pair of a request independently and sorts by score, ties in first-stage order."""

    max_active = 16
    prompts_at_once = 8
    warnings: tuple[str, ...] = ()
    sample = None

    def __init__(self, card: PointwiseCard, settings: RankingSettings, writer: PairWriter) -> None:
        self.card = card
        self.settings = settings
        self.writer = writer
        self.read: Read = self.check(card, settings)

    @classmethod
    def with_tokenizer(cls, card: PointwiseCard, settings: RankingSettings, tokenizer: Any) -> PointwiseMethod:
        """Build the method of a card. tokenizer: the model's tokenizer; None for a chat server's."""
        if tokenizer is None:
            _check_served(card)
            return cls(card, settings, MessagePairWriter(card))
        limits = PairLimits(query_tokens=card.query_tokens, passage_tokens=card.passage_tokens)
        pairs = PairEncoder(tokenizer, card.template, limits=limits, bos=card.bos, append_eos=card.append_eos)
        return cls(card, settings, TokenPairWriter(pairs, card))

    @staticmethod
    def check(card: PointwiseCard, settings: RankingSettings) -> Read:
        """Return how pairs will be read. Raises ConfigError for an instruction that the prompt does not take."""
        if settings.instruction is not None and not card.template.takes_instruction:
            raise ConfigError(f"--instruction has no effect: {_no_place(card)}")
        return _read_of(card)

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt: query and passage at their limits, plus the surrounding text."""
        around = len(self.writer.write("", title="", text="").token_ids)
        return around + self.card.query_tokens + self.card.passage_tokens + _RETOKENIZED

    def n_prompts(self, n_candidates: int) -> int:
        """Return the number of prompts for a number of candidates."""
        top_k = self.settings.top_k_candidates
        return n_candidates if top_k is None else min(n_candidates, top_k)

    def flow(self, request: Request) -> Flow:
        """Score the pairs of one request and sort them."""
        n_scored = self.n_prompts(len(request.candidates))
        head, rest = request.candidates[:n_scored], request.candidates[n_scored:]
        if not head:
            return Result(query=request.query, candidates=(), n_ranked=0)
        passages = [passage_of(candidate) for candidate in head]
        write = self._writer_of(request)
        built = [write(title, text) for title, text in passages]
        findings = _find(built, passages, write)
        prompts = sharing(built)
        answers = yield prompts
        scores = [_score(answer, candidate.docid) for answer, candidate in zip(answers, head, strict=True)]
        found = (
            *findings.defects([candidate.docid for candidate in head]),
            *_unreported_defects(head, prompts, answers),
        )
        result = Result(
            query=request.query,
            # If no prompt contained its passage, the model has ranked nothing; tied scores keep first-stage order.
            status="fallback" if findings.all_show_nothing else "repaired" if found else "ok",
            defects=found,
            candidates=_by_score(head, scores, rest, self.card),
            usage=sum((answer.usage for answer in answers), Usage(rounds=1)),
            trace=_trace(prompts, answers, head, self.settings),
            n_ranked=len(head),
        )
        n_ranked = self.settings.top_k_candidates
        return fuse(result, request, self.card.fuse_weight, n_ranked=n_ranked, by_rank=False)

    def _writer_of(self, request: Request) -> Callable[[str, str], Prompt]:
        """Return a function that writes the prompt of a passage (title, text) for a request's query and instruction."""
        query = request.query
        if query.instruction is not None and not self.card.template.takes_instruction:
            raise RankLLMError(f"its instruction has no effect: {_no_place(self.card)}")
        instruction = self.settings.instruction if query.instruction is None else query.instruction
        return lambda title, text: self.writer.write(query.text, title=title, text=text, instruction=instruction)


def _no_place(card: PointwiseCard) -> str:
    return f"template {card.template.name} takes no instruction; leave it out, or use a template with {{instruction}}"


def _by_score(
    head: Sequence[Candidate], scores: Sequence[float], rest: Sequence[Candidate], card: PointwiseCard
) -> tuple[Candidate, ...]:
    """Return the scored candidates, best first, followed by the others; scores are strictly decreasing."""
    order = sorted(range(len(head)), key=lambda position: -scores[position])
    written = decreasing_scores([scores[position] for position in order])
    ranked = (
        replace(
            head[position],
            score=score,
            model_score=scores[position],
            probability=card.probability(scores[position]),
        )
        for position, score in zip(order, written, strict=True)
    )
    tail = decreasing_scores([written[-1]] * (len(rest) + 1))[1:]
    return (*ranked, *(replace(c, score=s) for c, s in zip(rest, tail, strict=True)))


def _unreported_defects(
    head: Sequence[Candidate], prompts: Sequence[Prompt], answers: Sequence[Answer]
) -> tuple[str, ...]:
    """Return defects for words whose probabilities a server did not report."""
    return tuple(
        f"docid {candidate.docid!r}: missing [{label}]"
        for candidate, prompt, answer in zip(head, prompts, answers, strict=True)
        for label, value in zip(prompt.identifiers, answer.scores, strict=False)
        if value == -math.inf
    )


def sharing(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Set the number of leading ids that all prompts share, usually the instruction and the query."""
    if len(prompts) < 2:
        return tuple(prompts)
    # The prefix shared by the lexicographically first and last prompt is shared by all.
    first, last = (edge(prompt.token_ids for prompt in prompts) for edge in (min, max))
    differ = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    n_shared = next(differ, min(len(first), len(last)))
    return tuple(replace(prompt, n_shared=n_shared) for prompt in prompts)


def passage_of(candidate: Candidate) -> Passage:
    """Return title and text of a candidate. Raises RankLLMError naming the docid if it has no text."""
    try:
        return title_and_text(candidate.doc)
    except RankLLMError as error:
        raise RankLLMError(f"docid {candidate.docid!r}: {error}") from None


def _find(
    prompts: Sequence[Prompt], passages: Sequence[Passage], write: Callable[[str, str], Prompt]
) -> PromptFindings:
    """Find passages that the prompts do not show."""

    def key(prompt: Prompt) -> Hashable:
        return prompt.token_ids or prompt.text

    return find_in_prompts([key(prompt) for prompt in prompts], passages, lambda title, text: key(write(title, text)))


def _score(answer: Answer, docid: str) -> float:
    """Return one number per pair: the score of a head or token, or logit(yes) - logit(no)."""
    if len(answer.scores) == 1:
        (score,) = answer.scores
    elif len(answer.scores) == 2:
        positive, negative = (UNREPORTED_LOGPROB if value == -math.inf else value for value in answer.scores)
        score = positive - negative
    else:
        raise EngineError(
            f"docid {docid!r}: expected one score, or one for yes and one for no; found {list(answer.scores)}"
        )
    if not math.isfinite(to_float32([score])[0]):
        raise EngineError(f"the model's score of docid {docid!r} is {score}, expected a finite float32 number")
    return score


def _trace(
    prompts: Sequence[Prompt], answers: Sequence[Answer], candidates: Sequence[Candidate], settings: RankingSettings
) -> tuple[WindowTrace, ...]:
    if not settings.with_trace:
        return ()
    calls = islice(zip(prompts, answers, candidates, strict=True), settings.max_traced_calls)
    return tuple(
        WindowTrace(
            start=rank,
            docids=(candidate.docid,),
            prompt=settings.traced_prompt(prompt.text),
            response=answer.text,
            order=(0,),
            status="ok",
            scores=answer.scores,
            usage=answer.usage,
        )
        for rank, (prompt, answer, candidate) in enumerate(calls)
    )
