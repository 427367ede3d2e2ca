#!/usr/bin/env bash
# From passages and queries to a better run, and by how much: retrieve with BM25, rerank, evaluate, compare.
#
#     examples/rerank_run.sh [OUTPUT_FOLDER] [MODEL] [N_QUERIES]
#
# The data are those of `rankllm-infer demo`; a corpus, queries and judgements of your own take their place.
set -euo pipefail
data=$(dirname "${BASH_SOURCE[0]}")/../packages/rankllm-infer/src/rankllm_infer/demo_data
output=${1:-example-run}
model=${2:-smollm2-pointwise}
n_queries=${3:-27}
mkdir -p "$output"

rankllm-infer retrieve --corpus "$data/corpus.jsonl" --queries "$data/queries.tsv" --depth 20 \
    --max-queries "$n_queries" --output "$output/bm25.trec" --output-requests "$output/requests.jsonl"

rankllm-infer rerank --model-path "$model" --requests "$output/requests.jsonl" --output "$output/reranked.trec"

# --run-queries-only: of the judged queries, those that were retrieved. It matters when N_QUERIES is below 27.
rankllm-infer evaluate --run-queries-only --qrels "$data/qrels.txt" -m nDCG@10 -m Recall@20 \
    "$output/bm25.trec" "$output/reranked.trec"

rankllm-infer compare --run-queries-only --qrels "$data/qrels.txt" -m nDCG@10 \
    "$output/bm25.trec" "$output/reranked.trec"
