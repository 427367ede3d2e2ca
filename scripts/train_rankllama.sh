#!/usr/bin/env bash
# RankLLaMA (arXiv:2310.08319) as tevatron trains it, 128 groups per step on any number of GPUs that divides 32.
#   scripts/train_rankllama.sh [GPUS, default 4] [OPTIONS of `train pointwise`: the last one given holds]
#   scripts/train_rankllama.sh 8 --train-dataset-path mine.jsonl --output-dir out --deepspeed zero2
set -euo pipefail

gpus=4
if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then gpus=$1 && shift; fi
if ((32 % gpus)); then echo "$gpus GPUs: expected a number that divides 32 (128 groups per step, batches of 4)" >&2 && exit 2; fi

exec "$(dirname "${BASH_SOURCE[0]}")/launch-deepspeed" "$gpus" \
    pointwise --recipe rankllama --deepspeed zero3 \
    --per-device-train-batch-size 4 --gradient-accumulation-steps $((32 / gpus)) "$@"
