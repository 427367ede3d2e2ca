"""How rankllm-train translates command lines of rank_llm and tevatron: one table, read only if needed.

Options with the same name on both sides are absent. Sources: castorini/rank_llm@1b3cabb training/utils/model_utils.py;
texttron/tevatron@2e5d00e examples/rankllama (v1) and texttron/tevatron@dd06310 src/tevatron/reranker (v2), whose
programs also accept transformers' `TrainingArguments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankllm_core.original_options import (
    HUGGING_FACE_ARGUMENTS,
    OriginalOption,
    Originals,
    idle,
    renamed,
    replaced,
)
from rankllm_train.cli.recipe_table import COMMON, LISTWISE, POINTWISE

_LENGTHS = "use --q-max-len and --p-max-len: they keep a long query from displacing the passage"
_PREFIXES = "use --prompt-template-path: rankllama (v1) and rankllama-v2 begin with 'query: ' and 'document: '"
_DATA = "name the file or the data set with --train-dataset-path"
_LAUNCHER = "start several processes with torchrun or accelerate launch, and give --deepspeed for ZeRO"
_WHEN_SAVED = "use --checkpointing-steps, with epoch, none or a number of steps"
_WHEN_MEASURED = "use --eval-dataset-path, and --eval-steps with epoch or a number of steps"

_HUGGING_FACE: Mapping[str, OriginalOption] = {
    **{name: idle(takes) for name, takes in HUGGING_FACE_ARGUMENTS.items()},
    "--adam-beta1": renamed("--set", "optim.adam_beta1={}"),
    "--adam-beta2": renamed("--set", "optim.adam_beta2={}"),
    "--adam-epsilon": renamed("--set", "optim.adam_epsilon={}"),
    "--run-name": renamed("--set", "logging.run_name={}"),
    "--neftune-noise-alpha": renamed("--noisy-embedding-alpha", "{}"),
    "--per-gpu-train-batch-size": renamed("--per-device-train-batch-size", "{}"),
    "--per-gpu-eval-batch-size": renamed("--per-device-eval-batch-size", "{}"),
    "--save-only-model": renamed("--set", "checkpoint.resumable=false", takes="switch"),
    "--activation-checkpointing": renamed("--gradient-checkpointing", takes="switch"),
    "--save-strategy": replaced(_WHEN_SAVED, defaults=("steps",)),
    "--eval-strategy": replaced(_WHEN_MEASURED, defaults=("no", "steps")),
    "--evaluation-strategy": replaced(_WHEN_MEASURED, defaults=("no", "steps")),
    "--eval-delay": replaced(_WHEN_MEASURED, defaults=("0",)),
    "--eval-on-start": replaced(_WHEN_MEASURED, takes="switch"),
    "--do-eval": replaced(_WHEN_MEASURED, takes="switch"),
    "--do-predict": replaced("use rankllm-infer rerank on the trained model", takes="switch"),
    "--optim": replaced("leave it out: the optimizer is AdamW in float32", defaults=("adamw_torch", "adamw_hf")),
    "--optim-args": replaced("use --set optim.KEY=VALUE"),
    "--optim-target-modules": replaced("leave it out: AdamW updates every trained weight", takes="values"),
    "--adafactor": replaced("leave it out: the optimizer is AdamW in float32", takes="switch"),
    "--lr-scheduler-kwargs": replaced("use --lr-scheduler-type, --num-warmup-steps and --warmup-ratio"),
    "--label-smoothing-factor": replaced("leave it out: labels are not smoothed", defaults=("0", "0.0")),
    "--auto-find-batch-size": replaced("use --per-device-train-batch-size", takes="switch"),
    "--fsdp": replaced("use --deepspeed zero3"),
    "--fsdp-config": replaced("use --deepspeed zero3"),
    "--sharded-ddp": replaced("use --deepspeed zero2 or zero3"),
    "--torch-compile": replaced("leave it out: training is not compiled", takes="switch"),
    "--use-liger-kernel": replaced("leave it out: the head is computed at the target tokens only", takes="switch"),
    "--no-cuda": replaced("set CUDA_VISIBLE_DEVICES= to train on the CPU", takes="switch"),
    "--use-cpu": replaced("set CUDA_VISIBLE_DEVICES= to train on the CPU", takes="switch"),
    "--push-to-hub": replaced("upload the output folder with `hf upload`", takes="switch"),
    "--max-steps": renamed("--max-steps", "{}", defaults=("-1",)),
    "--ignore-data-skip": replaced(
        "leave it out: a resumed run continues with the data where it stopped", takes="switch"
    ),
    "--full-determinism": replaced("use --seed", takes="switch"),
}
"""Arguments of transformers' Trainer: those with an effect are renamed or replaced, the rest is ignored."""
_RANK_LLM: Mapping[str, OriginalOption] = {
    "--tokenizer-name": replaced("leave it out: the tokenizer is the base model's, or put it into the model's folder"),
    "--config-name": idle(),
    "--cache-dir": idle(),
    "--model-type": idle(),
    "--preprocessing-num-workers": idle(),
    "--overwrite-cache": idle("switch"),
    "--low-cpu-mem-usage": idle("switch"),
}
_TEVATRON: Mapping[str, OriginalOption] = {
    # v1
    "--train-dir": renamed("--train-dataset-path", "{}"),
    "--dataset-name": renamed("--train-dataset-path", "{}", defaults=("json",)),
    "--passage-field-separator": replaced("use --prompt-template-path", defaults=(" ",)),
    "--dataset-proc-num": idle(),
    "--data-cache-dir": idle(),
    "--encode-in-path": replaced("rerank with rankllm-infer rerank --rerank-input"),
    "--encoded-save-path": replaced("rerank with rankllm-infer rerank --encoded-save-path"),
    "--encode-is-qry": idle("switch"),
    "--encode-num-shard": idle(),
    "--encode-shard-index": idle(),
    "--untie-encoder": idle("switch"),
    "--add-pooler": idle("switch"),
    "--projection-in-dim": idle(),
    "--projection-out-dim": idle(),
    "--normalize": idle("switch"),
    "--dtype": replaced("use --bf16, --fp16 or --no-bf16", defaults=("float32",)),
    "--negatives-x-device": idle("switch"),
    "--do-encode": idle("switch"),
    "--grad-cache": idle("switch"),
    "--gc-q-chunk-size": idle(),
    "--gc-p-chunk-size": idle(),
    # v2
    "--dataset-path": renamed("--train-dataset-path", "{}"),
    "--dataset-config": replaced(f"{_DATA}, as NAME:CONFIG or as local files"),
    "--dataset-split": replaced(f"{_DATA}: its split is train", defaults=("train",)),
    "--dataset-cache-dir": idle(),
    "--dataset-number-of-shards": replaced("use --max-train-samples", defaults=("1",)),
    "--dataset-shard-index": replaced("use --max-train-samples", defaults=("0",)),
    "--rerank-output-path": replaced("rerank with rankllm-infer rerank --encoded-save-path"),
    "--rerank-max-len": replaced(_LENGTHS),
    "--query-prefix": replaced(_PREFIXES, defaults=("query:", "query: ")),
    "--passage-prefix": replaced(_PREFIXES, defaults=("document:", "document: ")),
    "--append-eos-token": renamed("--append-eos", takes="switch"),
    "--pad-to-multiple-of": idle(),
    "--reranker-model-type": replaced("use --head", defaults=("sequence_classification",)),
    "--reranker-pooling": replaced(
        "leave it out: the last token is read, or the first one of an encoder", defaults=("last",)
    ),
    "--lora-name-or-path": replaced("use --start-from-adapter, with --lora"),
}
_SHARED = _HUGGING_FACE | _RANK_LLM | _TEVATRON

ORIGINALS = Originals(options={"listwise": _SHARED, "pointwise": _SHARED})
"""For `rankllm_core.command_line.LazyGroup`."""

_V2 = ("--train-group-size", "--rerank-max-len", "--query-prefix", "--passage-prefix", "--append-eos-token")
"""Options of tevatron's later reranker, which uses `--input-format v2`, and LoRA on request."""
_POINTWISE = {name for option in POINTWISE for name in option.names}.difference(
    *(option.names for option in (*COMMON, *LISTWISE))
) | set(_V2)
_BASE = "rankllama"


def tevatron_command(arguments: Sequence[str]) -> list[str]:
    """Return the words to insert before tevatron's options, or an empty list if there are no such options.

    v1 trains RankLLaMA's adapters by default: its base is the recipe. Source: texttron/tevatron@2e5d00e
    examples/rankllama/modeling.py (LoRA r 32, alpha 64, dropout 0.1).
    """
    given = {argument.partition("=")[0].replace("_", "-") for argument in arguments}
    if given.isdisjoint(_POINTWISE):
        return []
    if given & {"--recipe", "--input-format"}:
        return ["pointwise"]
    return ["pointwise", "--input-format", "v2"] if given & set(_V2) else ["pointwise", "--recipe", _BASE]
