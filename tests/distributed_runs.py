"""One recipe trained in one process and in two: how to start it, and what it left."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from shared_files import REPOSITORY
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records

RECORDS = 14
"""4 a step: the fourth step of each epoch has one micro-batch a process where the others have two."""
STEPS = 8
WARMUP = 2
LEARNING_RATE = 1e-3
EVEN = {
    "model.precision": "fp32",
    "optim.learning_rate": LEARNING_RATE,
    "optim.noisy_embedding_alpha": 0,
    "lora.dropout": 0,
    "lora.r": 4,
    "schedule.num_epochs": 2,
    "schedule.warmup_ratio": 0,
    "schedule.warmup_steps": WARMUP,
    "batch.accumulation": 2,
    "checkpoint.every": "4",
    "logging.every_steps": 1,
    "prompt.context_tokens": 1024,
    "data.group_size": 4,
}
"""Nothing random but the order of the data; a batch that two processes can halve."""


_LOSS_SCALING = {
    "enabled": "auto",
    "loss_scale": 0,
    "initial_scale_power": 10,
    "loss_scale_window": 1000,
    "hysteresis": 2,
    "min_loss_scale": 1,
}
TEVATRON = {
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "none", "pin_memory": True},
        "offload_param": {"device": "none", "pin_memory": True},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "fp16": _LOSS_SCALING,
    "bf16": _LOSS_SCALING,
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto", "torch_adam": True},
    },
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "total_num_steps"), "auto"),
    },
    **dict.fromkeys(("gradient_accumulation_steps", "gradient_clipping", "train_batch_size"), "auto"),
    "steps_per_print": 1000,
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
"""The settings of texttron/tevatron@eeafa83 examples/rankllama/ds_config.json."""


def write_inputs(folder, tokenizer):
    """`section.key` -> value for each method: a tiny model, and data with lists of one passage, which order nothing."""
    model = save_tiny(folder / "model", tokenizer)
    lists = write_records(folder / "lists.jsonl", [listwise_record(i, n=2 + i % 3) for i in range(RECORDS)])
    groups = write_records(folder / "groups.jsonl", [pointwise_record(i) for i in range(RECORDS)])
    shared = EVEN | {"model.name_or_path": model}
    # 14 dev groups by 3 are 5 batches: one process runs one of them for the number of forward passes alone.
    dev = {"data.eval": groups, "evaluation.per_device": 3}
    return {"listwise": shared | {"data.train": lists}, "pointwise": shared | {"data.train": groups} | dev}


def in_one_process(recipe, values, out):
    """The same records a step, all of them in this process. Returns the folder."""
    from rankllm_train.api import train

    changes = {"batch.per_device": 2, "checkpoint.output_dir": str(out), "batch.gradient_checkpointing": False}
    train(recipe.changed(values | changes))
    return out


def in_two_processes(command, values, out, *options):
    """Start a launcher with the values as `--set`. Returns the folder that the program named on standard output."""
    values = values | {"batch.per_device": 1, "checkpoint.output_dir": str(out)}
    settings = [part for path, value in values.items() for part in ("--set", f"{path}={json.dumps(value)}")]
    programs = str(Path(sys.executable).parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": os.pathsep.join((programs, os.environ["PATH"]))}
    done = subprocess.run(
        [*command, *options, *settings],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-8000:]}")
    # DeepSpeed's launcher logs to standard output as well.
    return Path([line for line in done.stdout.splitlines() if line.startswith(str(out))][-1])


def logged(folder):
    """Step -> (loss, gradient norm, learning rate)."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {x["step"]: (x["loss"], x["grad_norm"], x["learning_rate"]) for x in lines if "loss" in x}


def all_logged(folder):
    """Step -> everything that was logged of training there, but for the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len({line["step"] for line in steps}) == len(steps), "a step was logged twice"
    return {line["step"]: {key: line[key] for key in line if key != "tokens_per_s"} for line in steps}


def measured(folder):
    """(step, dev loss, nDCG@10) of each evaluation."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(x["step"], x["eval_loss"], x["eval_ndcg@10"]) for x in lines if "eval_loss" in x]


def rate(step, *, kind):
    """The learning rate of a step, counted from 1: linear warm-up over WARMUP steps, then down to 0 after STEPS."""
    taken = step - 1
    if taken < WARMUP:
        return LEARNING_RATE * taken / WARMUP
    share = (taken - WARMUP) / (STEPS - WARMUP)
    return LEARNING_RATE * ((1 + math.cos(math.pi * share)) / 2 if kind == "cosine" else 1 - share)


def assert_same_course(found, expected, *, schedule):
    """Losses within 1e-4, gradient norms within 1e-3 of their size, learning rates as the closed form says."""
    assert sorted(found) == sorted(expected)
    for step, (loss, norm, learning_rate) in found.items():
        assert abs(loss - expected[step][0]) < 1e-4, (step, loss, expected[step][0])
        assert abs(norm - expected[step][1]) < 1e-3 * max(1, expected[step][1]), (step, norm, expected[step][1])
        assert abs(learning_rate - rate(step, kind=schedule)) < 1e-12, (step, learning_rate)


def largest_difference(folder, other):
    """Between the weights, or the adapters, of two checkpoints. Tied weights may be in the file twice, or once."""
    from safetensors.torch import load_file

    (name,) = {path.name for path in folder.glob("*model.safetensors")}
    ours, theirs = load_file(folder / name), load_file(other / name)
    assert set(ours) ^ set(theirs) <= {"lm_head.weight"}
    return max((ours[key] - theirs[key]).abs().max().item() for key in set(ours) & set(theirs))


def served_scores(folder):
    """What `rankllm-infer` makes of a checkpoint, given its folder and nothing else: docid -> its place and score."""
    from rankllm_core.types import Candidate, Query, Request
    from rankllm_infer.api import load_reranker
    from rankllm_infer.options import RerankOptions

    texts = ("rain falls", "this is word3 indeed", "bread needs flour")
    candidates = tuple(Candidate(docid=f"d{i}", score=-float(i), doc={"text": text}) for i, text in enumerate(texts))
    with load_reranker(folder, RerankOptions(dtype="float32", device="cpu")) as reranker:
        (result,) = reranker.rerank([Request(query=Query(qid="q", text="word3"), candidates=candidates)])
    return {c.docid: (place, c.model_score) for place, c in enumerate(result.candidates)}
