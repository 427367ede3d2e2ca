"""Table that maps the options of rank_llm and tevatron to those of rankllm-infer; loaded only if needed.

Options with the same name in both are omitted. Sources: castorini/rank_llm@1b3cabb src/rank_llm/cli/main.py;
texttron/tevatron@2e5d00e examples/rankllama (v1) and texttron/tevatron@dd06310 src/tevatron (v2).
"""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.original_options import (
    HUGGING_FACE_ARGUMENTS,
    OriginalOption,
    Originals,
    idle,
    renamed,
    replaced,
)

_SERVER = "use --engine openai --base-url"
_OF_THE_CARD = "leave it out: the checkpoint's rankllm.yaml or the base model determines it"
_SHARDS = "split the input into several files and rerank each of them"
_TEMPLATE = "use --prompt-template-path rankllama (tevatron v1) or rankllama-v2 (the later input format)"
_LENGTHS = "use --q-max-len and --p-max-len, the maximum numbers of tokens per query and per passage"
_REASONING = (
    "leave it out: prompt templates such as reasonrank request reasoning; thinking in chat templates is disabled"
)

_MODEL: Mapping[str, OriginalOption] = {
    "--use-azure-openai": replaced(f"{_SERVER} https://RESOURCE.openai.azure.com/openai/v1", takes="switch"),
    "--use-openrouter": replaced(f"{_SERVER} https://openrouter.ai/api/v1", takes="switch"),
    "--use-litellm": replaced(f"{_SERVER} with the URL of a LiteLLM proxy", takes="switch"),
    "--listwise-vllm-with-openai-sdk": renamed("--engine", "openai", takes="switch"),
    "--pointwise-vllm": renamed("--engine", "openai", "--method", "pointwise", takes="switch"),
    "--sglang-batched": replaced(f"start SGLang's server and {_SERVER} with its URL", takes="switch"),
    "--tensorrt-batched": replaced(f"start TensorRT-LLM's server and {_SERVER} with its URL", takes="switch"),
    "--vllm-batched": renamed("--engine", "vllm", takes="switch"),
    "--batched": idle("switch"),
    "--step-size": renamed("--stride", "{}"),
    "--is-thinking": replaced(_REASONING, takes="switch"),
    "--reasoning-token-budget": replaced(
        "use --context-size, which covers prompt, reasoning and answer", defaults=("10000",)
    ),
    "--reasoning-effort": replaced("set it on the server"),
    "--prompt-mode": replaced("use --prompt-template-path", defaults=("rank_GPT", "PromptMode.RANK_GPT")),
    "--print-prompts-responses": idle("switch"),
    "--populate-invocations-history": OriginalOption(
        takes="switch", instead="use --trace FILE", covered_by=("--trace", "--invocations-history-file")
    ),
    "--top-k-rerank": replaced(
        "the output contains every candidate; use --top-k-candidates to rerank fewer", defaults=("-1", "100")
    ),
}
"""Reranker options of rank_llm."""
_VLLM: Mapping[str, OriginalOption] = {
    f"--{name.replace('_', '-')}": renamed("--vllm-arg", f"{name}={{}}")
    for name in ("max_model_len", "gpu_memory_utilization", "max_num_seqs")
} | {
    "--enforce-eager": renamed("--vllm-arg", "enforce_eager=true", takes="switch"),
    "--tensor-parallel-size": renamed("--num-gpus", "{}"),
    "--chunk-size": idle(),
    "--top-logprobs": idle(),
    "--missing-fallback-logprob": idle(),
}
"""vLLM options of tevatron. Scores are read exactly here, so no token lacks a log-probability."""
_TEVATRON_MODEL: Mapping[str, OriginalOption] = _VLLM | {
    "--tokenizer-name": idle(),
    "--config-name": idle(),
    "--cache-dir": idle(),
    "--lora": idle("switch"),
    "--lora-name-or-path": replaced("use --model-path ADAPTER, and --base-model to override its base"),
    "--reranker-model-type": replaced(_OF_THE_CARD, defaults=("sequence_classification",)),
    "--reranker-pooling": replaced(_OF_THE_CARD, defaults=("last",)),
    "--rerank-max-len": replaced(_LENGTHS),
    "--query-prefix": replaced(_TEMPLATE),
    "--passage-prefix": replaced(_TEMPLATE),
    "--append-eos-token": replaced("leave it out: the checkpoint's rankllm.yaml determines it", takes="switch"),
    "--pad-to-multiple-of": idle(),
    "--prompt-template": replaced("use --prompt-template-path qwen3_reranker or yes_no"),
}
_TEVATRON_TRAINING: Mapping[str, OriginalOption] = {
    **{
        name: idle()
        for name in (
            *("--projection-in-dim", "--projection-out-dim", "--train-dir", "--train-n-passages", "--train-group-size"),
            *("--gc-q-chunk-size", "--gc-p-chunk-size", "--lora-r", "--lora-alpha", "--lora-dropout"),
            "--lora-target-modules",
        )
    },
    **{
        name: idle("switch")
        for name in (
            *("--untie-encoder", "--add-pooler", "--normalize", "--encode-is-qry", "--negatives-x-device"),
            *("--do-encode", "--grad-cache", "--positive-passage-no-shuffle", "--negative-passage-no-shuffle"),
        )
    },
}
"""Options that tevatron's rerankers accept but ignore, as they share a parser with training."""
_TEVATRON_DATA: Mapping[str, OriginalOption] = {
    "--dataset-name": idle(),
    "--dataset-config": idle(),
    "--dataset-split": idle(),
    "--dataset-path": renamed("--rerank-input", "{}"),
    "--dataset-cache-dir": idle(),
    "--data-cache-dir": idle(),
    "--dataset-proc-num": idle(),
    "--dataset-number-of-shards": replaced(_SHARDS, defaults=("1",)),
    "--dataset-shard-index": replaced(_SHARDS, defaults=("0",)),
    "--encode-num-shard": replaced(_SHARDS, defaults=("1",)),
    "--encode-shard-index": replaced(_SHARDS, defaults=("0",)),
    "--passage-field-separator": replaced(_TEMPLATE),
    "--rerank-output-path": renamed("--encoded-save-path", "{}"),
    "--rerank-output": renamed("--encoded-save-path", "{}"),
    "--overwrite-cache": idle("switch"),
}
_RERANK: Mapping[str, OriginalOption] = {
    **{name: idle(takes) for name, takes in HUGGING_FACE_ARGUMENTS.items()},
    **_TEVATRON_TRAINING,
    **_TEVATRON_MODEL,
    **_TEVATRON_DATA,
    **_MODEL,
    "--input-json": replaced("use --query TEXT --passages FILE, or --requests FILE"),
    "--stdin": replaced("use --requests /dev/stdin, or --query TEXT --passages -", takes="switch"),
    "--validate-only": renamed("--dry-run", takes="switch"),
    "--max-queries": renamed("--max-queries", "{}", defaults=("-1",)),
}
_PREPARE: Mapping[str, OriginalOption] = {
    "--cache-dir": idle(),
    # rank_llm's `retrieve-cache`.
    "--trec-file": renamed("--retrieval-results", "{}"),
    "--collection-file": renamed("--corpus-data-name", "{}"),
    "--query-file": renamed("--query-data-name", "{}"),
    "--output-file": renamed("--output-path", "{}"),
    "--output-trec-file": replaced("leave it out: --trec-file is that run, and `convert` writes it in other formats"),
    "--topk": renamed("--depth", "{}"),
    # tevatron's `prepare_rerank_data`.
    "--rank-file": renamed("--retrieval-results", "{}"),
    "--query-dataset": renamed("--query-data-name", "{}"),
    "--query-jsonl": renamed("--query-data-name", "{}"),
    "--corpus-dataset": renamed("--corpus-data-name", "{}"),
    "--query-split": renamed("--query-data-split", "{}"),
    "--corpus-split": replaced("leave it out: the split is always train", defaults=("train",)),
    "--dataset": replaced("use --query-data-config and --corpus-data-config"),
    "--no-dataset-config": idle("switch"),
}
_SCORES_OF_RUNS = "pass the runs: evaluate --qrels QRELS rerank_results/*/*.txt"

