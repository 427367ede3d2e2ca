#!/usr/bin/env bash
# FirstMistral (arXiv:2411.05508) as rank_llm trains it, 128 lists per step on any number of GPUs that divides 16.
#   scripts/train_first_mistral.sh [GPUS, default 4] [OPTIONS of `train listwise`: the last one given holds]
#   scripts/train_first_mistral.sh 8 --output-dir out --deepspeed zero3-offload --resume-from-checkpoint latest
set -euo pipefail

gpus=4
if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then gpus=$1 && shift; fi
if ((16 % gpus)); then echo "$gpus GPUs: expected a number that divides 16 (128 lists per step, batches of 8)" >&2 && exit 2; fi

export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
exec "$(dirname "${BASH_SOURCE[0]}")/launch-deepspeed" "$gpus" \
    listwise --recipe first-mistral --deepspeed zero3 \
    --per-device-train-batch-size 8 --gradient-accumulation-steps $((16 / gpus)) "$@"
