"""Default outputs of `rerank`: files in the working directory, named like those of rank_llm.

`rerank_results/METHOD/MODEL_CONTEXT_TOPK_DATASET_TIME_window_SIZE_ENGINE.txt`, and the results next to it as `.jsonl`.
Source: castorini/rank_llm@1b3cabb src/rank_llm/rerank/reranker.py (`write_rerank_results`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rankllm_core.card_kinds import ListwiseCard
from rankllm_infer.cli import say
from rankllm_infer.cli.rerank.options import DATASET_DEPTH, RerankCommand
from rankllm_infer.jobs.journal import journal_path
from rankllm_infer.plan import plan_reranking
from rankllm_infer.retrieval.retrieval_data import find_dataset, find_method

FOLDER = Path("rerank_results")
_NO_METHOD = "UNSPECIFIED"
"""rank_llm's name for an unknown first stage."""
_TIME = "%Y-%m-%dT%H-%M-%S"
"""rank_llm's format without colons, which Windows and many programs do not allow in file names."""
_TIMES = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d"
_CHECKPOINT = re.compile(r"(checkpoint|epoch|step|best|last)([-_]\d+)?")


def with_named_outputs(asked: RerankCommand) -> RerankCommand:
    """Return the command with default output files, and print their names.

    An interrupted run with the same name is resumed, so that repeating the command works as with named outputs;
    otherwise the timestamp makes the name unique. Raises RankLLMError if the model or dataset is unknown.
    """
    before, behind = _name_parts(asked)
    folder = FOLDER / (
        find_method(asked.inputs.retrieval_method).folder if asked.inputs.retrieval_method else _NO_METHOD
    )
    run = _unfinished(folder, before, behind, is_retry=asked.outputs.resume)
    if run is None:
        run = folder / f"{before}_{datetime.now():{_TIME}}{behind}.txt"
    results = run.with_suffix(".jsonl")
    say(f"Outputs: {run} and {results.name}")
    tagged = replace(asked.outputs, output=run, output_jsonl=results)
    return replace(asked, outputs=tagged)


def _name_parts(asked: RerankCommand) -> tuple[str, str]:
    """Return the parts of the name before and after the timestamp."""
    plan, options = plan_reranking(asked.model, asked.options), asked.options
    card = plan.card.card
    is_listwise = isinstance(card, ListwiseCard)
    depth = options.top_k_candidates or (DATASET_DEPTH if asked.kind == "dataset" else "all")
    before = [
        model_name(asked.model),
        card.context_tokens if is_listwise else "",
        depth,
        _input_name(asked),
        f"{options.num_few_shot_examples}_shot" if options.num_few_shot_examples else "",
        "shuffled" if options.shuffle_candidates else "",
    ]
    behind = [
        f"window_{card.window_size}" if is_listwise else "",
        f"pass_{options.num_passes - 1}" if options.num_passes > 1 else "",
        options.engine,
    ]
    return "_".join(str(part) for part in before if part), "".join(f"_{part}" for part in behind if part)


def model_name(model: str) -> str:
    """Return the last part of a model's path or hub name; for a checkpoint, with its parent folder's name."""
    path = Path(model).resolve() if Path(model).is_dir() else Path(model)
    is_checkpoint = _CHECKPOINT.fullmatch(path.name) is not None and path.parent.name
    name = f"{path.parent.name}_{path.name}" if is_checkpoint else path.name
    return re.sub(r"[^\w.-]", "-", name)


def _input_name(asked: RerankCommand) -> str:
    """Return rank_llm's name of the dataset, or the input file's name without extensions."""
    if asked.kind == "dataset":
        return find_dataset(asked.inputs.dataset or "").name
    file = Path(str(getattr(asked.inputs, asked.kind)))
    return re.sub(r"[^\w.-]", "-", re.sub(r"(\.(jsonl?|txt|tsv|trec|run))?(\.(gz|xz))?$", "", file.name))


def _unfinished(folder: Path, before: str, behind: str, *, is_retry: bool) -> Path | None:
    """Return the latest run of this name to resume: an interrupted one or, for a retry, one with failed queries."""
    name = re.compile(rf"{re.escape(before)}_{_TIMES}{re.escape(behind)}\.txt")
    suffix = journal_path(Path("run")).name.removeprefix("run")
    runs = sorted(path.with_name(path.name.removesuffix(suffix)) for path in folder.glob(f"*{suffix}"))
    found = [run for run in runs if name.fullmatch(run.name) and (is_retry or not run.exists())]
    return found[-1] if found else None
