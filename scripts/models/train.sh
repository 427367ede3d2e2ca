#!/usr/bin/env bash
# Train the two bundled rerankers from the records of make_records.py, stage by stage. An interrupted stage resumes from
# its newest checkpoint, one that is whole is not repeated. Each takes one thread.
#   scripts/models/train.sh pointwise|first RECORDS MODELS [BASE, default: the hub's SmolLM2-135M-Instruct]
# `first` begins from the 250th step of `pointwise`. The adapters are then put in place by export_model.py.
set -euo pipefail

which=${1:?pointwise or first} records=${2:?the folder of make_records.py} models=${3:?where the models go}
base=${4:-HuggingFaceTB/SmolLM2-135M-Instruct}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# torch gives large buffers back to the system after each use; keeping them saves a tenth of the step time.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=100000000000

stage() {  # stage METHOD NAME RECORDS OPTIONS...: models/NAME, unless it is whole
    local method=$1 name=$2 data=$3 going_on=()
    shift 3
    [[ -e $models/$name/rankllm.yaml ]] && return
    if compgen -G "$models/$name/step_*" > /dev/null; then going_on=(--resume-from-checkpoint latest); fi
    train "$method" --model-name-or-path "$base" --train-dataset-path "$records/$data.jsonl" \
        --eval-dataset-path "$records/$data-dev.jsonl" --max-train-samples 0 --checkpointing-steps 25 --eval-steps 100 \
        --save-total-limit 0 --set evaluation.keep_best=false --output-dir "$models/$name" "$@" ${going_on[@]+"${going_on[@]}"}
}

layers=q_proj,k_proj,v_proj,o_proj,down_proj,up_proj,gate_proj

first() {  # first NAME RECORDS WORDS OPTIONS...: 16 windows per step
    stage listwise "$1" "$2" --recipe smollm2-first --prompt-template-path query_behind_alpha --context-size 2048 \
        --set prompt.max_passage_words="$3" --set prompt.window_size=10 --set prompt.stride=5 --weighted \
        --lora-target-modules "$layers" --per-device-train-batch-size 2 --gradient-accumulation-steps 8 --group-by-length \
        --learning-rate 3e-4 "${@:4}"
}

case $which in
pointwise)
    # Groups of 8, 4 per step: MiniLM's order, and a little of the labels.
    stage pointwise pointwise groups --recipe smollm2-yes-no --prompt-template-path yes_no_short --p-max-len 112 \
        --lora-target-modules "$layers" --train-n-passages 8 --gradient-accumulation-steps 4 \
        --objective kl --label-weight 0.2 --set objective.teacher_temperature=0.1 \
        --learning-rate 6e-4 --lr-scheduler-type cosine --warmup-ratio 0.03 --max-train-steps 800
    ;;
first)
    # The ranking loss alone until windows are read at all; then the whole permutation too: either way can be asked.
    first first-1 windows-1 20 --objective ranking --start-from-adapter "$models/pointwise/step_250" \
        --lr-scheduler-type constant --max-train-steps 60
    first first-2 windows-2 40 --objective ranking --start-from-adapter "$models/first-1" \
        --lr-scheduler-type constant --max-train-steps 75
    first first windows-3 70 --objective combined --start-from-adapter "$models/first-2" \
        --lr-scheduler-type cosine --warmup-ratio 0.02 --max-train-steps 220
    ;;
*)
    echo "$which: expected pointwise or first" >&2 && exit 2
    ;;
esac
