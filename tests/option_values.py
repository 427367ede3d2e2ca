"""Every option of `rerank`, as a user gives it and as Python holds it, written down by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankllm_infer.cli.rerank.options import OWNERS
from rankllm_infer.option_table import rows_of
from rankllm_infer.options import RerankOptions

PRIOR = (0.5,) * 20


@dataclass(frozen=True)
class Given:
    """An option as a user gives it, written down by hand."""

    words: str
    value: object
    """What the field holds then."""
    beside: tuple[str, ...] = ()
    """Fields that must be set as well."""
    engine: str = "transformers"


SET = {
    # RerankOptions
    "method": Given("--method pointwise", "pointwise"),
    "engine": Given("--engine vllm", "vllm"),
    "base_url": Given("--base-url http://h:1/v1", "http://h:1/v1", engine="openai"),
    "timeout_s": Given("--timeout 2.5", 2.5, engine="openai"),
    "concurrency": Given("--concurrency 3", 3, engine="openai"),
    "dtype": Given("--dtype float32", "float32"),
    "device": Given("--device cpu", "cpu"),
    "num_gpus": Given("--num-gpus 2", 2),
    "batch_size": Given("--batch-size 7", 7),
    "batch_tokens": Given("--batch-tokens 9", 9),
    "compile": Given("--compile", True, ("use_logits",)),
    "attn_implementation": Given("--attn-implementation flash_attention_2", "flash_attention_2"),
    "revision": Given("--revision v1.0", "v1.0"),
    "trust_remote_code": Given("--trust-remote-code", True),
    "vllm_args": Given("--vllm-arg a=1", ("a=1",), engine="vllm"),
    "base_model": Given("--base-model b", "b"),
    "verify": Given("--verify", True),
    "template": Given("--prompt-template-path rank_vicuna", "rank_vicuna"),
    "instruction": Given("--instruction strict", "strict", ("pointwise",)),
    "use_alpha": Given("--use-alpha", True),
    "use_logits": Given("--use-logits", True),
    "free_decoding": Given("--free-decoding", True),
    "decode_top_k": Given("--decode-top-k 3", 3),
    "context_size": Given("--context-size 900", 900),
    "max_passage_words": Given("--max-passage-words 50", 50),
    "window_size": Given("--window-size 12", 12),
    "stride": Given("--stride 5", 5),
    "strategy": Given("--strategy full", "full"),
    "rank_top_k": Given("--rank-top-k 4", 4, ("top_down",)),
    "permutations": Given("--permutations 2", 2),
    "num_passes": Given("--num-passes 2", 2),
    "pass_depth": Given("--pass-depth 30", 30, ("num_passes",)),
    "shuffle_candidates": Given("--shuffle-candidates", True),
    "seed": Given("--seed 5", 5, ("shuffle_candidates",)),
    "variable_passages": Given("--no-variable-passages", False),
    "system_message": Given("--system-message Hi", "Hi"),
    "few_shot_file": Given("--few-shot-file shots.json", "shots.json", ("num_few_shot_examples",)),
    "num_few_shot_examples": Given("--num-few-shot-examples 1", 1, ("few_shot_file",)),
    "q_max_len": Given("--q-max-len 20", 20, ("pointwise",)),
    "p_max_len": Given("--p-max-len 90", 90, ("pointwise",)),
    "top_k_candidates": Given("--top-k-candidates 40", 40),
    "identifier_prior": Given("--identifier-prior prior.yaml", PRIOR, ("use_logits",)),
    "fuse_weight": Given("--fuse-weight 0.5", 0.5),
    "with_trace": Given("--trace trace.jsonl", True),
    # the other owners
    "model_path": Given("--model-path m", "m"),
    "bf16": Given("--bf16", True),
    "fp16": Given("--fp16", True),
    "requests": Given("--requests r.jsonl", Path("r.jsonl")),
    "rerank_input": Given("--rerank-input p.jsonl", Path("p.jsonl")),
    "run": Given("--run r.trec", Path("r.trec")),
    "run_format": Given("--run-format tsv", "tsv"),
    "queries": Given("--queries q.tsv", "q.tsv"),
    "corpus": Given("--corpus c.jsonl", "c.jsonl"),
    "dataset": Given("--dataset dl19", "dl19"),
    "retrieval_method": Given("--retrieval-method bm25", "bm25"),
    "retrieval_results_dir": Given("--retrieval-results-dir d", Path("d")),
    "query": Given("--query what", "what"),
    "passages": Given("--passages -", "-"),
    "max_queries": Given("--max-queries 3", 3),
    "strict": Given("--strict", True),
    "output": Given("--output o.trec", Path("o.trec")),
    "encoded_save_path": Given("--encoded-save-path o.tsv", Path("o.tsv")),
    "output_format": Given("--output-format msmarco", "msmarco"),
    "tag": Given("--tag t", "t"),
    "output_jsonl": Given("--output-jsonl o.jsonl", Path("o.jsonl")),
    "trace": Given("--trace trace.jsonl", Path("trace.jsonl")),
    "qrels": Given("--qrels q.txt", Path("q.txt")),
    "resume": Given("--resume", True),
    "overwrite": Given("--overwrite", True),
    "dry_run": Given("--dry-run", True),
    "all_strategies": Given("--all-strategies", True, ("dry_run",)),
    "price_in": Given("--price-in 0.5", 0.5, ("dry_run",)),
    "price_out": Given("--price-out 2", 2.0, ("dry_run",)),
    "max_total_tokens": Given("--max-total-tokens 90", 90),
    "as_json": Given("--json", True),
}
"""Every field that the command line sets."""
BESIDE = {
    "num_passes": {"num_passes": 2},
    "shuffle_candidates": {"shuffle_candidates": True},
    "few_shot_file": {"few_shot_file": "shots.json"},
    "num_few_shot_examples": {"num_few_shot_examples": 1},
    "use_logits": {"use_logits": True},
    "top_down": {"strategy": "top-down"},
    "pointwise": {"method": "pointwise"},
}
WORDS_BESIDE = {"top_down": "--strategy top-down", "pointwise": "--method pointwise"}
ROWS = {row.name: row for owner in OWNERS for row in rows_of(owner).values()}
OPTIONS = rows_of(RerankOptions)
FOR_PYTHON = {"api_key", "with_trace"}
ALIASES = {
    "requests": ["--requests-file"],
    "rerank_input": ["--encode-in-path"],
    "model_path": ["--model-name-or-path"],
    "batch_size": ["--per-device-eval-batch-size"],
    "output": ["--output-trec-file"],
    "output_jsonl": ["--output-jsonl-file"],
    "trace": ["--invocations-history-file"],
    "qrels": ["--qrels-file"],
}
"""The originals' own names."""


def options(name, *, engine=None, **changes):
    """Options in which one field is set, with what must be set beside it."""
    given = SET[name]
    engine = engine or (given.value if name == "engine" else given.engine)
    beside = {"engine": engine, **({"base_url": "http://h/v1"} if engine == "openai" else {})}
    for other in given.beside:
        beside |= BESIDE[other]
    return RerankOptions(**(beside | {name: given.value} | changes))


def write_files(folder):
    """The files that the options name."""
    for name in ("shots.json", "copy.json"):
        (folder / name).write_text('[{"conversations": []}]', encoding="utf-8")
    (folder / "prior.yaml").write_text(f"identifier_prior: {list(PRIOR)}\n", encoding="utf-8")
    (folder / "m").mkdir()
    (folder / "m" / "config.json").write_text("{}", encoding="utf-8")
