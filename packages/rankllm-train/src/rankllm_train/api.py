"""One training run from a recipe: data, model, card, loop. The command line calls nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError, DataError
from rankllm_core.prompts.template import PointwiseTemplate, load_template
from rankllm_train.artifacts.checkpoints import remove, sweep
from rankllm_train.artifacts.metrics_log import start_metrics
from rankllm_train.artifacts.preflight import (
    check_by_length,
    check_complete,
    check_output_names,
    check_positions,
    check_precision,
    check_trackers,
    check_yardstick,
    earlier_results,
)
from rankllm_train.artifacts.run_record import RunRecord
from rankllm_train.artifacts.source_identity import source_identities
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.models.base_names import base_name
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.recipe.resume_rules import check_card
from rankllm_train.training.agreement import first_decides
from rankllm_train.training.best import Best, settle_best
from rankllm_train.training.resuming import Resumed, finish, resume

if TYPE_CHECKING:
    from rankllm_train.data.records import ListwiseRecord

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
    loss: float | None
    """Mean over the steps of this run; None where nothing was left to train."""
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
    may show how far their tokenizing is.
    Raises RankLLMError before the first step on anything that cannot be trained, and where the loss becomes NaN.
    """
    from rankllm_train.artifacts.curves import draw_curves
    from rankllm_train.training.trainer_arguments import training_arguments

    check_complete(recipe)
    check_precision(recipe)
    check_trackers(recipe, say)
    output_dir = Path(recipe.checkpoint.output_dir)
    check_output_names(output_dir)
    # Processes meet here. Before the model: ZeRO-3 shards it over them while it is loaded.
    arguments = training_arguments(recipe)
    check_by_length(recipe, processes=arguments.world_size)
    with arguments.main_process_first(local=False):  # the others are to find what it has put right
        if arguments.process_index == 0:
            sweep(output_dir)
    resumed = resume(recipe, resume_from, processes=arguments.world_size, say=say) if resume_from else None
    if resumed and resumed.finished:
        is_completed = first_decides(lambda: finish(recipe, resumed, say=say))
        if is_completed and arguments.process_index == 0:
            draw_curves(output_dir, best_step=resumed.best.step if resumed.best else None)
        return TrainingResult(output_dir=output_dir, steps=resumed.record.step, loss=None, best=resumed.best)
    stale = earlier_results(
        output_dir,
        resumed=resumed.folder if resumed else None,
        overwrite=overwrite,
        is_latest=resume_from == "latest",
    )
    trainer = _trainer(recipe, arguments, resumed=resumed, say=say, track=track, callbacks=callbacks)
    if trainer.is_world_process_zero():
        _open_output(recipe, resumed=resumed, stale=stale, say=say)
    trainer.accelerator.wait_for_everyone()
    outcome = trainer.train(str(resumed.folder) if resumed else None)
    trainer.save_final()
    if trainer.is_world_process_zero():
        draw_curves(output_dir, best_step=trainer.best.step if trainer.best else None)
    return TrainingResult(
        output_dir=output_dir, steps=outcome.global_step, loss=outcome.training_loss, best=trainer.best
    )


def _trainer(
    recipe: Recipe,
    arguments: Any,
    *,
    resumed: Resumed | None,
    say: Say,
    track: Track,
    callbacks: Sequence[Any],
) -> Any:
    """Read the data, load the model, and check that they go together."""
    from rankllm_train.models.loading import code_notes, load_model, load_tokenizer
    from rankllm_train.training.loop_callbacks import WarmUp
    from rankllm_train.training.trainer import RerankerTrainer

    for note in code_notes(recipe.model):
        say(note)
    # Before the data is read: a file that is rewritten while it is read is then not what its hash says.
    record = resumed.record if resumed else RunRecord(sources=first_decides(lambda: source_identities(recipe)))
    tokenizer = load_tokenizer(recipe.model)
    data = prepare(recipe, tokenizer, track=track)
    if resumed:
        check_card(data.card, resumed=resumed.folder)
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
    return RerankerTrainer(
        model,
        arguments=arguments,
        recipe=recipe,
        card=data.card,
        record=record,
        objective=data.objective,
        dataset=data.dataset,
        collator=_collator_of_both(data, dev),
        eval_dataset=dev.dataset if dev else None,
        tokenizer=tokenizer,
        callbacks=[WarmUp(say), *callbacks],
    )


