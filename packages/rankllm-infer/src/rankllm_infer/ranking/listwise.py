"""Listwise reranking of one request as a flow: it yields prompts and is sent their answers. No I/O inside."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from rankllm_core.answers.reader import ReadAnswer, read_answer
from rankllm_core.errors import RankLLMError
from rankllm_core.identifiers import identifiers
from rankllm_core.prompts.content import PromptFindings
from rankllm_core.text import first_words, passage_text, safe_query, words_in
from rankllm_core.types import Candidate, Request, Result, Status, Usage, WindowTrace, worst
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.ranking.fit import ContextTooSmallError, fit_window
from rankllm_infer.ranking.identifier_prior import without_prior
from rankllm_infer.ranking.listwise_plan import ListwisePlan
from rankllm_infer.ranking.prompts import PromptWriter, WrittenPrompt
from rankllm_infer.ranking.reasoning import read_truncated, reasons_first
from rankllm_infer.ranking.strategies import TOP_K_STRATEGIES, Window, consensus
from rankllm_infer.ranking.window_content import ShownWindow, find_in_window

Flow = Generator[tuple[Prompt, ...], tuple[Answer, ...], Result]
"""Yields prompts that may run together, is sent their answers in the same order, returns the result."""

T = TypeVar("T")
Asking = Generator[tuple[Prompt, ...], tuple[Answer, ...], T]
"""A part of a flow, with a value of its own at the end."""

__all__ = ["OPENING", "Flow", "ListwisePlan", "order_by_score", "rerank_listwise"]

OPENING = "["
"""What FIRST puts before the identifier that is read."""


def rerank_listwise(request: Request, plan: ListwisePlan, writer: PromptWriter) -> Flow:
    """Show one request's candidates to the model in the strategy's windows and rank them by its answers."""
    plan.check_full_windows(len(request.candidates))
    flow = _ListwiseFlow(request, plan, writer)
    head = len(request.candidates) if plan.top_k_candidates is None else plan.top_k_candidates
    order, rest = list(request.candidates[:head]), request.candidates[head:]
    for number in range(plan.num_passes):
        depth = plan.pass_depth if number else None
        asked = order[:depth]
        settled = order[len(asked) :]
        if plan.shuffle_seed is not None:
            # A generator of its own for each query and pass: the order does not depend on what else is reranked.
            random.Random(f"{plan.shuffle_seed}/{request.query.qid}/{number}").shuffle(asked)
        order = [*(yield from flow.rank(asked)), *settled]
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
    named: set[str] = field(default_factory=set)
    """Docids that an answer has ranked, in whatever window."""
    n_shuffled: int = 0

    def rank(self, candidates: Sequence[Candidate]) -> Asking[list[Candidate]]:
        """One pass of the strategy over the candidates."""
        steps = self.plan.choose_strategy()(len(candidates))
        orders = None
        while True:
            try:
                windows = steps.send(orders)  # type: ignore[arg-type]  # a generator is begun by sending it None
            except StopIteration as stop:
                return [candidates[position] for position in stop.value]
            orders = yield from self._ask(windows, candidates)

    def _ask(self, windows: Sequence[Window], candidates: Sequence[Candidate]) -> Asking[tuple[tuple[int, ...], ...]]:
        """One round: every window is asked, as often as the plan says; the order of each, in positions."""
        views = [(window, view) for window in windows for view in self._views(window)]
        asked = [self._prompt([candidates[position] for position in view]) for _, view in views]
        answers = yield tuple(prompt for prompt, _ in asked)
        self.usage += Usage(rounds=1)
        votes: dict[Window, list[tuple[int, ...]]] = {window: [] for window in windows}
        for (window, view), (prompt, findings), answer in zip(views, asked, answers, strict=True):
            start = window.start if view == window.shown else None
            shown = [candidates[position] for position in view]
            order, n_told = self._take(self._read(answer, prompt, shown, findings), answer, prompt, shown, start)
            # What an answer does not rank is no vote: the order in which it was shown may be drawn by lot.
            ranked = [view[place] for place in order]
            self.named.update(candidates[position].docid for position in ranked[:n_told])
            if n_told:
                votes[window].append((*ranked[:n_told], *sorted(ranked[n_told:], key=window.shown.index)))
        return tuple(consensus(votes[window]) if votes[window] else window.shown for window in windows)

    def _views(self, window: Window) -> list[tuple[int, ...]]:
        """The orders in which a window is shown: its own, and shuffled ones where more are asked for."""
        views = [window.shown]
        for _ in range(1, self.plan.permutations):
            # Reproducible, whatever else is reranked, and another one for every prompt of the query.
            draw = random.Random(f"permutation/{self.plan.permutation_seed}/{self.request.query.qid}/{self.n_shuffled}")
            self.n_shuffled += 1
            views.append(tuple(draw.sample(window.shown, len(window.shown))))
        return views

    def _take(
        self, read: ReadAnswer, answer: Answer, prompt: Prompt, candidates: Sequence[Candidate], start: int | None
    ) -> tuple[tuple[int, ...], int]:
        """Keep account of one answer. The order, and how many of its first places the model decided."""
        order, status, defects = read.order, read.status, read.defects
        self.usage += answer.usage
        self.statuses.append(status)
        where = f"call {len(self.statuses)}" if start is None else f"ranks {start + 1}-{start + len(candidates)}"
        self.defects += [f"{where}: {defect}" for defect in defects]
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
        return order, read.n_ranked if self.plan.decode_top_k is None else min(read.n_ranked, self.plan.decode_top_k)

    def _prompt(self, candidates: Sequence[Candidate]) -> tuple[Prompt, PromptFindings]:
        """The prompt of a window, and what it does not show of its passages."""
        card = self.plan.card
        alpha = card.identifiers == "alpha"
        labels = identifiers("alpha" if alpha else "numeric", len(candidates))
        query = safe_query(self.request.query.text, alpha=alpha)
        texts = [self._text(candidate) for candidate in candidates]
        is_first = card.answer == "first-token"

        def show(passages: Sequence[str]) -> ShownWindow:
            messages = card.template.render(
                query,
                passages,
                labels=labels,
                scores=[candidate.score for candidate in candidates],
                system_message=self.plan.system_message,
                few_shot=self.plan.few_shot,
            )
            written = self.writer.write(messages, opening=OPENING if is_first else "")
            return ShownWindow(written, messages)

        def write(words: int, characters: int | None) -> WrittenPrompt:
            shown[:] = [show([first_words(text, words)[:characters] for text in texts])]
            return shown[0].written

        shown: list[ShownWindow] = []  # the last one written
        answer_tokens = self.writer.count(card.template.write_answer(labels))
        written, words = fit_window(
            write,
            n_passages=len(candidates),
            longest_words=max(map(words_in, texts)),
            max_words=card.max_passage_words,
            # The original budgets the prompt without the opening bracket; leave the room it needs to us.
            prompt_tokens=card.context_tokens - answer_tokens + (1 if is_first else 0),
            qid=self.request.query.qid,
        )
        (fitted,) = shown
        if self.plan.strategy == "full" and written.n_tokens < write(card.max_passage_words, None).n_tokens:
            raise self._does_not_fit(len(candidates), words)
        prompt = Prompt(
            text=written.text,
            read="first-token" if is_first else "text" if self.plan.free_decoding else "permutation",
            identifiers=labels,
            messages=written.messages,
            token_ids=written.token_ids,
            max_new_tokens=1 if is_first else answer_tokens,
            form=card.template.answer_form,
            top_k=self.plan.decode_top_k,
        )
        findings = find_in_window(
            fitted,
            write=lambda passages: show(passages).key,
            text_of=lambda position: passage_text(candidates[position].doc),
        )
        return prompt, findings

    def _does_not_fit(self, n_candidates: int, words: int) -> ContextTooSmallError:
        """All at once is a wish for whole passages: how far to shorten them is the user's choice."""
        shorten = f"--max-passage-words {words}, " if words > 1 else ""
        return ContextTooSmallError(
            f"query {self.request.query.qid!r}: its {n_candidates} candidates do not fit the context of "
            f"{self.plan.card.context_tokens} tokens at once; use {shorten}a larger --context-size, "
            "a smaller --top-k-candidates, or another --strategy"
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
        self, answer: Answer, prompt: Prompt, candidates: Sequence[Candidate], findings: PromptFindings
    ) -> ReadAnswer:
        """What the answer says of the passages; nothing where its prompt showed none of them."""
        docids = [candidate.docid for candidate in candidates]
        if findings.all_show_nothing:
            return ReadAnswer(order=tuple(range(len(docids))), status="fallback", defects=findings.defects(docids))
        read = self._read_answer(answer, prompt, candidates)
        if not (found := findings.defects(docids)):
            return read
        status = worst([read.status, "repaired"])
        return ReadAnswer(order=read.order, status=status, defects=(*found, *read.defects), n_ranked=read.n_ranked)

    def _read_answer(self, answer: Answer, prompt: Prompt, candidates: Sequence[Candidate]) -> ReadAnswer:
        labels, template = prompt.identifiers, self.plan.card.template
        if self.plan.card.answer == "permutation":
            if answer.is_truncated:
                has_thoughts = reasons_first(template, self.plan.system_message)
                return read_truncated(answer, prompt, reasons_first=has_thoughts)
            return read_answer(answer.text, labels)
        scores = without_prior(answer.scores, self.plan.card.identifier_prior)
        order, defects = order_by_score(scores, labels, [candidate.docid for candidate in candidates])
        for candidate, score in zip(candidates, scores, strict=True):
            if score != -math.inf:
                self.scores[candidate.docid] = score
        n_ranked = len(order) - len(defects)
        return ReadAnswer(order=order, status="repaired" if defects else "ok", defects=defects, n_ranked=n_ranked)

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
            n_ranked=self._n_ranked(order),
        )

    def _n_ranked(self, order: Sequence[Candidate]) -> int:
        """How many candidates come before the first one that no answer has ranked.

        Of a strategy that finds the best k, k at the most: the others are in first-stage order.
        """
        size, wanted = self.plan.card.window_size, self.plan.rank_top_k
        n_asked = len(order) if self.plan.top_k_candidates is None else min(len(order), self.plan.top_k_candidates)
        if n_asked == 1:
            return 1  # It is never asked about, and first in any order.
        n = next((rank for rank, candidate in enumerate(order) if candidate.docid not in self.named), len(order))
        if self.plan.strategy in TOP_K_STRATEGIES and n_asked > size:
            return min(n, max(1, size // 2) if wanted is None else wanted)
        return n


def order_by_score(
    scores: Sequence[float], labels: Sequence[str], docids: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions by score, highest first, ties in the order they had; -inf is an identifier the server did not tell.

    Raises EngineError naming the docid when a score is not a number, or infinite.
    """
    if len(scores) != len(labels):
        raise EngineError(f"expected {len(labels)} identifier scores, the engine gave {len(scores)}")
    for score, docid in zip(scores, docids, strict=True):
        if math.isnan(score):
            raise EngineError(f"the model's score of docid {docid!r} is not a number (NaN)")
        if score == math.inf:
            raise EngineError(f"the model's score of docid {docid!r} is infinite, expected a finite number")
    order = tuple(sorted(range(len(scores)), key=lambda position: -scores[position]))
    return order, tuple(f"missing [{label}]" for score, label in zip(scores, labels, strict=True) if score == -math.inf)
