#!/usr/bin/env bash
# RankZephyr (arXiv:2312.02724) as rank_llm trains it, 256 lists per step on any number of GPUs that divides 64.
#   scripts/train_rank_zephyr.sh [GPUS, default 4] [OPTIONS of `train listwise`: the last one given holds]
#   scripts/train_rank_zephyr.sh 8 --output-dir out --deepspeed zero3-offload --resume-from-checkpoint latest
set -euo pipefail

gpus=4
if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then gpus=$1 && shift; fi
if ((64 % gpus)); then echo "$gpus GPUs: expected a number that divides 64 (256 lists per step, batches of 4)" >&2 && exit 2; fi

export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
exec "$(dirname "${BASH_SOURCE[0]}")/launch-deepspeed" "$gpus" \
    listwise --recipe rank-zephyr --deepspeed zero3 \
    --per-device-train-batch-size 4 --gradient-accumulation-steps $((64 / gpus)) "$@"
