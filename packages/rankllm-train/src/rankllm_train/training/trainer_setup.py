"""Assembly of a trainer from a recipe: reads the data, loads the model and checks that they match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, PointwiseCard
from rankllm_train.artifacts.preflight import check_metric_is_measurable, check_positions, check_recomputing
from rankllm_train.artifacts.probing import ProbePrompt, probe_prompts
from rankllm_train.artifacts.run_record import RunRecord
from rankllm_train.artifacts.source_identity import source_identities
from rankllm_train.methods.registry import prepare, prepare_dev
from rankllm_train.methods.training_data import Track, TrainingData, collator_of_both
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.recipe.resume_rules import check_card
from rankllm_train.training.distributed import first_decides
from rankllm_train.training.resuming import Resumed

if TYPE_CHECKING:
    from rankllm_train.training.trainer import RerankerTrainer

Say = Callable[[str], None]


def make_trainer(
    recipe: Recipe,
    arguments: Any,
    *,
    resumed: Resumed | None,
    say: Say,
    track: Track,
    callbacks: Sequence[Any],
) -> RerankerTrainer:
    """Read the data, load the model and check that they match. Raises RankLLMError if they do not."""
    from rankllm_train.models.loading import base_config, code_notes, limit_pairs, load_tokenizer
    from rankllm_train.training.logged_trainer import TrainerParts
    from rankllm_train.training.loop_callbacks import WarmUp
    from rankllm_train.training.trainer import RerankerTrainer

    for note in code_notes(recipe.model):
        say(note)
    # Hashed before reading: if a file is rewritten meanwhile, its hash differs on resume.
    record = resumed.record if resumed else RunRecord(sources=first_decides(lambda: source_identities(recipe)))
    tokenizer = load_tokenizer(recipe.model)
    limit_pairs(tokenizer, base_config(recipe.model))
    data, dev = _data(recipe, tokenizer, resumed=resumed, track=track, say=say)
    model = _model(recipe, data.card, is_resumed=resumed is not None, say=say)
    for part in (data, dev) if dev else (data,):
        check_positions(model, part.dataset, recipe=recipe)
    parts = TrainerParts(
        model=model,
        tokenizer=tokenizer,
        card=data.card,
        recipe=recipe,
        arguments=arguments,
        record=record,
        objective=data.objective,
        dataset=data.dataset,
        eval_dataset=dev.dataset if dev else None,
        collator=collator_of_both(data, dev),
        callbacks=[WarmUp(say), *callbacks],
        probe_prompts=_probe_prompts(data.card, tokenizer, model, say=say),
    )
    return RerankerTrainer(parts)


def _probe_prompts(card: Card, tokenizer: Any, model: Any, *, say: Say) -> tuple[ProbePrompt, ...]:
    """Return the prompts for the probe in each checkpoint's card; reports if the model cannot be probed."""
    prompts = probe_prompts(card, tokenizer, positions=getattr(model.config, "max_position_embeddings", None))
    if not prompts:
        say(
            "cards will contain no probe: an identifier is more than one token, or a prompt of four short passages "
            "exceeds the model's positions"
        )
    return prompts


def _data(
    recipe: Recipe, tokenizer: Any, *, resumed: Resumed | None, track: Track, say: Say
) -> tuple[TrainingData, TrainingData | None]:
    """Return training and dev data, and report their notes."""
    data = prepare(recipe, tokenizer, track=track)
    if resumed:
        check_card(data.card, resumed=resumed.folder)
    dev = prepare_dev(recipe, tokenizer, data, track=track) if recipe.data.eval else None
    if dev:
        check_metric_is_measurable(recipe, [data.dataset, dev.dataset])
    for note in (*data.notes, *(dev.notes if dev else ())):
        say(note)
    return data, dev


def _model(recipe: Recipe, card: Card, *, is_resumed: bool, say: Say) -> Any:
    from rankllm_train.models.loading import load_model

    is_classifier = isinstance(card, PointwiseCard) and card.head == "sequence-classification"
    model = load_model(
        recipe.model,
        kind="sequence-classification" if is_classifier else "causal",
        # A checkpoint's weights are loaded later; the adapter it started from may be gone by then.
        lora=replace(recipe.lora, start_from="") if is_resumed else recipe.lora,
        seed=recipe.schedule.seed,
        deepspeed=bool(recipe.batch.deepspeed),
        say=(lambda line: None) if is_resumed else say,
    )
    check_recomputing(model, recipe=recipe)
    return model
