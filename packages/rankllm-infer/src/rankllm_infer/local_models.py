"""Starts a model in this process, on the engine that was asked for, and fits the plan to what it has room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Engine, Read
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.decoding import check_decoding
from rankllm_infer.ranking.listwise import ListwisePlan
from rankllm_infer.ranking.pointwise import PairWriter, PointwisePlan
from rankllm_infer.ranking.prompts import PromptWriter

if TYPE_CHECKING:
    from rankllm_infer.engines.transformers.loading import LoadedModel

Plan = ListwisePlan | PointwisePlan
Writer = PromptWriter | PairWriter

_RETOKENIZED = 64
"""A passage that was cut to so many tokens may be a few more once it stands in its question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedModel:
    """An engine with its model, and what goes with that model."""

    engine: Engine
    plan: Plan
    """The plan with a context that the model has positions for."""
    writer: Writer
    place: str
    """Where it runs and in which dtype, for people."""
    notes: tuple[str, ...]
    """What was changed in the plan or the options, for people."""


def start_on_transformers(
    model: str, plan: Plan, options: RerankOptions, *, write_with: Callable[[Any], Writer]
) -> StartedModel:
    """Load a model with transformers. write_with: gives the prompt writer of a tokenizer, or raises."""
    from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine, cap_threads
    from rankllm_infer.engines.transformers.loading import load_model
    from rankllm_infer.engines.transformers.packing import FLASH_ATTENTIONS
    from rankllm_infer.engines.transformers.trial import check_is_decoder, try_model

    cap_threads()
    loaded = load_model(
        model,
        _kind_of_model(plan.card),
        base_model=options.base_model,
        dtype=options.dtype,
        device=options.device,
        num_gpus=options.num_gpus,
        attn_implementation=options.attn_implementation,
        trust_remote_code=options.trust_remote_code,
    )
    dtype = str(loaded.dtype).removeprefix("torch.")
    batch_size, doubts = _batch_size(options, alone=_why_alone(plan.card, loaded))
    plan, notes = within_positions(
        plan, getattr(loaded.model.config, "max_position_embeddings", None), asked=options.context_size
    )
    writer = write_with(loaded.tokenizer)
    if isinstance(plan, ListwisePlan):
        plan, more = check_decoding(plan, writer)  # type: ignore[arg-type]
        doubts += more
    check_is_decoder(loaded.model, model)
    try_model(loaded.model, _read_of(plan), source=model)
    limits = BatchLimits(max_prompts=batch_size, max_tokens=options.batch_tokens)
    attention = loaded.model.config._attn_implementation
    return StartedModel(
        engine=TransformersEngine(loaded, limits=limits, compiles=options.compile),
        plan=plan,
        writer=writer,
        # Whether flash-attention is found decides the last bits of scores, as the device does.
        place=f"{loaded.device.type} in {dtype}" + (f" with {attention}" if attention in FLASH_ATTENTIONS else ""),
        notes=(*notes, *doubts),
    )


def _batch_size(options: RerankOptions, *, alone: str) -> tuple[int, tuple[str, ...]]:
    """How many prompts run together, and what a user who asked for another number should know.

    alone: why they run one at a time; empty where they do not.
    """
    if not alone:
        return options.batch_size or 32, ()
    asked = {"--batch-size": (options.batch_size or 1) > 1, "--batch-tokens": options.batch_tokens > 0}
    return 1, tuple(f"{option} has no effect: {alone}" for option, is_asked in asked.items() if is_asked)


def _why_alone(card: Card, loaded: LoadedModel) -> str:
    """Why prompts of this model run one at a time here; empty where they do not.

    A CPU's matrix kernels round by the shape of the batch: float32 logits of size 30 move by 3e-5 (docs/measured.md).
    float32 is for those who want the same number every time, and batches gain little there (at most a sixth): where
    scores are read, one at a time. LongRoPE: see `rotation_limit`.
    """
    from rankllm_infer.engines.transformers.heads import rotation_limit

    reads_scores = isinstance(card, PointwiseCard) or card.answer == "first-token"
    if reads_scores and loaded.device.type == "cpu" and str(loaded.dtype) == "torch.float32":
        return "float32 on a CPU runs one prompt at a time, so that no score depends on what runs beside it"
    if rotation_limit(loaded.model.config) is not None:
        return "this model (LongRoPE) reads a prompt by the longest one beside it, so each runs alone"
    return ""


