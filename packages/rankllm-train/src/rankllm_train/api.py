"""One training run from a recipe: data, model, card, loop. The command line calls nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError, DataError
from rankllm_core.template import PointwiseTemplate, load_template
from rankllm_train.best import Best, settle_best
from rankllm_train.checkpoints import find_resumable, global_step, remove, sweep
from rankllm_train.distributed import check_resumable_here
from rankllm_train.metrics_log import start_metrics
from rankllm_train.preflight import (
    check_by_length,
    check_complete,
    check_positions,
    check_precision,
    check_trackers,
    check_yardstick,
    earlier_results,
    tell_changes,
)
from rankllm_train.recipe import Recipe

if TYPE_CHECKING:
    from rankllm_train.records import ListwiseRecord

Say = Callable[[str], None]
Track = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What the loop is fed with, and the card that follows from it."""

    dataset: Any
    collator: Any
    objective: Any
    card: Card
    notes: tuple[str, ...] = ()
    """What a user should know: records left out, and the like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What came of a run."""

    output_dir: Path
    steps: int
    loss: float
    """Mean over the steps of this run."""
    best: Best | None = None
    """Which model the output folder holds, where the recipe has the best one kept; else it is the last."""


def train(
    recipe: Recipe,
    *,
    resume_from: str | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
    track: Track = iter,
    callbacks: Sequence[Any] = (),
) -> TrainingResult:
    """Run a recipe. resume_from: a checkpoint's folder, or `latest`. say: is told what a user should know.

    overwrite: delete the checkpoints of an earlier run in the output folder. track: gives the records it is given, and
    may show how far their tokenising is.
    Raises RankLLMError before the first step on anything that cannot be trained, and where the loss becomes NaN.
    """
    from rankllm_train.curves import draw_curves
    from rankllm_train.models import load_model, load_tokenizer
    from rankllm_train.trainer import RerankerTrainer, training_arguments

    check_complete(recipe)
    check_precision(recipe)
    check_trackers(recipe, say)
    output_dir = Path(recipe.checkpoint.output_dir)
    # Processes meet here. Before the model: ZeRO-3 shares it out over them while it is loaded.
    arguments = training_arguments(recipe)
    check_by_length(recipe, processes=arguments.world_size)
    with arguments.main_process_first(local=False):  # the others are to find what it has put right
        if arguments.process_index == 0:
            sweep(output_dir)
    resumed = find_resumable(resume_from, output_dir) if resume_from else None
    doomed = earlier_results(output_dir, resumed=resumed, overwrite=overwrite)
    if resumed:
        is_deepspeed = bool(recipe.batch.deepspeed)
        for note in check_resumable_here(resumed, deepspeed=is_deepspeed, processes=arguments.world_size):
            say(note)
        tell_changes(recipe, resumed=resumed, say=say)
    tokenizer = load_tokenizer(recipe.model)
    data = prepare(recipe, tokenizer, track=track)
    dev = prepare_dev(recipe, tokenizer, data, track=track) if recipe.data.eval else None
    if dev:
        check_yardstick(recipe, [data.dataset, dev.dataset])
    for note in (*data.notes, *(dev.notes if dev else ())):
        say(note)
    is_classifier = isinstance(data.card, PointwiseCard) and data.card.head == "sequence-classification"
    model = load_model(
        recipe.model,
        kind="sequence-classification" if is_classifier else "causal",
        # A checkpoint's weights come later; what they began with may be gone by then.
        lora=replace(recipe.lora, start_from="") if resumed else recipe.lora,
        seed=recipe.schedule.seed,
        deepspeed=bool(recipe.batch.deepspeed),
    )
    for part in (data, dev) if dev else (data,):
        check_positions(model, part.dataset, recipe=recipe)
    trainer = RerankerTrainer(
        model,
        arguments=arguments,
        recipe=recipe,
        card=data.card,
        objective=data.objective,
        dataset=data.dataset,
        collator=_collator_of_both(data, dev),
        eval_dataset=dev.dataset if dev else None,
        tokenizer=tokenizer,
        callbacks=callbacks,
    )
    if trainer.is_world_process_zero():
        _open_output(recipe, resumed=resumed, doomed=doomed, say=say)
    trainer.accelerator.wait_for_everyone()
    outcome = trainer.train(str(resumed) if resumed else None)
    trainer.save_final()
    if trainer.is_world_process_zero():
        draw_curves(output_dir, best_step=trainer.best.step if trainer.best else None)
    return TrainingResult(
        output_dir=output_dir, steps=outcome.global_step, loss=outcome.training_loss, best=trainer.best
    )


