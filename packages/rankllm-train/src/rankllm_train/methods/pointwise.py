"""Pointwise method: one score per passage, from a score head or from the language model's token logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import PointwiseTemplate, default_pointwise_template, pointwise_template
from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.sources import pointwise_source
from rankllm_train.encoding.batches import PointwiseCollator
from rankllm_train.encoding.pointwise import GroupRule, PointwiseDataset, pointwise_dataset
from rankllm_train.methods.training_data import Track, TrainingData, base_of_adapters, pad_id
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.training.objectives import PointwiseObjective


def training_data(recipe: Recipe, tokenizer: Any, *, track: Track = iter) -> TrainingData:
    """Read, check and encode pointwise records. Raises RankLLMError naming file, line and record.

    track: not used, since groups are sampled and tokenized in each epoch instead of before the first step.
    """
    template = _template(recipe)
    bad = BadRecords(recipe.data.bad_records, source=recipe.data.train)
    card = _card(recipe, template)
    dataset = _dataset(recipe, tokenizer, template, bad=bad)
    answer_ids: Sequence[int] = ()
    if card.tokens_read:
        # The end of the prompt decides which ids the words have; inference reads them there too.
        end = dataset.encoder.encode_question("q", title="", text="p")[0][-1:]
        answer_ids = single_ids(SafeTokenizer(tokenizer), card.tokens_read, after=end)
    return TrainingData(
        dataset=dataset,
        collator=PointwiseCollator(
            pad_id=pad_id(tokenizer), answer_ids=tuple(answer_ids), has_mask=template.layout == "pair"
        ),
        objective=_objective(recipe),
        card=card,
        notes=(*_notes(dataset), *bad.notes(n_kept=len(dataset))),
    )


def _template(recipe: Recipe) -> PointwiseTemplate:
    prompt = recipe.prompt
    template = default_pointwise_template(prompt.head)
    if prompt.template:
        template = pointwise_template(prompt.template, where="prompt.template: ")
    if not prompt.instruction:
        return template
    if not template.takes_instruction:
        raise ConfigError(
            f"prompt.instruction has no effect: template {template.name} has no {{instruction}} placeholder; leave it "
            "out, or use a template with one"
        )
    return replace(template, instruction=prompt.instruction)


def _card(recipe: Recipe, template: PointwiseTemplate) -> PointwiseCard:
    prompt, limits = recipe.prompt, _limits(recipe)
    return PointwiseCard(
        template=template,
        base_model=base_of_adapters(recipe),
        head=prompt.head,
        bos=prompt.bos,
        append_eos=prompt.append_eos,
        query_tokens=limits.query_tokens,
        passage_tokens=limits.passage_tokens,
    )


def _limits(recipe: Recipe) -> PairLimits:
    prompt = recipe.prompt
    given = {"query_tokens": prompt.query_tokens, "passage_tokens": prompt.passage_tokens}
    return PairLimits(**{name: tokens for name, tokens in given.items() if tokens is not None})


def _dataset(recipe: Recipe, tokenizer: Any, template: PointwiseTemplate, *, bad: BadRecords) -> PointwiseDataset:
    prompt, data = recipe.prompt, recipe.data
    encoder = PairEncoder(tokenizer, template, limits=_limits(recipe), bos=prompt.bos, append_eos=prompt.append_eos)
    rule = GroupRule(
        group_size=data.group_size,
        seed=recipe.schedule.seed,
        positive_no_shuffle=data.positive_no_shuffle,
        negative_no_shuffle=data.negative_no_shuffle,
        needs_teacher=recipe.objective_name in ("kl", "margin"),
    )
    records = pointwise_source(data.train, limit=data.max_records, bad=bad)
    return pointwise_dataset(records, encoder, rule, bad_records=bad)


def _objective(recipe: Recipe) -> PointwiseObjective:
    section = recipe.objective
    return PointwiseObjective(
        name=recipe.objective_name,
        group_size=recipe.data.group_size,
        teacher_temperature=section.teacher_temperature,
        student_temperature=section.student_temperature,
        label_weight=section.label_weight,
    )


def _notes(dataset: PointwiseDataset) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    if dataset.n_short:
        n_negatives = dataset.rule.group_size - 1
        notes += (
            f"{dataset.n_short} records have fewer than {n_negatives} negatives, which are sampled with replacement",
        )
    if dataset.alike:
        alike = f"{len(dataset.alike)} records have different passages with the same prompt"
        notes += (f"{alike}; the first: {dataset.alike[0]}",)
    return notes
