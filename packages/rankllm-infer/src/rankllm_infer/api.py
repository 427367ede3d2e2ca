"""The Python interface: load a reranker, rerank requests. The command line calls nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.files import read_text
from rankllm_core.identifiers import identifiers
from rankllm_core.prompts.template import Message, Span
from rankllm_core.types import Request, Result
from rankllm_infer.effective_card import ResolvedCard, resolve_card
from rankllm_infer.engines.base import Engine, EngineError
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.decoding import decodes_freely
from rankllm_infer.ranking.fuse import fuse
from rankllm_infer.ranking.listwise import OPENING, Flow, ListwisePlan, rerank_listwise
from rankllm_infer.ranking.pointwise import (
    MessagePairWriter,
    PairWriter,
    PointwisePlan,
    TokenPairWriter,
    rerank_pointwise,
)
from rankllm_infer.ranking.pool import IN_USE, AnswerLog, FlowPool, is_at_work, stop_run
from rankllm_infer.ranking.prompts import PromptWriter
from rankllm_infer.ranking.requests import make_request

__all__ = ["Reranker", "card_in_force", "load_reranker", "make_request", "message_writer", "token_writer"]

if TYPE_CHECKING:
    from rankllm_core.prompts.tokens import SafeTokenizer
    from rankllm_infer.engines.openai.options import OpenAIOptions

_MAX_IN_FLIGHT = {"listwise": 64, "pointwise": 16}
"""Requests in flight at once: enough to fill batches, few enough that memory does not grow with the run."""


class Reranker:
    """A model, how it is prompted, and what runs it. Close it, or use it as a context manager."""

    def __init__(
        self,
        engine: Engine,
        plan: ListwisePlan | PointwisePlan,
        writer: PromptWriter | PairWriter,
        *,
        warnings: Sequence[str] = (),
        description: str = "",
        placement: str = "",
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.writer = writer
        self.warnings = tuple(warnings)
        """What a user should know before trusting the numbers: options that contradict the card, and the like."""
        self.description = description
        self.placement = placement
        """Device and dtype; empty for a server's model, of which nobody tells."""
        self._is_closed = False

    @property
    def card(self) -> Card:
        """The card in force."""
        return self.plan.card

    def rerank(self, requests: Iterable[Request]) -> list[Result]:
        """Return the result of each request, in input order. A failed one has status `failed` and a reason in `error`.

        Raises the errors that `stream` raises; the results obtained before are then lost.
        """
        return list(self.stream(requests))

    def stream(
        self,
        requests: Iterable[Request],
        *,
        on_finished: Callable[[Result], None] = lambda result: None,
        on_answered: Callable[[str], None] = lambda qid: None,
        log: AnswerLog | None = None,
    ) -> Iterator[Result]:
        """Yield the same results one by one, in input order; memory does not grow with their number.

        on_finished: called with each result as soon as it is available, which may be before its turn. on_answered:
        called with the qid on every answer to a prompt; count progress here, against `n_prompts`. log: a `Journal`,
        which makes the run resumable; queries that it has recorded as finished are not yielded again.
        A reranker runs one stream at a time, from the request for its first result until it is exhausted or closed.

        Raises ServerGoneError (a RankLLMError, in `rankllm_infer.engines.openai.breaker`) where the server of engine
        `openai` has stopped answering. Raises RankLLMError where the reranker is closed; where another stream is
        running, in whatever thread, and leaves that one unaffected; where `requests` is no iterable of Request; and,
        with `log`, where the journal cannot be read or written or two requests in flight share a qid. A query that
        cannot be prompted or answered raises nothing: it yields a failed result. Errors of `requests`, of the callbacks
        and of the device (such as CUDA's) are passed through.
        """
        if self._is_closed:
            raise RankLLMError(_CLOSED)
        pool = FlowPool(self.engine, max_active=_MAX_IN_FLIGHT[self.card.kind], log=log)
        yield from pool.run(requests, self._flow, on_finished=on_finished, on_answered=on_answered)

    def n_prompts(self, n_candidates: int) -> int:
        """Prompts that a query of so many candidates takes; a lower bound with the strategy `top-down`."""
        return self.plan.n_prompts(n_candidates)

    def _flow(self, request: Request) -> Flow:
        plan = self.plan
        is_listwise = isinstance(plan, ListwisePlan)
        rank: Callable[..., Flow] = rerank_listwise if is_listwise else rerank_pointwise
        result = yield from rank(request, plan, self.writer)
        return fuse(result, request, plan.card.fuse_weight, n_ranked=plan.top_k_candidates, by_rank=is_listwise)

    def close(self) -> None:
        """Release the engine's resources. Raises RankLLMError while a run is in progress, which is unaffected."""
        if is_at_work(self.engine):
            raise RankLLMError(f"cannot be closed now: {IN_USE}")
        self._close()

    def _close(self) -> None:
        self._is_closed = True
        self.engine.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The block is over, whatever ended it: resuming a stream that was left half read raises an error that says so.
        stop_run(self.engine, _CLOSED)
        self._close()


