"""Plan a reranking run: resolve model, card and options before weights are read or torch is imported.

The card's kind determines the ranking method (`METHODS`), the options determine the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rankllm_core.card import Card
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.files import read_text
from rankllm_core.prompts.template import Message, Span
from rankllm_infer.checkpoints.bidirectional import check_bidirectional
from rankllm_infer.checkpoints.encoder_decoders import (
    check_encoder_decoder,
    check_encoder_decoder_card,
    check_encoder_decoder_tokenizer,
    encoder_decoder_adapter_error,
)
from rankllm_infer.checkpoints.encoders import check_encoder, check_encoder_card, pair_tokens
from rankllm_infer.checkpoints.model_files import (
    ModelFiles,
    ModelFolder,
    check_remote_code,
    files_of,
    find_base,
    find_folder,
    unused_code,
)
from rankllm_infer.effective_card import EffectiveCard, resolve_card
from rankllm_infer.engines.base import Read
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.vllm.checks import check_installed, check_runs
from rankllm_infer.engines.vllm.settings import VllmSettings
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.flow import RankingMethod
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings

EngineSettings = TransformersSettings | VllmSettings | OpenAISettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankPlan:
    """Everything needed to build a reranker, checked as far as possible without loading the model."""

    model: str
    """Name given by the user."""
    files: ModelFiles | None
    """None for a model on a server."""
    card: EffectiveCard
    ranking: RankingSettings
    read: Read
    """How the model's output will be parsed; a chat template may turn `permutation` into `text`."""
    engine: EngineSettings
    warnings: tuple[str, ...]
    """Warnings about the reliability of the results, such as options that contradict the card."""
    asked: Mapping[str, object]
    """Options that affect results, by command-line name, for the run's fingerprint."""
    few_shot_file: Path | None = None
    """File that `ranking.few_shot` was read from."""
    verify: bool | None = None
    """Whether to rescore the card's probe after loading the model; None: for models with up to 1B parameters."""


def plan_reranking(model: str | Path, options: RerankOptions | None = None) -> RerankPlan:
    """Locate a model's files and card, and check that model and options are compatible.

    model: a folder, a hub name or, for a server, the model's name on the server. Raises RankLLMError if the model
    cannot be found or does not match the options.
    """
    options, model = _checked_options(options), _checked_name(model)
    ranking, engine = _ranking_settings(options), _engine_settings(model, options)
    if options.engine == "vllm" and not Path(model).exists():
        check_installed()  # a download would be in vain
    own = None if options.engine == "openai" else find_folder(model, options.revision)
    card = card_in_force(model, options, own)
    # Read the few-shot file after the card: if the card has no use for it, that error is reported even if the file is
    # unreadable.
    ranking = replace(ranking, few_shot=_few_shot(options.few_shot_file, options.num_few_shot_examples))
    read = check_settings(card.card, ranking)
    if isinstance(engine, OpenAISettings):
        engine.check_read(read)
        make_method(card.card, ranking, None)  # report what a server cannot do before connecting to it
    files: ModelFiles | None = None
    on_code: tuple[str, ...] = ()
    if own is not None:
        files, on_code = _files(own, card.card, options)
        if own.adapter is not None and files.base.is_encoder:
            card = card_in_force(model, options, own, base=files.base)
            read = check_settings(card.card, ranking)
    return RerankPlan(
        model=model,
        files=files,
        card=card,
        ranking=ranking,
        read=read,
        engine=engine,
        warnings=(*card.warnings, *on_code),
        asked=options.settings(),
        few_shot_file=None if options.few_shot_file is None else Path(options.few_shot_file),
        verify=options.verify,
    )


def _files(own: ModelFolder, card: Card, options: RerankOptions) -> tuple[ModelFiles, tuple[str, ...]]:
    """Return a checkpoint with its base, checked against its card and the engine, and warnings about its code."""
    _check_base(card, own, options.base_model)
    trusted = check_remote_code(own, options.base_model) if options.trust_remote_code else ()
    files = files_of(own, find_base(own, options.base_model), card=card)
    if own.adapter is not None and files.base.is_encoder_decoder:
        raise encoder_decoder_adapter_error(files)
    if files.bidirectional is not None:
        trusts = options.trust_remote_code
        check_bidirectional(card, name=own.name, compiles=options.compile, trust_remote_code=trusts)
    if options.engine == "vllm":
        check_runs(files)
    return files, trusted or unused_code(files)


def card_in_force(
    model: str, options: RerankOptions, own: ModelFolder | None, *, base: ModelFolder | None = None
) -> EffectiveCard:
    """Return the card of a checkpoint with the options applied. own: None for a server's model. Raises RankLLMError.

    base: encoder that an adapter is applied to; it determines the card of an adapter that has none.
    """
    if own is None:
        return resolve_card(model, options, folder=None, score_head=False)
    encoder = base or own
    if encoder.is_encoder_decoder:
        return _encoder_decoder_card(model, options, encoder)
    if not encoder.is_encoder:
        return resolve_card(model, options, folder=own.path, score_head=own.has_score_head)
    adapter = None if encoder is own else own
    check_encoder(encoder, method=options.method, compiles=options.compile, adapter=adapter)
    n_tokens = pair_tokens(encoder, has_adapter=adapter is not None)
    card = resolve_card(model, options, folder=own.path, score_head=own.has_score_head, pair_tokens=n_tokens)
    check_encoder_card(encoder, card.card)
    return card


