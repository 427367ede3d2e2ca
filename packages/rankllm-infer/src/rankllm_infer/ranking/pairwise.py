"""Pairwise reranking: the model compares two passages at a time, and a strategy turns preferences into a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rankllm_core.card import PairwiseCard
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.prompts.content import PromptFindings, find_in_prompts
from rankllm_core.prompts.pairs import ComparisonEncoder
from rankllm_core.trec.runs import decreasing_scores
from rankllm_core.types import Candidate, Request, Result, Usage, WindowTrace
from rankllm_infer.engines.base import Answer, Prompt, Read
from rankllm_infer.ranking.comparison_prompts import (
    ComparisonWriter,
    MessageComparisonWriter,
    TokenComparisonWriter,
    read_preference,
    sharing_by_group,
    unreported_tokens,
)
from rankllm_infer.ranking.flow import Asking, Flow
from rankllm_infer.ranking.fuse import fuse
from rankllm_infer.ranking.pairwise_strategies import DEFAULT_TOP_K, Pair, PairwiseOrder, choose, most_comparisons
from rankllm_infer.ranking.pointwise import passage_of
from rankllm_infer.ranking.settings import RankingSettings, n_asked

_PROMPTS_AT_ONCE = 256
"""Maximum number of prompts of a query held at the same time: enough for full batches, while all pairs of 100
candidates need 9,900 prompts."""
_RETOKENIZED = 64
"""Additional tokens allowed for: texts truncated to a number of tokens may be tokenized into a few more in the
prompt."""


class PairwiseMethod:
    """Compares a request's candidates in pairs, each in both orders, and ranks them by a strategy."""

    max_active = 16
    prompts_at_once = 2
    warnings: tuple[str, ...] = ()
    sample = None

    def __init__(self, card: PairwiseCard, settings: RankingSettings, writer: ComparisonWriter) -> None:
        self.card = card
        self.settings = settings
        self.writer = writer
        self.read = self.check(card, settings)

    @classmethod
    def with_tokenizer(cls, card: PairwiseCard, settings: RankingSettings, tokenizer: Any) -> PairwiseMethod:
        """Build the method of a card. tokenizer: the model's tokenizer; None for a chat server's."""
        if tokenizer is None:
            return cls(card, settings, MessageComparisonWriter(card))
        encoder = ComparisonEncoder(
            tokenizer, card.template, query_tokens=card.query_tokens, passage_tokens=card.passage_tokens, bos=card.bos
        )
        return cls(card, settings, TokenComparisonWriter(encoder, card))

    @staticmethod
    def check(card: PairwiseCard, settings: RankingSettings) -> Read:
        """Return how comparisons are read. Raises ConfigError for a listwise strategy, or a top k with one that takes
        none."""
        choose(settings.strategy)
        if settings.rank_top_k is not None and settings.strategy in (None, "all-pairs"):
            raise ConfigError("--rank-top-k has no effect with --strategy all-pairs; use --top-k-candidates")
        return "first-token"

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt: query and passages at their limits, plus the surrounding text."""
        around = len(self.writer.write("", "", "").token_ids)
        return around + self.card.query_tokens + 2 * self.card.passage_tokens + _RETOKENIZED

    @property
    def top_k(self) -> int:
        """Number of top candidates that a sorting strategy finds."""
        return self.settings.rank_top_k or DEFAULT_TOP_K

    def n_prompts(self, n_candidates: int) -> int:
        """Return the number of prompts for a number of candidates: exact for `all-pairs`, else the maximum."""
        return 2 * most_comparisons(self.settings.strategy, n_asked(self.settings, n_candidates), self.top_k)

    def flow(self, request: Request) -> Flow:
        """Compare the candidates of one request as the strategy requires, and rank them."""
        if request.query.instruction is not None:
            raise RankLLMError("its instruction has no effect: pairwise prompts take no instruction; leave it out")
        n = n_asked(self.settings, len(request.candidates))
        head, rest = request.candidates[:n], request.candidates[n:]
        comparisons = _Comparisons(request, head, self)
        order = yield from comparisons.rank()
        result = comparisons.result(order, head, rest)
        by_rank = not order.scores
        return fuse(result, request, self.card.fuse_weight, n_ranked=self.settings.top_k_candidates, by_rank=by_rank)


class _Comparisons:
    """State of one request being ranked: preferences and usage of the answers so far."""

    def __init__(self, request: Request, head: Sequence[Candidate], method: PairwiseMethod) -> None:
        self.request = request
        self.method = method
        self.docids = [candidate.docid for candidate in head]
        self.passages = [passage_of(candidate) for candidate in head]
        self.texts = [_joined(*passage) for passage in self.passages]
        self.known: dict[Pair, float] = {}
        self.usage = Usage()
        self.defects: list[str] = []
        self.trace: list[WindowTrace] = []
        self.findings = self._find() if len(head) > 1 else PromptFindings()

    def rank(self) -> Asking[PairwiseOrder]:
        """Run the strategy, asking for each pair only once."""
        method = self.method
        steps = choose(method.settings.strategy)(len(self.docids), method.top_k)
        known = None
        while True:
            try:
                pairs = steps.send(known)  # type: ignore[arg-type]  # sending None starts a generator
            except StopIteration as stop:
                order: PairwiseOrder = stop.value
                return order
            if asked := [pair for pair in pairs if pair not in self.known]:
                yield from self._ask(asked)
            known = self.known

    def _ask(self, pairs: Sequence[Pair]) -> Asking[None]:
        """Run one round: ask for every pair in both orders, grouped by the passage shown first."""
        ordered = sorted(shown for i, j in pairs for shown in ((i, j), (j, i)))
        self.usage += Usage(rounds=1)
        for start in range(0, len(ordered), _PROMPTS_AT_ONCE):
            shown = ordered[start : start + _PROMPTS_AT_ONCE]
            prompts = [self._prompt(self.texts[i], self.texts[j]) for i, j in shown]
            prompts = list(sharing_by_group(prompts, [first for first, _ in shown]))
            answers = yield tuple(prompts)
            for pair, prompt, answer in zip(shown, prompts, answers, strict=True):
                self._take(pair, prompt, answer)

    def _prompt(self, one: str, other: str) -> Prompt:
        return self.method.writer.write(self.request.query.text, one, other)

    def _take(self, pair: Pair, prompt: Prompt, answer: Answer) -> None:
        """Record the preference and usage of one answer. Raises EngineError if it cannot be read."""
        docids = self.docids[pair[0]], self.docids[pair[1]]
        preference = read_preference(answer, docids)
        self.known[pair] = preference
        self.usage += answer.usage
        defects = unreported_tokens(answer, prompt, docids)
        self.defects += defects
        settings = self.method.settings
        if settings.traces(len(self.trace)):
            self.trace.append(
                WindowTrace(
                    start=None,
                    docids=docids,
                    prompt=settings.traced_prompt(prompt.text),
                    response=answer.text,
                    order=(0, 1) if preference >= 0.5 else (1, 0),
                    status="repaired" if defects else "ok",
                    defects=defects,
                    scores=answer.scores,
                    usage=answer.usage,
                )
            )

    def _find(self) -> PromptFindings:
        """Find passages that prompts do not show, by writing each passage first, next to an empty one."""

        def key(title: str, text: str) -> object:
            prompt = self._prompt(_joined(title, text), "")
            return prompt.token_ids or prompt.text

        return find_in_prompts([key(*passage) for passage in self.passages], self.passages, key)

    def result(self, order: PairwiseOrder, head: Sequence[Candidate], rest: Sequence[Candidate]) -> Result:
        """Build the request's result: SYM-SUM scores if every pair was compared, else n - rank + 1; strictly
        decreasing."""
        ranked = set(order.positions)
        left = [position for position in range(len(head)) if position not in ranked]
        candidates = [head[position] for position in (*order.positions, *left)] + list(rest)
        if order.scores:
            written = decreasing_scores(order.scores)
            written = [*written, *decreasing_scores([written[-1]] * (len(rest) + 1))[1:]]
        else:
            written = [float(len(candidates) - rank) for rank in range(len(candidates))]
        said = [*order.scores, *[None] * (len(candidates) - len(order.scores))]
        defects = (*self.findings.defects(self.docids), *self.defects)
        return Result(
            query=self.request.query,
            status="fallback" if self.findings.all_show_nothing else "repaired" if defects else "ok",
            defects=defects,
            candidates=tuple(
                replace(candidate, score=score, model_score=model_score)
                for candidate, score, model_score in zip(candidates, written, said, strict=True)
            ),
            usage=self.usage,
            trace=tuple(self.trace),
            n_ranked=len(order.positions),
        )


def _joined(title: str, text: str) -> str:
    return f"{title} {text}" if title else text
