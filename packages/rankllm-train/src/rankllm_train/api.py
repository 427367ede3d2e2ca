"""One training run from a recipe: data, model, card, loop. The command line calls nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_core.template import PointwiseTemplate, load_template
from rankllm_train.distributed import check_resumable_here
from rankllm_train.recipe import Recipe

if TYPE_CHECKING:
    from rankllm_train.records import ListwiseRecord

Say = Callable[[str], None]


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


def train(
    recipe: Recipe,
    *,
    resume_from: str | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
    callbacks: Sequence[Any] = (),
) -> TrainingResult:
    """Run a recipe. resume_from: a checkpoint's folder, or `latest`. say: is told what a user should know.

    overwrite: delete the checkpoints of an earlier run in the output folder.
    Raises RankLLMError before the first step on anything that cannot be trained, and where the loss becomes NaN.
    """
    from rankllm_train import checkpoints
    from rankllm_train.metrics_log import start_metrics
    from rankllm_train.models import load_model, load_tokenizer
    from rankllm_train.trainer import RerankerTrainer, training_arguments

    check_complete(recipe)
    output_dir = Path(recipe.checkpoint.output_dir)
    resumed = checkpoints.find_resumable(resume_from, output_dir) if resume_from else None
    # Processes meet here. Before the model: ZeRO-3 shares it out over them while it is loaded.
    arguments = training_arguments(recipe)
    with arguments.main_process_first(local=False):  # what it deletes, the others do not find
        _check_output(output_dir, resumed=resumed, overwrite=overwrite)
    if resumed:
        is_deepspeed = bool(recipe.batch.deepspeed)
        for note in check_resumable_here(resumed, deepspeed=is_deepspeed, processes=arguments.world_size):
            say(note)
        _tell_changes(recipe, resumed, say)
    tokenizer = load_tokenizer(recipe.model)
    data = prepare(recipe, tokenizer)
    dev = prepare_dev(recipe, tokenizer, data) if recipe.data.eval else None
    for note in (*data.notes, *(dev.notes if dev else ())):
        say(note)
    is_classifier = isinstance(data.card, PointwiseCard) and data.card.head == "sequence-classification"
    model = load_model(
        recipe.model,
        kind="sequence-classification" if is_classifier else "causal",
        lora=recipe.lora,
        seed=recipe.schedule.seed,
        deepspeed=bool(recipe.batch.deepspeed),
    )
    _check_positions(model, data)
    trainer = RerankerTrainer(
        model,
        arguments=arguments,
        recipe=recipe,
        card=data.card,
        objective=data.objective,
        dataset=data.dataset,
        # One collator serves both; the longer lists need the longer row of identifiers.
        collator=max((d.collator for d in (data, dev) if d), key=lambda c: len(getattr(c, "identifier_ids", ()))),
        eval_dataset=dev.dataset if dev else None,
        tokenizer=tokenizer,
        callbacks=callbacks,
    )
    if trainer.is_world_process_zero():
        output_dir.mkdir(parents=True, exist_ok=True)
        checkpoints.sweep(output_dir)
        start_metrics(output_dir, step=checkpoints.global_step(resumed) if resumed else 0)
    trainer.accelerator.wait_for_everyone()
    outcome = trainer.train(str(resumed) if resumed else None)
    trainer.save_final()
    return TrainingResult(output_dir=output_dir, steps=outcome.global_step, loss=outcome.training_loss)


def check_complete(recipe: Recipe) -> None:
    """Raise ConfigError where a recipe does not say what cannot be left open."""
    needed = {
        "--model-name-or-path": recipe.model.name_or_path,
        "--train-dataset-path": recipe.data.train,
        "--output-dir": recipe.checkpoint.output_dir,
    }
    missing = [option for option, value in needed.items() if not value]
    if missing:
        raise ConfigError(f"{' and '.join(missing)}: missing; neither the recipe nor the command line gives it")


def prepare(recipe: Recipe, tokenizer: Any) -> TrainingData:
    """Read, check and encode the data of a recipe. Raises RankLLMError naming file, line and record."""
    return _listwise(recipe, tokenizer) if recipe.method == "listwise" else _pointwise(recipe, tokenizer)


def prepare_dev(recipe: Recipe, tokenizer: Any, data: TrainingData) -> TrainingData:
    """The dev data, encoded as the training data. Raises ConfigError where its identifiers are others."""
    dev = prepare(recipe.changed({"data.train": recipe.data.eval, "data.max_records": 0}), tokenizer)
    found, wanted = getattr(dev.card, "identifiers", None), getattr(data.card, "identifiers", None)
    if found != wanted:
        raise ConfigError(
            f"--eval-dataset-path: {found} identifiers, the training data has {wanted} ones; use --identifiers {wanted}"
        )
    return dev


def _listwise(recipe: Recipe, tokenizer: Any) -> TrainingData:
    from rankllm_train.data_listwise import ListwiseCollator, ListwiseEncoder, encode_listwise
    from rankllm_train.objectives import ListwiseObjective
    from rankllm_train.prompt_match import matching_template

    section, name = recipe.objective, recipe.objective_name
    records = _records(recipe)
    template, notes = matching_template(records, given=recipe.prompt.template)
    encoder = ListwiseEncoder(tokenizer, objective=name, bos=recipe.prompt.bos, layout=template.chat_layout)
    dataset = encode_listwise(
        records,
        encoder,
        objective=name,
        context_tokens=recipe.prompt.context_tokens,
        overlong=recipe.data.overlong,
        bad_records=recipe.data.bad_records,
    )
    cut = (f"cut the passages of {dataset.n_truncated} records to fit the context",) if dataset.n_truncated else ()
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
    short = f"{dataset.n_short} records have fewer than {rule.group_size - 1} negatives: drawn with replacement"
    return TrainingData(
        dataset=dataset,
        collator=PointwiseCollator(pad_id=pad_id(tokenizer), answer_ids=tuple(answers)),
        objective=PointwiseObjective(
            name=name,
            group_size=recipe.data.group_size,
            teacher_temperature=section.teacher_temperature,
            student_temperature=section.student_temperature,
        ),
        card=card,
        notes=(*((short,) if dataset.n_short else ()), *_skipped_note(dataset.skipped)),
    )


def pad_id(tokenizer: Any) -> int:
    """The id that fills a batch. Any does: nothing looks at it."""
    return next(int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def _base_model(recipe: Recipe) -> str | None:
    from rankllm_train.models import resolved_name

    return resolved_name(recipe.model.name_or_path) if recipe.lora.enabled else None


def _skipped_note(skipped: Sequence[str]) -> tuple[str, ...]:
    return (f"left out {len(skipped)} records, the first: {skipped[0]}",) if skipped else ()


def _check_positions(model: Any, data: TrainingData) -> None:
    """Raise ConfigError where a record is longer than the model has positions."""
    positions = getattr(model.config, "max_position_embeddings", None)
    examples = getattr(data.dataset, "examples", ())
    longest = max(examples, key=len, default=None)
    if positions and longest is not None and len(longest) > positions:
        raise ConfigError(
            f"{longest.name}: {len(longest)} tokens, the model has {positions} positions; "
            f"use --context-size {positions} with --overlong skip"
        )


def _check_output(output_dir: Path, *, resumed: Path | None, overwrite: bool) -> None:
    from rankllm_train.checkpoints import checkpoints, remove

    if output_dir.exists() and not output_dir.is_dir():
        raise RankLLMError(f"--output-dir {output_dir}: is a file, expected a folder")
    if resumed or not (earlier := checkpoints(output_dir)):
        return
    if not overwrite:
        raise RankLLMError(
            f"--output-dir {output_dir}: holds {earlier[-1].name} of an earlier run; use --resume-from-checkpoint "
            "latest to go on, --overwrite-output-dir to begin anew, or another folder"
        )
    for checkpoint in earlier:
        remove(checkpoint)


def _tell_changes(recipe: Recipe, resumed: Path, say: Say) -> None:
    from rankllm_train.recipe import RECIPE_NAME, load_recipe, recipe_differences

    if not (resumed / RECIPE_NAME).exists():
        return
    free = replace(load_recipe(resumed / RECIPE_NAME), checkpoint=recipe.checkpoint, logging=recipe.logging)
    for path, (old, new) in recipe_differences(free, recipe).items():
        say(f"Warning: {path} was {old!r} in {resumed.name} and is {new!r} now; the run will differ")
