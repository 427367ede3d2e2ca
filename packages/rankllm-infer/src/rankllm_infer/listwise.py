"""Listwise reranking of one request as a flow: it yields prompts and is sent their answers. No I/O inside."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from rankllm_core.answers import read_answer
from rankllm_core.card import ListwiseCard
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.identifiers import identifiers
from rankllm_core.template import Message
from rankllm_core.text import defuse_identifiers, first_words, fix_text, passage_text, words_in
from rankllm_core.types import Candidate, Request, Result, Status, Usage, WindowTrace, worst
from rankllm_infer.engines import Answer, EngineError, Prompt
from rankllm_infer.fit import fit_window
from rankllm_infer.prompts import PromptWriter, WrittenPrompt
from rankllm_infer.windows import WindowSchedule

Flow = Generator[tuple[Prompt, ...], tuple[Answer, ...], Result]
"""Yields prompts that may run together, is sent their answers in the same order, returns the result."""

OPENING = "["
"""What FIRST puts before the identifier that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwisePlan:
    """Everything that decides a listwise ranking beside the model."""

    card: ListwiseCard
    num_passes: int = 1
    top_k_candidates: int | None = None
    """Rerank this many of the candidates; the others keep their order behind them."""
    shuffle_seed: int | None = None
    """Shuffle the candidates of each request first, in each pass; None keeps the first-stage order."""
    system_message: str | None = None
    few_shot: tuple[Message, ...] = ()
    short_windows: bool = True
    """Whether a window may hold fewer passages than its size."""
    free_decoding: bool = True
    """Whether an answer is what the model writes; if not, it is held to the permutations of the window."""
    decode_top_k: int | None = None
    """With answers held to permutations: choose the first so many of a window; the others keep their order."""
    with_trace: bool = False

    def __post_init__(self) -> None:
        if self.num_passes < 1:
            raise ConfigError(f"num_passes: expected at least 1, found {self.num_passes}")
        if self.top_k_candidates is not None and self.top_k_candidates < 1:
            raise ConfigError(f"top_k_candidates: expected at least 1, found {self.top_k_candidates}")
        if self.decode_top_k is not None and (self.free_decoding or self.decode_top_k < 1):
            raise ConfigError(
                f"decode_top_k: expected at least 1, and answers held to permutations, found {self.decode_top_k}"
            )


def rerank_listwise(request: Request, plan: ListwisePlan, writer: PromptWriter) -> Flow:
    """Slide the window over one request's candidates and put each window in the order the model says."""
    flow = _ListwiseFlow(request, plan, writer)
    head = len(request.candidates) if plan.top_k_candidates is None else plan.top_k_candidates
    order, rest = list(request.candidates[:head]), request.candidates[head:]
    schedule = WindowSchedule(size=plan.card.window_size, stride=plan.card.stride)
    for number in range(plan.num_passes):
        if plan.shuffle_seed is not None:
            # A generator of its own for each query and pass: the order does not depend on what else is reranked.
            random.Random(f"{plan.shuffle_seed}/{request.query.qid}/{number}").shuffle(order)
        for start, end in schedule.windows(len(order)):
            if end - start == 1 and len(order) == 1:
                break
            order[start:end] = yield from flow.window(order[start:end], start)
    return flow.result([*order, *rest])


