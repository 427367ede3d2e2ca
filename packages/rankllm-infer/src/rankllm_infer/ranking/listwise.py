"""Listwise reranking: the model is shown windows of a request's candidates, and its answers reorder them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rankllm_core.answers.reader import ReadAnswer, read_answer
from rankllm_core.card import ListwiseCard
from rankllm_core.errors import RankLLMError
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.content import PromptFindings
from rankllm_core.types import Candidate, Request, Result, Status, Usage, WindowTrace, worst
from rankllm_infer.engines.base import Answer, EngineError, Prompt, Read
from rankllm_infer.ranking.flow import Asking, Flow
from rankllm_infer.ranking.fuse import consensus, fuse
from rankllm_infer.ranking.identifier_prior import without_prior
from rankllm_infer.ranking.prompts import (
    MessagePromptWriter,
    PromptWriter,
    TokenPromptWriter,
    check_identifiers,
    opens_thinking,
    permutation_sample,
    planned_read,
    read_truncated,
    reasons_first,
)
from rankllm_infer.ranking.settings import (
    RankingSettings,
    check_full_windows,
    check_windows,
    count_prompts,
    n_asked,
    strategy_of,
)
from rankllm_infer.ranking.strategies import TOP_K_STRATEGIES, Window
from rankllm_infer.ranking.window_prompts import WindowPrompts


class ListwiseMethod:
    """Shows candidates in the windows of a strategy and ranks them by the model's answers."""

    max_active = 64
    prompts_at_once = 1

    def __init__(
        self,
        card: ListwiseCard,
        settings: RankingSettings,
        writer: PromptWriter,
        *,
        sample: Prompt | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.card = card
        self.settings = settings
        self.writer = writer
        self.read = self.check(card, settings)
        self.sample = sample
        self.warnings = warnings

    @classmethod
    def with_tokenizer(cls, card: ListwiseCard, settings: RankingSettings, tokenizer: Any) -> ListwiseMethod:
        """Build the method of a card. tokenizer: the model's tokenizer; None for a chat server's.

        Raises ContractError if FIRST would read an identifier that is more than one token.
        """
        if tokenizer is None:
            return cls(card, settings, MessagePromptWriter())
        chat = ChatEncoder(tokenizer, layout=card.template.chat_layout, bos=card.bos)
        writer = TokenPromptWriter(chat)
        read = planned_read(card, settings)
        if read == "first-token":
            check_identifiers(chat.safe, card)
        if read != "permutation":
            return cls(card, settings, writer)
        sample = permutation_sample(card, writer)
        if not opens_thinking(sample, settings):
            return cls(card, settings, writer, sample=sample)
        note = "the chat template makes the model reason first: its answers are decoded freely and may be truncated"
        return cls(card, replace(settings, free_decoding=True), writer, warnings=(note,))

    @staticmethod
    def check(card: ListwiseCard, settings: RankingSettings) -> Read:
        """Return how windows will be read, as far as known without the model. Raises ConfigError."""
        read = planned_read(card, settings)
        check_windows(card, settings)
        return read

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt with its answer: the full context."""
        return self.card.context_tokens

    def n_prompts(self, n_candidates: int) -> int:
        """Return the number of prompts for a number of candidates; see `count_prompts`."""
        return count_prompts(self.card, self.settings, n_candidates)

    def flow(self, request: Request) -> Flow:
        """Rank one request, pass by pass."""
        settings = self.settings
        if request.query.instruction is not None:
            raise RankLLMError("its instruction has no effect: listwise prompts take no instruction; leave it out")
        check_full_windows(self.card, settings, len(request.candidates))
        ranking = _Ranking(request, self)
        head = len(request.candidates) if settings.top_k_candidates is None else settings.top_k_candidates
        order, rest = list(request.candidates[:head]), request.candidates[head:]
        for number in range(settings.num_passes):
            depth = settings.pass_depth if number else None
            asked = order[:depth]
            settled = order[len(asked) :]
            if settings.shuffle_seed is not None:
                # One generator per query and pass, so that the order does not depend on the other queries.
                random.Random(f"{settings.shuffle_seed}/{request.query.qid}/{number}").shuffle(asked)
            order = [*(yield from ranking.rank(asked)), *settled]
        result = ranking.result([*order, *rest])
        weight = self.card.fuse_weight
        return fuse(result, request, weight, n_ranked=settings.top_k_candidates, by_rank=True) if weight else result


class _Ranking:
    """State of one request being ranked: results and usage of the answers so far."""

    def __init__(self, request: Request, method: ListwiseMethod) -> None:
        self.request = request
        self.card = method.card
        self.settings = method.settings
        self.prompts = WindowPrompts(
            request=request, card=method.card, settings=method.settings, writer=method.writer, read=method.read
        )
        self.usage = Usage()
        self.statuses: list[Status] = []
        self.defects: list[str] = []
        self.trace: list[WindowTrace] = []
        self.scores: dict[str, float] = {}
        self.named: set[str] = set()
        """Docids ranked by an answer, in any window."""
        self.n_shuffled = 0

    def rank(self, candidates: Sequence[Candidate]) -> Asking[list[Candidate]]:
        """Run one pass of the strategy over the candidates."""
        steps = strategy_of(self.card, self.settings)(len(candidates))
        orders = None
        while True:
            try:
                windows = steps.send(orders)  # type: ignore[arg-type]  # sending None starts a generator
            except StopIteration as stop:
                return [candidates[position] for position in stop.value]
            orders = yield from self._ask(windows, candidates)

    def _ask(self, windows: Sequence[Window], candidates: Sequence[Candidate]) -> Asking[tuple[tuple[int, ...], ...]]:
        """Run one round: query every window as often as the settings require, and return each window's order as
        positions."""
        views = [(window, view) for window in windows for view in self._views(window)]
        asked = [self.prompts.prompt([candidates[position] for position in view]) for _, view in views]
        answers = yield tuple(prompt for prompt, _ in asked)
        self.usage += Usage(rounds=1)
        votes: dict[Window, list[tuple[int, ...]]] = {window: [] for window in windows}
        for (window, view), (prompt, findings), answer in zip(views, asked, answers, strict=True):
            start = window.start if view == window.shown else None
            shown = [candidates[position] for position in view]
            order, n_read = self._take(self._read(answer, prompt, shown, findings), answer, prompt, shown, start)
            # Passages that an answer does not rank are not votes: the order they were shown in may be random.
            ranked = [view[place] for place in order]
            self.named.update(candidates[position].docid for position in ranked[:n_read])
            if n_read:
                votes[window].append((*ranked[:n_read], *sorted(ranked[n_read:], key=window.shown.index)))
        return tuple(_agreed(votes[window]) or window.shown for window in windows)

    def _views(self, window: Window) -> list[tuple[int, ...]]:
        """Return the orders a window is shown in: its own, followed by shuffled ones if several are requested."""
        views = [window.shown]
        for _ in range(1, self.settings.permutations):
            # Reproducible regardless of the other queries, and different for every prompt of this query.
            seed = f"{self.settings.permutation_seed}/{self.request.query.qid}/{self.n_shuffled}"
            draw = random.Random(f"permutation/{seed}")
            self.n_shuffled += 1
            views.append(tuple(draw.sample(window.shown, len(window.shown))))
        return views

    def _take(
        self, read: ReadAnswer, answer: Answer, prompt: Prompt, candidates: Sequence[Candidate], start: int | None
    ) -> tuple[tuple[int, ...], int]:
        """Record one answer. Returns the order, and how many of its first positions the model decided."""
        order, status, defects = read.order, read.status, read.defects
        self.usage += answer.usage
        self.statuses.append(status)
        where = f"call {len(self.statuses)}" if start is None else f"ranks {start + 1}-{start + len(candidates)}"
        self.defects += [f"{where}: {defect}" for defect in defects]
        if self.settings.traces(len(self.trace)):
            self.trace.append(
                WindowTrace(
                    start=start,
                    docids=tuple(candidate.docid for candidate in candidates),
                    prompt=self.settings.traced_prompt(prompt.text),
                    response=answer.text,
                    order=order,
                    status=status,
                    defects=defects,
                    scores=answer.scores or None,
                    usage=answer.usage,
                )
            )
        top_k = self.settings.decode_top_k
        return order, read.n_ranked if top_k is None else min(read.n_ranked, top_k)

    def _read(
        self, answer: Answer, prompt: Prompt, candidates: Sequence[Candidate], findings: PromptFindings
    ) -> ReadAnswer:
        """Read the passages' order from the answer; nothing if its prompt showed none of them."""
        if not (findings.nothing or findings.same):
            return self._read_answer(answer, prompt, candidates)
        docids = [candidate.docid for candidate in candidates]
        if findings.all_show_nothing:
            return ReadAnswer(order=tuple(range(len(docids))), status="fallback", defects=findings.defects(docids))
        read = self._read_answer(answer, prompt, candidates)
        defects = (*findings.defects(docids), *read.defects)
        return replace(read, status=worst([read.status, "repaired"]), defects=defects)

    def _read_answer(self, answer: Answer, prompt: Prompt, candidates: Sequence[Candidate]) -> ReadAnswer:
        labels, template = prompt.identifiers, self.card.template
        if self.card.answer == "permutation":
            if answer.is_truncated:
                has_thoughts = reasons_first(template, self.settings.system_message)
                return read_truncated(answer, prompt, reasons_first=has_thoughts)
            return read_answer(answer.text, labels)
        scores = without_prior(answer.scores, self.card.identifier_prior)
        order, defects = order_by_score(scores, labels, [candidate.docid for candidate in candidates])
        for candidate, score in zip(candidates, scores, strict=True):
            if score != -math.inf:
                self.scores[candidate.docid] = score
        n_ranked = len(order) - len(defects)
        return ReadAnswer(order=order, status="repaired" if defects else "ok", defects=defects, n_ranked=n_ranked)

    def result(self, order: Sequence[Candidate]) -> Result:
        """Build the request's result with strictly decreasing scores n - rank + 1."""
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
        """Count the candidates before the first one that no answer has ranked.

        For a strategy that finds the top k, at most k, because the rest is in first-stage order.
        """
        size, wanted = self.card.window_size, self.settings.rank_top_k
        n_reranked = n_asked(self.settings, len(order))
        if n_reranked == 1:
            return 1  # A single candidate is never shown to the model.
        n = next((rank for rank, candidate in enumerate(order) if candidate.docid not in self.named), len(order))
        if self.settings.strategy in TOP_K_STRATEGIES and n_reranked > size:
            return min(n, max(1, size // 2) if wanted is None else wanted)
        return n


def _agreed(votes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Combine the votes on one window into an order; empty if there are none."""
    return consensus(votes) if len(votes) > 1 else tuple(*votes)


def order_by_score(
    scores: Sequence[float], labels: Sequence[str], docids: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Sort positions by score, highest first, ties in their given order; -inf is an identifier that the server did not
    report.

    Raises EngineError naming the docid if a score is NaN or infinite.
    """
    if len(scores) != len(labels):
        raise EngineError(f"expected {len(labels)} identifier scores, the engine returned {len(scores)}")
    for score, docid in zip(scores, docids, strict=True):
        if math.isnan(score):
            raise EngineError(f"the model's score of docid {docid!r} is not a number (NaN)")
        if score == math.inf:
            raise EngineError(f"the model's score of docid {docid!r} is infinite, expected a finite number")
    order = tuple(sorted(range(len(scores)), key=lambda position: -scores[position]))
    return order, tuple(f"missing [{label}]" for score, label in zip(scores, labels, strict=True) if score == -math.inf)