ORIGINALS = Originals(
    options={
        "": {
            "--output": replaced("use --json after the command, or --output-jsonl FILE of `rerank`"),
        },
        "rerank": _RERANK,
        "serve": _TEVATRON_MODEL
        | _MODEL
        | {
            "--backend": replaced("use --engine vllm or --engine transformers"),
            "--model": renamed("--model-path", "{}"),
            "--tokenizer": idle(),
            "--score-mode": replaced(_OF_THE_CARD),
            "--hf-batch-size": renamed("--batch-size", "{}"),
            "--device-map": replaced("use --device or --num-gpus"),
            "--top-k-candidates": replaced("leave it out: each request sets the number of documents to return (top_n)"),
            "--top-k-rerank": replaced("leave it out: each request sets the number of documents to return (top_n)"),
            "--populate-invocations-history": idle("switch"),
        },
        "mcp": _MODEL
        | {
            "--top-k-rerank": replaced("leave it out: each call sets the number of documents to return (top_n)"),
            "--populate-invocations-history": idle("switch"),
        },
        "prepare": _PREPARE,
        "evaluate": {
            "--model-name": replaced(_SCORES_OF_RUNS),
            "--context-size": replaced(_SCORES_OF_RUNS),
            "--rerank-results-dirname": replaced(_SCORES_OF_RUNS),
            "--benchmark": replaced("pass the judgements, then the run: evaluate beir-scifact RUN"),
            "--dataset": replaced("pass the judgements, then the run: evaluate beir-scifact RUN"),
            "--ranklist": replaced("pass the run after the judgements: evaluate QRELS RUN"),
            "--output": replaced("use --json and redirect standard output to a file"),
            "--beir-cache-dir": idle(),
            "--k-values": replaced("use -m nDCG@10,Recall@100", takes="values"),
        },
    },
    commands={
        "serve http": ("serve",),
        "serve mcp": ("mcp",),
        "prompt": ("prompts",),
        "retrieve-cache": ("prepare", "--format", "requests"),
    },
    replaced_commands={
        "validate": "`rerank --dry-run` reads and checks the whole input without reranking",
        "view": "`report` shows a run query by query; requests and results are JSON Lines",
        "describe": "every command has --help",
        "schema": "docs/files.md describes every format",
        "analyze": "`rerank` reports the number of malformed answers, and --trace FILE records them with their defects",
    },
)
"""For `rankllm_core.command_line.LazyGroup`."""