_CLOSED = "the reranker is closed; load it again"


def load_reranker(model: str | Path, options: RerankOptions | None = None) -> Reranker:
    """Load a model and everything its card says about prompting it.

    model: a folder, a hub name, or, for a server, the name it knows the model by.
    Raises RankLLMError when the model cannot be found, or does not keep what its card promises.
    """
    options = _checked_options(options)
    model = _checked_name(model)
    return _served(model, options) if options.engine == "openai" else _local(model, options)


def card_in_force(model: str, options: RerankOptions) -> ResolvedCard:
    """The model's card with the options over it, found without loading the model. Raises RankLLMError."""
    model, options = _checked_name(model), _checked_options(options)
    if options.engine == "openai":
        return resolve_card(model, options, folder=None, score_head=False)
    from rankllm_infer.checkpoints.hub import has_score_head, locate_model

    folder = locate_model(model, weights=False)
    return resolve_card(model, options, folder=folder, score_head=has_score_head(model))


def _checked_options(options: RerankOptions | None) -> RerankOptions:
    if options is None:
        return RerankOptions()
    if not isinstance(options, RerankOptions):
        raise ConfigError(f"options: expected RerankOptions, found {type(options).__name__}")
    return options


def _checked_name(model: str | Path) -> str:
    if not isinstance(model, str | Path) or not str(model).strip():
        found = "an empty one" if isinstance(model, str) else type(model).__name__
        raise ConfigError(f"model: expected a folder or a name, found {found}")
    return str(model)


def _local(model: str, options: RerankOptions) -> Reranker:
    from rankllm_infer.checkpoints.hub import adapter_config
    from rankllm_infer.checkpoints.remote_code import check_remote_code
    from rankllm_infer.local_models import start_on_transformers, start_on_vllm

    resolved = card_in_force(model, options)
    card = resolved.card
    plan = _plan(card, options)
    _check_base(card, adapter_config(model), options)
    on_code = check_remote_code(model, options.base_model, allowed=options.trust_remote_code)
    # Only now: importing torch takes seconds, and what is wrong up to here is said at once.
    start = start_on_vllm if options.engine == "vllm" else start_on_transformers
    started = start(model, plan, options, write_with=lambda tokenizer: token_writer(card, tokenizer))
    resolved = replace(resolved, warnings=(*resolved.warnings, *on_code, *started.notes))
    description = f"{model} on {started.place}" + (", running its own code" if options.trust_remote_code else "")
    return _reranker(started.engine, started.plan, started.writer, resolved, description, placement=started.place)


def token_writer(card: Card, tokenizer: Any) -> PromptWriter | PairWriter:
    """What writes a card's prompts with the model's own tokenizer, once that is checked to keep the card's promises."""
    from rankllm_core.prompts.chat import ChatEncoder
    from rankllm_core.prompts.pairs import PairEncoder, PairLimits
    from rankllm_infer.ranking.prompts import TokenPromptWriter

    if isinstance(card, PointwiseCard):
        limits = PairLimits(query_tokens=card.query_tokens, passage_tokens=card.passage_tokens)
        pairs = PairEncoder(tokenizer, card.template, limits=limits, bos=card.bos, append_eos=card.append_eos)
        return TokenPairWriter(pairs, card)
    chat = ChatEncoder(tokenizer, layout=card.template.chat_layout, bos=card.bos)
    if card.answer == "first-token":
        check_identifiers(chat.safe, card)
    return TokenPromptWriter(chat)


def message_writer(card: Card) -> PromptWriter | PairWriter:
    """What writes a card's prompts for a chat server."""
    from rankllm_infer.ranking.prompts import MessagePromptWriter

    return MessagePairWriter(card) if isinstance(card, PointwiseCard) else MessagePromptWriter()


