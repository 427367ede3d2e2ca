"""Estimate the cost of a run before a model is loaded: write and count its prompts, and simulate the answers.

The prompts are the run's own, tokenized with the model's tokenizer; for a server's model, whose tokenizer is unknown,
token counts are estimated. Simulated answers confirm the first-stage order. The numbers are therefore exact if neither
the prompts nor their number depend on answers. Otherwise they are estimates: which passages move to the next window,
how many comparisons a search needs, how much text an unconstrained model generates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from rankllm_core.errors import ConfigError
from rankllm_core.prompts.tokens import SafeTokenizer
from rankllm_core.types import Request, Usage
from rankllm_infer.checkpoints.encoders import pair_tokens
from rankllm_infer.checkpoints.model_files import ModelFiles, load_tokenizer
from rankllm_infer.effective_card import fit_card
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.transformers.permutation_ids import AnswerWalk, PermutationIds, permutation_ids
from rankllm_infer.plan import RerankPlan, check_settings, make_method
from rankllm_infer.ranking import pairwise_strategies, strategies
from rankllm_infer.ranking.prompts import estimate_text_tokens, estimate_tokens
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool

_N_SLOTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Cost of a run over some requests with one strategy."""

    strategy: str
    """Empty for a pointwise model."""
    is_chosen: bool
    """True if this is the strategy that the run would use."""
    usage: Usage
    """Total over all queries; completion tokens are the generated ones."""
    n_queries: int
    n_failed: int = 0
    """Queries whose prompts do not fit."""
    problem: str = ""
    """Why this strategy cannot be used; all numbers are then 0."""

    def price(self, *, prompt: float, completion: float) -> float:
        """Return the price of the tokens. prompt, completion: prices per million tokens."""
        return (self.usage.prompt_tokens * prompt + self.usage.completion_tokens * completion) / 1_000_000


def estimate_costs(plan: RerankPlan, requests: Iterable[Request], *, all_strategies: bool = False) -> list[Costs]:
    """Estimate the cost of a planned run without reading weights.

    requests: iterated once per strategy. all_strategies: also estimate the other strategies that the model supports.
    Raises RankLLMError if the model's tokenizer cannot be loaded or contradicts its card.
    """
    tokenizer, card = None, plan.card.card
    if plan.files is not None:
        trusted = not isinstance(plan.engine, OpenAISettings) and plan.engine.trust_remote_code
        tokenizer, positions = _tokenizer_of(plan.files, trust_remote_code=trusted)
        card, _ = fit_card(plan.card, positions)
    own = _strategy_of(card.kind, plan.ranking)
    names = [own, *(name for name in _strategies_of(card.kind) if name != own)] if all_strategies else [own]
    found = []
    for name in names:
        try:
            settings = plan.ranking if name == own else _with_strategy(plan.ranking, name)
            check_settings(card, settings)
        except ConfigError as error:
            found.append(Costs(strategy=name, is_chosen=False, usage=Usage(), n_queries=0, problem=str(error)))
            continue
        method = make_method(card, settings, tokenizer)
        results = FlowPool(_CountingEngine(tokenizer), max_active=_N_SLOTS).run(requests, method.flow)
        found.append(_summed(((result.usage, result.status) for result in results), name, is_chosen=name == own))
    return found


def _summed(results: Iterator[tuple[Usage, str]], strategy: str, *, is_chosen: bool) -> Costs:
    usage, n_queries, n_failed = Usage(), 0, 0
    for taken, status in results:
        usage += taken
        n_queries += 1
        n_failed += status == "failed"
    return Costs(strategy=strategy, is_chosen=is_chosen, usage=usage, n_queries=n_queries, n_failed=n_failed)


def _tokenizer_of(files: ModelFiles, *, trust_remote_code: bool) -> tuple[Any, int | None]:
    """Return the tokenizer and the number of positions of the model, as set up when it is loaded."""
    tokenizer = load_tokenizer(files.tokenizer_folder, trust_remote_code=trust_remote_code)
    if not files.base.is_encoder:
        return tokenizer, files.base.positions
    positions = pair_tokens(files.base, has_adapter=files.own.adapter is not None)
    if positions is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer, positions


def _strategies_of(kind: str) -> Iterable[str]:
    return {"listwise": strategies.STRATEGIES, "pairwise": tuple(pairwise_strategies.STRATEGIES)}.get(kind, ())


def _strategy_of(kind: str, settings: RankingSettings) -> str:
    return settings.strategy or {"listwise": "sliding", "pairwise": "all-pairs"}.get(kind, "")


def _with_strategy(settings: RankingSettings, name: str) -> RankingSettings:
    """Return the settings with another strategy, without options that only the original one takes."""
    keeps = name in strategies.TOP_K_STRATEGIES and settings.strategy in strategies.TOP_K_STRATEGIES
    only_sliding = {} if name == "sliding" else {"num_passes": 1, "pass_depth": None}
    return replace(settings, strategy=name, rank_top_k=settings.rank_top_k if keeps else None, **only_sliding)


class _CountingEngine:
    """Engine that counts prompts and answers as if all passages were already in the right order."""

    name = "counting"
    n_slots = _N_SLOTS
    takes_prompts_at_work = False

    def __init__(self, tokenizer: Any) -> None:
        self._safe = None if tokenizer is None else SafeTokenizer(tokenizer)
        self._queue: list[tuple[int, Prompt]] = []
        self._pieces: dict[tuple[object, ...], PermutationIds] = {}

    def submit(self, ticket: int, prompt: Prompt) -> None:
        self._queue.append((ticket, prompt))

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        queue, self._queue = self._queue, []
        return [(ticket, self._answer(prompt)) for ticket, prompt in queue]

    def cancel(self, tickets: Collection[int]) -> None:
        self._queue = [item for item in self._queue if item[0] not in set(tickets)]

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self._queue.clear()

    def _answer(self, prompt: Prompt) -> Answer:
        usage = Usage(calls=1, prompt_tokens=_prompt_tokens(prompt), completion_tokens=self._completion_tokens(prompt))
        if prompt.read in ("first-token", "head"):
            return Answer(scores=tuple(float(-place) for place in range(max(1, len(prompt.identifiers)))), usage=usage)
        return Answer(text=prompt.form.write(prompt.identifiers), usage=usage)

    def _completion_tokens(self, prompt: Prompt) -> int:
        if prompt.read == "text":
            return prompt.max_new_tokens
        if prompt.read == "permutation" and self._safe is not None:
            return self._walked(prompt, self._safe)
        # A server bills the token whose alternatives are read; local engines generate none.
        return 1 if self._safe is None else 0

    def _walked(self, prompt: Prompt, safe: SafeTokenizer) -> int:
        """Count the tokens of an answer as constrained decoding generates it."""
        key = (prompt.identifiers, prompt.form, prompt.text[-1:])
        if key not in self._pieces:
            self._pieces[key] = permutation_ids(safe, prompt.identifiers, prompt.form, prompt=prompt.text)
        n = len(prompt.identifiers)
        walk = AnswerWalk(pieces=self._pieces[key], n_named=n if prompt.top_k is None else min(n, prompt.top_k))
        while not walk.is_done:
            walk.take(walk.following()[0])
        return walk.n_tokens


def _prompt_tokens(prompt: Prompt) -> int:
    if prompt.token_ids:
        return len(prompt.token_ids)
    return estimate_tokens(prompt.messages) if prompt.messages else estimate_text_tokens(prompt.text)
