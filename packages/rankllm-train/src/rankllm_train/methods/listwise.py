"""Listwise method: orders a window of passages (RankZephyr, FIRST)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rankllm_core.card import ListwiseCard
from rankllm_core.errors import DataError
from rankllm_core.prompts.template import ListwiseTemplate
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.rankings import with_identifiers
from rankllm_train.data.records import ListwiseRecord
from rankllm_train.data.sources import listwise_source
from rankllm_train.encoding.batches import ListwiseCollator
from rankllm_train.encoding.listwise import ListwiseDataset, encode_listwise
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder
from rankllm_train.encoding.prompt_match import mismatch_notes, template_for
from rankllm_train.methods.training_data import Track, TrainingData, base_of_adapters, pad_id
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.training.objectives import ListwiseObjective


def training_data(recipe: Recipe, tokenizer: Any, *, track: Track = iter) -> TrainingData:
    """Read, check and encode listwise records. Raises RankLLMError naming file, line and record."""
    bad = BadRecords(recipe.data.bad_records, source=recipe.data.train)
    dataset = _dataset(recipe, tokenizer, bad=bad, track=track)
    # Chosen again from the remaining records, since the first one may have been skipped. All bundled ones share a chat
    # layout.
    template = template_for(dataset.first_records, given=recipe.prompt.template)
    notes = mismatch_notes(dataset.first_records, template)
    collator = ListwiseCollator(
        objective=recipe.objective_name, identifier_ids=dataset.identifier_ids, pad_id=pad_id(tokenizer)
    )
    return TrainingData(
        dataset=dataset,
        collator=collator,
        objective=_objective(recipe),
        card=_card(recipe, template, dataset),
        notes=(*notes, *_cuts(dataset), *bad.notes(n_kept=len(dataset))),
    )


def _dataset(recipe: Recipe, tokenizer: Any, *, bad: BadRecords, track: Track) -> ListwiseDataset:
    records, name = _records(recipe, bad), recipe.objective_name
    template = template_for(records, given=recipe.prompt.template)
    encoder = ListwiseEncoder(tokenizer, objective=name, bos=recipe.prompt.bos, layout=template.chat_layout)
    return encode_listwise(
        track(records),
        encoder,
        objective=name,
        context_tokens=recipe.prompt.context_tokens,
        overlong=recipe.data.overlong,
        bad_records=bad,
        template=template,
    )


def _records(recipe: Recipe, bad: BadRecords) -> Sequence[ListwiseRecord]:
    """Return the listwise records of the recipe, with the identifiers that it asks for."""
    records: Iterable[ListwiseRecord] = listwise_source(recipe.data.train, limit=recipe.data.max_records, bad=bad)
    if recipe.data.identifiers == "keep":
        return list(records)
    kept = []
    for record in records:
        try:
            kept.append(with_identifiers(record, recipe.data.identifiers))  # type: ignore[arg-type]
        except DataError as problem:
            bad.refuse(problem)
    return kept


def _cuts(dataset: ListwiseDataset) -> tuple[str, ...]:
    """Return notes about truncated records."""
    cuts: tuple[str, ...] = ()
    if dataset.n_truncated:
        cuts += (f"truncated the passages of {dataset.n_truncated} records to fit the context",)
    if dataset.n_alike:
        cuts += (f"in {dataset.n_alike} of them, different passages now look the same; use a larger --context-size",)
    return cuts


def _objective(recipe: Recipe) -> ListwiseObjective:
    section = recipe.objective
    return ListwiseObjective(
        name=recipe.objective_name,
        ranking_loss=section.ranking_loss,
        weighted=section.weighted,
        weight=section.weight,
    )


def _card(recipe: Recipe, template: ListwiseTemplate, dataset: ListwiseDataset) -> ListwiseCard:
    prompt = recipe.prompt
    return ListwiseCard(
        template=template,
        base_model=base_of_adapters(recipe),
        identifiers=dataset.identifiers,
        answer="permutation" if recipe.objective_name == "generation" else "first-token",
        bos=prompt.bos,
        context_tokens=prompt.context_tokens,
        max_passage_words=prompt.max_passage_words,
        window_size=prompt.window_size,
        stride=prompt.stride,
    )
