"""The Python interface: plan and load a reranker, rerank requests. Runs into files are in `jobs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from rankllm_core.card import Card
from rankllm_core.errors import RankLLMError
from rankllm_core.probe import Comparison, Probe
from rankllm_core.types import Request, Result
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.effective_card import fit_card
from rankllm_infer.engines.base import Checkpoint, Engine
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.vllm.settings import VllmSettings
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import RerankPlan, make_method, plan_reranking
from rankllm_infer.probing import compare, record, verification_notes
from rankllm_infer.ranking.flow import RankingMethod, make_request
from rankllm_infer.ranking.pool import IN_USE, AnswerLog, FlowPool, is_at_work, stop_run

__all__ = ["Reranker", "load_reranker", "make_request", "plan_reranking", "start_reranker"]

_CLOSED = "the reranker is closed; load it again"


class Reranker:
    """How a model is prompted, and what runs it. Close it, or use it as a context manager."""

    def __init__(
        self,
        method: RankingMethod,
        engine: Engine,
        *,
        warnings: Sequence[str] = (),
        description: str = "",
        placement: str = "",
    ) -> None:
        self.method = method
        self.engine = engine
        self.warnings = tuple(warnings)
        """What a user should know before trusting the numbers: options that contradict the card, and the like."""
        self.description = description
        self.placement = placement
        """Device and dtype; empty for a server's model, of which nobody tells."""
        self._is_closed = False

    @property
    def card(self) -> Card:
        """The card in force."""
        return self.method.card

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
        pool = FlowPool(self.engine, max_active=self.method.max_active, log=log)
        yield from pool.run(requests, self.method.flow, on_finished=on_finished, on_answered=on_answered)

    def n_prompts(self, n_candidates: int) -> int:
        """Prompts that a query of so many candidates takes; a lower bound with the strategy `top-down`."""
        return self.method.n_prompts(n_candidates)

    def verify(self) -> Comparison | None:
        """Recompute the probe that the model's card holds; None where it holds none.

        `agrees` says whether these are the recorded scores, and `str()` shows both. Ranks and scores of later requests
        are not affected. Raises RankLLMError where the model cannot be asked, or another stream is running.
        """
        if self._is_closed:
            raise RankLLMError(_CLOSED)
        probe = self.card.probe
        return None if probe is None else compare(self.method, self.engine, probe)

    def record_probe(self) -> Probe:
        """A probe of this model, to be kept in its card (`dataclasses.replace(card, probe=...)`).

        Raises RankLLMError where the model gives no scores: a server's, or one whose identifiers are not single tokens.
        """
        if self._is_closed:
            raise RankLLMError(_CLOSED)
        return record(self.method, self.engine)

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


def load_reranker(model: str | Path, options: RerankOptions | None = None) -> Reranker:
    """Load a model and everything its card says about prompting it.

    model: a folder, a hub name, or, for a server, the name it knows the model by.
    Raises RankLLMError when the model cannot be found, or does not keep what its card promises.
    """
    return start_reranker(plan_reranking(model, options))


def start_reranker(plan: RerankPlan) -> Reranker:
    """Load the model of a plan. Raises RankLLMError when it does not keep what its card promises."""
    checkpoint = _open_checkpoint(plan)
    card, notes = fit_card(plan.card, checkpoint.positions)
    method = make_method(card, plan.ranking, checkpoint.tokenizer)
    engine = checkpoint.start(method.read, longest=method.longest, sample=method.sample)
    doubts = _verified(plan, method, engine) if plan.verify or card.probe is not None else ()
    revision = plan.files.own.revision if plan.files is not None else None
    name = plan.model if revision is None else f"{plan.model}@{revision}"
    return Reranker(
        method,
        engine,
        warnings=(*plan.warnings, *notes, *checkpoint.warnings, *method.warnings, *doubts),
        description=f"{card.kind}, {name} {checkpoint.where} ({plan.card.origin})",
        placement=checkpoint.place,
    )


def _verified(plan: RerankPlan, method: RankingMethod, engine: Engine) -> tuple[str, ...]:
    """What the card's probe has to say of the loaded model."""
    try:
        return verification_notes(method, engine, asked=plan.verify, files=plan.files)
    except BaseException:
        engine.close()
        raise


def _open_checkpoint(plan: RerankPlan) -> Checkpoint:
    """Open the plan's model in its engine's room, which is entered only now: importing torch takes seconds."""
    match plan.engine, plan.files:
        case OpenAISettings() as server, None:
            from rankllm_infer.engines.openai.engine import ServedModel

            return ServedModel(server)
        case VllmSettings() as settings, ModelFiles() as files:
            from rankllm_infer.engines.vllm.loading import VllmCheckpoint

            return VllmCheckpoint(files, settings)
        case TransformersSettings() as settings, ModelFiles() as files:
            from rankllm_infer.engines.transformers.loading import open_checkpoint

            return open_checkpoint(files, settings, read=plan.read)
    raise TypeError(f"no engine for {type(plan.engine).__name__} and {type(plan.files).__name__}")
