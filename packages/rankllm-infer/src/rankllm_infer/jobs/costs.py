"""What a run will cost, before a model is loaded: its prompts are written and counted, and answers are made up.

The prompts are the run's own, written by the model's tokenizer; for a server's model, whose tokenizer is not known,
they are estimated. Answers agree with the first stage. So the numbers are exact where neither the prompts nor their
number depend on answers, and estimates elsewhere: which passages move on into the next window, how many comparisons a
search takes, how long a model writes that is not held to permutations.
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
    """What a run over some requests takes with one strategy."""

    strategy: str
    """Empty for a pointwise model."""
    is_chosen: bool
    """Whether the run would use it."""
    usage: Usage
    """Over all queries; completion tokens are what the model writes."""
    n_queries: int
    n_failed: int = 0
    """Queries that cannot be prompted."""
    problem: str = ""
    """Why this strategy cannot be used here; the numbers are then 0."""

    def price(self, *, prompt: float, completion: float) -> float:
        """What the tokens cost. prompt, completion: prices of a million tokens."""
        return (self.usage.prompt_tokens * prompt + self.usage.completion_tokens * completion) / 1_000_000


def estimate_costs(plan: RerankPlan, requests: Iterable[Request], *, all_strategies: bool = False) -> list[Costs]:
    """What a planned run takes; no weights are read.

    requests: read once for each strategy. all_strategies: also what the model's other strategies would take.
    Raises RankLLMError where the model's tokenizer cannot be loaded, or does not keep what its card promises.
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
    """The tokenizer, and how many positions the model has, as they will be when it is loaded."""
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
    """The settings with another strategy; without what only the chosen one takes."""
    keeps = name in strategies.TOP_K_STRATEGIES and settings.strategy in strategies.TOP_K_STRATEGIES
    only_sliding = {} if name == "sliding" else {"num_passes": 1, "pass_depth": None}
    return replace(settings, strategy=name, rank_top_k=settings.rank_top_k if keeps else None, **only_sliding)


class _CountingEngine:
    """Counts prompts, and answers that all passages stand in the right order already."""

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
        # A server counts the token whose alternatives are read; an engine of our own generates none.
        return 1 if self._safe is None else 0

    def _walked(self, prompt: Prompt, safe: SafeTokenizer) -> int:
        """Tokens of an answer as it is decoded."""
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