def _collator_of_both(data: TrainingData, dev: TrainingData | None) -> Any:
    """One collator for training and dev data: the longer lists need the longer row of identifiers, if both have one."""

    def n_identifiers(collator: Any) -> int:
        return len(getattr(collator, "identifier_ids", ()))

    collators = [part.collator for part in (data, dev) if part]
    shortest = min(collators, key=n_identifiers)
    return max(collators, key=n_identifiers) if n_identifiers(shortest) else shortest


def _open_output(recipe: Recipe, *, resumed: Path | None, doomed: Sequence[Path], say: Say) -> None:
    """Clear the output folder of what must not be taken for this run's. doomed: checkpoints to delete."""
    output_dir = Path(recipe.checkpoint.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for checkpoint in doomed:
        remove(checkpoint)
    step = global_step(resumed) if resumed else 0
    start_metrics(output_dir, step=step)
    if resumed and recipe.keeps_best:
        settle_best(recipe, resumed=resumed, step=step, say=say)


def prepare(recipe: Recipe, tokenizer: Any, *, track: Track = iter) -> TrainingData:
    """Read, check and encode the data of a recipe. Raises RankLLMError naming file, line and record."""
    return _listwise(recipe, tokenizer, track) if recipe.method == "listwise" else _pointwise(recipe, tokenizer)


def prepare_dev(recipe: Recipe, tokenizer: Any, data: TrainingData, *, track: Track = iter) -> TrainingData:
    """The dev data, encoded as the training data. Raises ConfigError where its identifiers are others."""
    dev = prepare(recipe.changed({"data.train": recipe.data.eval, "data.max_records": 0}), tokenizer, track=track)
    found, wanted = getattr(dev.card, "identifiers", None), getattr(data.card, "identifiers", None)
    if found != wanted:
        raise ConfigError(
            f"--eval-dataset-path: {found} identifiers, the training data has {wanted} ones; use --identifiers {wanted}"
        )
    return dev


def _listwise(recipe: Recipe, tokenizer: Any, track: Track) -> TrainingData:
    from rankllm_train.data_listwise import ListwiseCollator, ListwiseEncoder, encode_listwise
    from rankllm_train.objectives import ListwiseObjective
    from rankllm_train.prompt_match import matching_template

    section, name = recipe.objective, recipe.objective_name
    records = _records(recipe)
    template, notes = matching_template(records, given=recipe.prompt.template)
    encoder = ListwiseEncoder(tokenizer, objective=name, bos=recipe.prompt.bos, layout=template.chat_layout)
    dataset = encode_listwise(
        track(records),
        encoder,
        objective=name,
        context_tokens=recipe.prompt.context_tokens,
        overlong=recipe.data.overlong,
        bad_records=recipe.data.bad_records,
    )
    cut = (f"cut the passages of {dataset.n_truncated} records to fit the context",) if dataset.n_truncated else ()
    if dataset.n_alike:
        cut += (f"in {dataset.n_alike} of them different passages are now shown alike; use a larger --context-size",)
    card = ListwiseCard(
        template=template,
        base_model=_base_model(recipe),
        identifiers=dataset.identifiers,
        answer="permutation" if name == "generation" else "first-token",
        bos=recipe.prompt.bos,
        context_tokens=recipe.prompt.context_tokens,
        max_passage_words=recipe.prompt.max_passage_words,
        window_size=recipe.prompt.window_size,
        stride=recipe.prompt.stride,
    )
    return TrainingData(
        dataset=dataset,
        collator=ListwiseCollator(objective=name, identifier_ids=dataset.identifier_ids, pad_id=pad_id(tokenizer)),
        objective=ListwiseObjective(
            name=name, ranking_loss=section.ranking_loss, weighted=section.weighted, weight=section.weight
        ),
        card=card,
        notes=(*notes, *cut, *_skipped_note(dataset.skipped)),
    )


def _records(recipe: Recipe) -> list[ListwiseRecord]:
    """The listwise records that the recipe wants, in the identifiers that it wants."""
    from rankllm_train.rankings import with_identifiers
    from rankllm_train.sources import listwise_source

    records: Iterable[ListwiseRecord] = listwise_source(recipe.data.train, limit=recipe.data.max_records)
    if recipe.data.identifiers == "keep":
        return list(records)
    kept = []
    for record in records:
        try:
            kept.append(with_identifiers(record, recipe.data.identifiers))  # type: ignore[arg-type]
        except DataError:
            if recipe.data.bad_records == "error":
                raise
            kept.append(record)  # the encoder finds it bad as well, and counts it
    return kept


def _pointwise(recipe: Recipe, tokenizer: Any) -> TrainingData:
    from rankllm_core.pairs import PairEncoder, PairLimits
    from rankllm_core.tokens import SafeTokenizer, single_ids
    from rankllm_train.data_pointwise import GroupRule, PointwiseCollator, pointwise_dataset
    from rankllm_train.objectives import PointwiseObjective
    from rankllm_train.sources import pointwise_source

    section, prompt, name = recipe.objective, recipe.prompt, recipe.objective_name
    template = load_template(prompt.template or ("yes_no" if prompt.head == "yes-no" else "rankllama"))
    if not isinstance(template, PointwiseTemplate):
        raise ConfigError(f"prompt.template: {template.name} is a listwise template; expected a pointwise one")
    card = PointwiseCard(
        template=template,
        base_model=_base_model(recipe),
        head=prompt.head,
        bos=prompt.bos,
        append_eos=prompt.append_eos,
        query_tokens=prompt.query_tokens,
        passage_tokens=prompt.passage_tokens,
    )
    limits = PairLimits(query_tokens=prompt.query_tokens, passage_tokens=prompt.passage_tokens)
    encoder = PairEncoder(tokenizer, template, limits=limits, bos=prompt.bos, append_eos=prompt.append_eos)
    rule = GroupRule(
        group_size=recipe.data.group_size,
        seed=recipe.schedule.seed,
        positive_no_shuffle=recipe.data.positive_no_shuffle,
        negative_no_shuffle=recipe.data.negative_no_shuffle,
        needs_teacher=name != "cross-entropy",
    )
    records = pointwise_source(
        recipe.data.train, limit=recipe.data.max_records, skip_bad=recipe.data.bad_records == "skip"
    )
    dataset = pointwise_dataset(records, encoder, rule, bad_records=recipe.data.bad_records)
    answers: Sequence[int] = ()
    if prompt.head == "yes-no":
        answers = single_ids(
            SafeTokenizer(tokenizer), (template.positive, template.negative), after=template.answer_prefix[-1:]
        )
    alike = f"{len(dataset.alike)} records have passages that their prompts do not tell apart"
    short = f"{dataset.n_short} records have fewer than {rule.group_size - 1} negatives: drawn with replacement"
    return TrainingData(
        dataset=dataset,
        collator=PointwiseCollator(pad_id=pad_id(tokenizer), answer_ids=tuple(answers)),
        objective=PointwiseObjective(
            name=name,
            group_size=recipe.data.group_size,
            teacher_temperature=section.teacher_temperature,
            student_temperature=section.student_temperature,
            label_weight=section.label_weight,
        ),
        card=card,
        notes=(
            *((short,) if dataset.n_short else ()),
            *((f"{alike}, the first: {dataset.alike[0]}",) if dataset.alike else ()),
            *_skipped_note(dataset.skipped),
        ),
    )


def pad_id(tokenizer: Any) -> int:
    """The id that fills a batch. Any does: nothing looks at it."""
    return next(int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def _base_model(recipe: Recipe) -> str | None:
    from rankllm_train.models import resolved_name

    return resolved_name(recipe.model.name_or_path) if recipe.lora.enabled else None


def _skipped_note(skipped: Sequence[str]) -> tuple[str, ...]:
    return (f"left out {len(skipped)} records, the first: {skipped[0]}",) if skipped else ()