def _collator_of_both(data: TrainingData, dev: TrainingData | None) -> Any:
    """One collator for training and dev data: the longer lists need the longer row of identifiers, if both have one."""

    def n_identifiers(collator: Any) -> int:
        return len(getattr(collator, "identifier_ids", ()))

    collators = [part.collator for part in (data, dev) if part]
    shortest = min(collators, key=n_identifiers)
    return max(collators, key=n_identifiers) if n_identifiers(shortest) else shortest


def _open_output(recipe: Recipe, *, resumed: Resumed | None, stale: Sequence[Path], say: Say) -> None:
    """Clear the output folder of what must not be taken for this run's. stale: checkpoints to delete."""
    output_dir = Path(recipe.checkpoint.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for checkpoint in stale:
        remove(checkpoint)
    step = resumed.record.step if resumed else 0
    logged_step = resumed.record.unlogged["after_step"] if resumed and resumed.record.unlogged else None
    if lost := start_metrics(output_dir, step=step, logged_step=logged_step):
        say(f"Warning: {output_dir}: left {lost} unreadable lines out of metrics.jsonl")
    if resumed and recipe.keeps_best:
        settle_best(recipe, resumed=resumed.folder, step=step, known=resumed.record.best, say=say)


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
    from rankllm_train.data.listwise import ListwiseCollator, ListwiseEncoder, encode_listwise
    from rankllm_train.data.prompt_match import mismatch_notes, template_for
    from rankllm_train.training.objectives import ListwiseObjective

    section, name = recipe.objective, recipe.objective_name
    bad = BadRecords(recipe.data.bad_records, source=recipe.data.train)
    records = _records(recipe, bad)
    template = template_for(records, given=recipe.prompt.template)
    encoder = ListwiseEncoder(tokenizer, objective=name, bos=recipe.prompt.bos, layout=template.chat_layout)
    dataset = encode_listwise(
        track(records),
        encoder,
        objective=name,
        context_tokens=recipe.prompt.context_tokens,
        overlong=recipe.data.overlong,
        bad_records=bad,
        template=template,
    )
    # Again by those that are left: an over-long one may have been the first. The shipped ones have one chat layout.
    template = template_for(dataset.first_records, given=recipe.prompt.template)
    notes = mismatch_notes(dataset.first_records, template)
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
        notes=(*notes, *cut, *bad.notes(n_kept=len(dataset))),
    )


def _records(recipe: Recipe, bad: BadRecords) -> list[ListwiseRecord]:
    """The listwise records that the recipe wants, in the identifiers that it wants."""
    from rankllm_train.data.rankings import with_identifiers
    from rankllm_train.data.sources import listwise_source

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


def _pointwise(recipe: Recipe, tokenizer: Any) -> TrainingData:
    from rankllm_core.prompts.pairs import PairEncoder, PairLimits
    from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
    from rankllm_train.data.pointwise import GroupRule, PointwiseCollator, pointwise_dataset
    from rankllm_train.data.sources import pointwise_source
    from rankllm_train.training.objectives import PointwiseObjective

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
    bad = BadRecords(recipe.data.bad_records, source=recipe.data.train)
    records = pointwise_source(recipe.data.train, limit=recipe.data.max_records, bad=bad)
    dataset = pointwise_dataset(records, encoder, rule, bad_records=bad)
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
            *bad.notes(n_kept=len(dataset)),
        ),
    )


def pad_id(tokenizer: Any) -> int:
    """The id that fills a batch. Any does: nothing looks at it."""
    return next(int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def _base_model(recipe: Recipe) -> str | None:
    return base_name(recipe.model.name_or_path) if recipe.lora.enabled else None