def _encoder_decoder_card(model: str, options: RerankOptions, own: ModelFolder) -> EffectiveCard:
    engine, method, dtype = options.engine, options.method, options.dtype
    check_encoder_decoder(own, engine=engine, method=method, compiles=options.compile, dtype=dtype)
    card = resolve_card(model, options, folder=own.path, score_head=False, is_encoder_decoder=True)
    check_encoder_decoder_card(own, card.card)
    check_encoder_decoder_tokenizer(own)
    return card


def _checked_options(options: RerankOptions | None) -> RerankOptions:
    if options is None:
        return RerankOptions()
    if not isinstance(options, RerankOptions):
        raise ConfigError(f"options: expected RerankOptions, found {type(options).__name__}")
    return options


def _checked_name(model: str | Path) -> str:
    if not isinstance(model, str | Path) or not str(model).strip():
        found = "an empty string" if isinstance(model, str) else type(model).__name__
        raise ConfigError(f"model: expected a folder or a name, found {found}")
    return str(model)


def _check_base(card: Card, own: ModelFolder, base_model: str | None) -> None:
    """Check that an adapter is combined with the model it was trained on, and that other models have no base."""
    if own.adapter is None and base_model is not None:
        raise ConfigError("--base-model has no effect: the model is not an adapter; leave it out")
    if own.adapter is None or card.base_model is None or base_model is not None:
        return
    named = str(own.adapter.get("base_model_name_or_path", ""))
    if Path(named).name != Path(card.base_model).name:
        raise ContractError(
            f"the card names base model {card.base_model!r}, but adapter_config.json names {named!r}; "
            "correct one of the two, or select one with --base-model"
        )


def _ranking_settings(options: RerankOptions) -> RankingSettings:
    return RankingSettings(
        strategy=options.strategy,
        rank_top_k=options.rank_top_k,
        permutations=options.permutations,
        permutation_seed=options.seed,
        num_passes=options.num_passes,
        pass_depth=options.pass_depth,
        top_k_candidates=options.top_k_candidates,
        shuffle_seed=options.seed if options.shuffle_candidates else None,
        system_message=options.system_message,
        instruction=options.instruction,
        short_windows=options.variable_passages,
        # Only the transformers engine can constrain answers to permutations.
        free_decoding=options.free_decoding or options.engine != "transformers",
        decode_top_k=options.decode_top_k,
        with_trace=options.with_trace,
    )


def _engine_settings(model: str, options: RerankOptions) -> EngineSettings:
    if options.engine == "openai":
        return OpenAISettings(
            base_url=options.base_url or "",
            model=model,
            api_key=options.api_key,
            timeout_s=options.timeout_s,
            concurrency=options.concurrency,
        )
    if options.engine == "vllm":
        return VllmSettings(
            dtype=options.dtype,
            num_gpus=options.num_gpus,
            batch_size=options.batch_size,
            batch_tokens=options.batch_tokens,
            trust_remote_code=options.trust_remote_code,
            more=options.vllm_args,
        )
    return TransformersSettings(
        dtype=options.dtype,
        device=options.device,
        num_gpus=options.num_gpus,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        compile=options.compile,
        attn_implementation=options.attn_implementation,
        trust_remote_code=options.trust_remote_code,
    )


def _few_shot(path: str | Path | None, n_examples: int) -> tuple[Message, ...]:
    """Return the messages of the first examples of a JSON array of {"conversations": [{"role", "value"}, ...]}."""
    if path is None:
        return ()
    try:
        examples = json.loads(read_text(path))
        chosen = examples[:n_examples]
        turns = [(str(t["role"]), str(t["value"])) for example in chosen for t in example["conversations"]]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        expected = 'a JSON array of {"conversations": [{"role", "value"}, ...]}'
        raise RankLLMError(f"{path}: expected {expected} ({type(error).__name__}: {error})") from None
    if len(examples) < n_examples:
        raise RankLLMError(f"{path}: found {len(examples)} examples, expected {n_examples} (--num-few-shot-examples)")
    return tuple(Message(role, (Span(value),)) for role, value in turns)


class MethodKind(Protocol):
    """Factory for the ranking methods of one kind of card."""

    def check(self, card: Any, settings: RankingSettings) -> Read:
        """Return how answers will be read, as far as known without the model. Raises ConfigError."""

    def with_tokenizer(self, card: Any, settings: RankingSettings, tokenizer: Any) -> RankingMethod:
        """Build the method for a card of this kind. tokenizer: the model's tokenizer; None for a server's model."""


METHODS: Mapping[str, MethodKind] = {
    "listwise": ListwiseMethod,
    "pointwise": PointwiseMethod,
    "pairwise": PairwiseMethod,
}
"""Kind of card -> factory of its ranking method."""


def make_method(card: Card, settings: RankingSettings, tokenizer: Any) -> RankingMethod:
    """Build the ranking method of a card. tokenizer: the model's tokenizer; None for a server's model.

    Raises ContractError if the tokenizer contradicts the card.
    """
    return METHODS[card.kind].with_tokenizer(card, settings, tokenizer)


def check_settings(card: Card, settings: RankingSettings) -> Read:
    """Return how answers will be read, as far as known without the model.

    Raises ConfigError for incompatible settings, before a model is loaded.
    """
    return METHODS[card.kind].check(card, settings)