@dataclass(slots=True)
class _ListwiseFlow:
    request: Request
    plan: ListwisePlan
    writer: PromptWriter
    usage: Usage = field(default_factory=Usage)
    statuses: list[Status] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    trace: list[WindowTrace] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def window(
        self, candidates: Sequence[Candidate], start: int
    ) -> Generator[tuple[Prompt, ...], tuple[Answer, ...], list[Candidate]]:
        """Ask for the order of one window and give the candidates in it."""
        card = self.plan.card
        if not self.plan.short_windows and len(candidates) < card.window_size:
            raise ConfigError(
                f"query {self.request.query.qid!r}: {len(candidates)} candidates for a window of {card.window_size}, "
                "and --no-variable-passages asks for full windows; retrieve more or use a smaller --window-size"
            )
        prompt = self._prompt(candidates)
        (answer,) = yield (prompt,)
        order, status, defects = self._read(answer, prompt.identifiers, candidates)
        self.usage += answer.usage
        self.statuses.append(status)
        self.defects += [f"ranks {start + 1}-{start + len(candidates)}: {defect}" for defect in defects]
        if self.plan.with_trace:
            self.trace.append(
                WindowTrace(
                    start=start,
                    docids=tuple(candidate.docid for candidate in candidates),
                    prompt=prompt.text,
                    response=answer.text,
                    order=order,
                    status=status,
                    defects=defects,
                    scores=answer.scores or None,
                    usage=answer.usage,
                )
            )
        return [candidates[position] for position in order]

    def _prompt(self, candidates: Sequence[Candidate]) -> Prompt:
        card = self.plan.card
        alpha = card.identifiers == "alpha"
        labels = identifiers("alpha" if alpha else "numeric", len(candidates))
        query = _safe_query(self.request.query.text, alpha=alpha)
        texts = [self._text(candidate) for candidate in candidates]
        is_first = card.answer == "first-token"

        def write(words: int, characters: int | None) -> WrittenPrompt:
            messages = card.template.render(
                query,
                [defuse_identifiers(first_words(text, words)[:characters], alpha=alpha) for text in texts],
                labels=labels,
                scores=[candidate.score for candidate in candidates],
                system_message=self.plan.system_message,
                few_shot=self.plan.few_shot,
            )
            return self.writer.write(messages, opening=OPENING if is_first else "")

        answer_tokens = self.writer.count(card.template.write_answer(labels))
        written, _ = fit_window(
            write,
            n_passages=len(candidates),
            longest_words=max(map(words_in, texts)),
            max_words=card.max_passage_words,
            # The original budgets the prompt without the opening bracket; leave the room it needs to us.
            prompt_tokens=card.context_tokens - answer_tokens + (1 if is_first else 0),
            qid=self.request.query.qid,
        )
        return Prompt(
            text=written.text,
            read="first-token" if is_first else "text" if self.plan.free_decoding else "permutation",
            identifiers=labels,
            messages=written.messages,
            token_ids=written.token_ids,
            max_new_tokens=1 if is_first else answer_tokens,
            form=card.template.answer_form,
            top_k=self.plan.decode_top_k,
        )

    def _text(self, candidate: Candidate) -> str:
        """The candidate's text, repaired once however many windows it is in, and kept no longer than it can be used."""
        if candidate.docid not in self.texts:
            try:
                text = passage_text(candidate.doc)
            except RankLLMError as error:
                raise RankLLMError(f"docid {candidate.docid!r}: {error}") from None
            self.texts[candidate.docid] = first_words(text, self.plan.card.max_passage_words)
        return self.texts[candidate.docid]

    def _read(
        self, answer: Answer, labels: Sequence[str], candidates: Sequence[Candidate]
    ) -> tuple[tuple[int, ...], Status, tuple[str, ...]]:
        if self.plan.card.answer == "permutation":
            read = read_answer(answer.text, labels)
            return read.order, read.status, read.defects
        order, defects = order_by_score(answer.scores, labels, [candidate.docid for candidate in candidates])
        for candidate, score in zip(candidates, answer.scores, strict=True):
            if score != -math.inf:
                self.scores[candidate.docid] = score
        return order, "repaired" if defects else "ok", defects

    def result(self, order: Sequence[Candidate]) -> Result:
        """The request's result: scores n - rank + 1, which strictly fall."""
        n = len(order)
        return Result(
            query=self.request.query,
            candidates=tuple(
                replace(c, score=float(n - rank), model_score=self.scores.get(c.docid)) for rank, c in enumerate(order)
            ),
            status=worst(self.statuses),
            defects=tuple(self.defects),
            usage=self.usage,
            trace=tuple(self.trace),
        )


def _safe_query(text: str, *, alpha: bool) -> str:
    """The query without identifiers, also without those that repairing the whole prompt would make (`［2］`)."""
    repaired = fix_text(text)
    defused = defuse_identifiers(repaired, alpha=alpha)
    return defused if defused != repaired else defuse_identifiers(text, alpha=alpha)


def order_by_score(
    scores: Sequence[float], labels: Sequence[str], docids: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions by score, highest first, ties in the order they had; -inf is an identifier the server did not tell.

    Raises EngineError naming the docid when a score is not a number.
    """
    if len(scores) != len(labels):
        raise EngineError(f"expected {len(labels)} identifier scores, the engine gave {len(scores)}")
    for score, docid in zip(scores, docids, strict=True):
        if math.isnan(score):
            raise EngineError(f"the model's score of docid {docid!r} is not a number (NaN)")
    order = tuple(sorted(range(len(scores)), key=lambda position: -scores[position]))
    return order, tuple(f"missing [{label}]" for score, label in zip(scores, labels, strict=True) if score == -math.inf)