def _served(model: str, options: RerankOptions) -> Reranker:
    from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAIOptions

    resolved = card_in_force(model, options)
    plan = _plan(resolved.card, options)
    server = OpenAIOptions(
        base_url=options.base_url or "",
        model=model,
        api_key=options.api_key,
        timeout_s=options.timeout_s,
        concurrency=options.concurrency,
    )
    writer = message_writer(resolved.card)
    resolved = replace(resolved, warnings=(*resolved.warnings, *_doubts_about(server)))
    return _reranker(OpenAIEngine(server), plan, writer, resolved, f"{model} at {server.shown_url}")


def _doubts_about(server: OpenAIOptions) -> tuple[str, ...]:
    """What its list of models says against a server. Raises EngineError at once where nobody is there."""
    from rankllm_infer.engines.openai.engine import check_server
    from rankllm_infer.engines.openai.http import NoServerError

    try:
        check_server(server)
    except NoServerError:
        raise
    except EngineError as error:
        # Not all servers list what they serve, or to every key: the first prompts will tell.
        return (str(error),)
    return ()


def _reranker(
    engine: Engine,
    plan: ListwisePlan | PointwisePlan,
    writer: PromptWriter | PairWriter,
    resolved: ResolvedCard,
    description: str,
    *,
    placement: str = "",
) -> Reranker:
    description = f"{plan.card.kind}, {description} ({resolved.origin})"
    return Reranker(engine, plan, writer, warnings=resolved.warnings, description=description, placement=placement)


def _plan(card: Card, options: RerankOptions) -> ListwisePlan | PointwisePlan:
    """What the card and the options ask for. Reads the few-shot file, before a model is loaded in vain."""
    if isinstance(card, PointwiseCard):
        return PointwisePlan(card=card, top_k_candidates=options.top_k_candidates, with_trace=options.with_trace)
    return ListwisePlan(
        card=card,
        strategy=options.strategy,
        rank_top_k=options.rank_top_k,
        permutations=options.permutations,
        permutation_seed=options.seed,
        num_passes=options.num_passes,
        pass_depth=options.pass_depth,
        top_k_candidates=options.top_k_candidates,
        shuffle_seed=options.seed if options.shuffle_candidates else None,
        system_message=options.system_message,
        few_shot=_few_shot(options),
        short_windows=options.variable_passages,
        free_decoding=decodes_freely(card, options),
        decode_top_k=options.decode_top_k,
        with_trace=options.with_trace,
    )


def check_identifiers(safe: SafeTokenizer, card: ListwiseCard) -> None:
    """FIRST reads one token an identifier: raise ContractError where an identifier of a full window is more."""
    from rankllm_core.prompts.tokens import single_ids

    labels = identifiers("alpha" if card.identifiers == "alpha" else "numeric", card.window_size)
    fits = 0
    try:
        for label in labels:
            single_ids(safe, [label], after=OPENING)
            fits += 1
    except ContractError as error:
        way_out = (
            f"--window-size {fits} or less (with a --stride no larger)" if fits else "generation (--no-use-logits)"
        )
        other = "--use-alpha, or " if card.identifiers == "numeric" else ""
        raise ContractError(f"FIRST reads one token an identifier: {error}; use {other}{way_out}") from None


def _check_base(card: Card, adapter: Mapping[str, object] | None, options: RerankOptions) -> None:
    """An adapter belongs to the model it was trained on; another model has no base."""
    if adapter is None and options.base_model is not None:
        raise ConfigError("--base-model has no effect: the model is no adapter; leave it out")
    if adapter is None or card.base_model is None or options.base_model is not None:
        return
    named = str(adapter.get("base_model_name_or_path", ""))
    if Path(named).name != Path(card.base_model).name:
        raise ContractError(
            f"the card names the base model {card.base_model!r}, adapter_config.json {named!r}; "
            "mend one of the two, or say which with --base-model"
        )


def _few_shot(options: RerankOptions) -> tuple[Message, ...]:
    """The turns of the first examples of a file: a JSON array of {"conversations": [{"role", "value"}, ...]}."""
    if options.few_shot_file is None:
        return ()
    path = options.few_shot_file
    try:
        examples = json.loads(read_text(path))
        chosen = examples[: options.num_few_shot_examples]
        turns = [(str(t["role"]), str(t["value"])) for example in chosen for t in example["conversations"]]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        expected = 'a JSON array of {"conversations": [{"role", "value"}, ...]}'
        raise RankLLMError(f"{path}: expected {expected} ({type(error).__name__}: {error})") from None
    if len(examples) < options.num_few_shot_examples:
        raise RankLLMError(f"{path}: {options.num_few_shot_examples} examples asked for, found {len(examples)}")
    return tuple(Message(role, (Span(value),)) for role, value in turns)