def start_on_vllm(
    model: str, plan: Plan, options: RerankOptions, *, write_with: Callable[[Any], Writer]
) -> StartedModel:
    """Start vLLM on a model. write_with: gives the prompt writer of a tokenizer, or raises."""
    from rankllm_infer.checkpoints.hub import base_folder, load_tokenizer, model_config
    from rankllm_infer.engines.vllm.loading import load_vllm
    from rankllm_infer.engines.vllm.options import VllmOptions

    found = model_config(str(base_folder(model, options.base_model, weights=False))).get("max_position_embeddings")
    positions = found if isinstance(found, int) else None
    plan, notes = within_positions(plan, positions, asked=options.context_size)
    tokenizer = load_tokenizer(model, options.base_model, trust_remote_code=options.trust_remote_code)
    writer = write_with(tokenizer)
    engine, place = load_vllm(
        model,
        _kind_of_model(plan.card),
        tokenizer=tokenizer,
        max_tokens=longest_prompt(plan.card, writer, positions),
        base_model=options.base_model,
        options=VllmOptions(
            dtype=options.dtype,
            num_gpus=options.num_gpus,
            batch_size=options.batch_size,
            batch_tokens=options.batch_tokens,
            trust_remote_code=options.trust_remote_code,
            more=options.vllm_args,
        ),
    )
    return StartedModel(engine=engine, plan=plan, writer=writer, place=place, notes=notes)


def _read_of(plan: Plan) -> Read:
    """How the model is going to be read."""
    if isinstance(plan, PointwisePlan):
        return "head" if plan.card.head == "sequence-classification" else "first-token"
    if plan.card.answer == "first-token":
        return "first-token"
    return "text" if plan.free_decoding else "permutation"


def _kind_of_model(card: Card) -> Literal["causal", "sequence-classification"]:
    uses_head = isinstance(card, PointwiseCard) and card.head == "sequence-classification"
    return "sequence-classification" if uses_head else "causal"


def longest_prompt(card: Card, writer: Writer, positions: int | None) -> int:
    """Tokens of the longest prompt with its answer: vLLM sets memory aside for one of this length at the least."""
    if isinstance(card, ListwiseCard):
        return card.context_tokens
    around = len(writer.write("", title="", text="").token_ids)  # type: ignore[call-arg, arg-type]
    longest = around + card.query_tokens + card.passage_tokens + _RETOKENIZED
    return longest if positions is None else min(longest, positions)


def within_positions(plan: Plan, positions: int | None, *, asked: int | None) -> tuple[Plan, tuple[str, ...]]:
    """The plan with a card that the model has positions for, and what there is to say about it; see `fit_card`."""
    card, notes = fit_card(plan.card, positions, asked=asked)
    return replace(plan, card=card), notes  # type: ignore[arg-type]


def fit_card(card: Card, positions: int | None, *, asked: int | None) -> tuple[Card, tuple[str, ...]]:
    """The card with a context that the model has positions for, and what there is to say about it.

    positions: None where the model has no limit. asked: the context that was asked for. Raises ConfigError where what
    was asked for, or a pair, does not fit.
    """
    if isinstance(card, PointwiseCard):
        if positions is not None and card.query_tokens + card.passage_tokens > positions:
            raise ConfigError(
                f"pairs of {card.query_tokens} + {card.passage_tokens} tokens: the model has {positions} positions; "
                "use a smaller --q-max-len or --p-max-len"
            )
        return card, ()
    if positions is None or card.context_tokens <= positions:
        return card, ()
    if asked is not None:
        raise ConfigError(f"--context-size {asked}: the model has {positions} positions")
    note = f"the context is {positions} tokens: the model has no more positions (asked for: {card.context_tokens})"
    return replace(card, context_tokens=positions), (note,)
