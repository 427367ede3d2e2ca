"""Targets of the fuzzer: every command that reads files, with small valid files of every kind."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Command with the files it reads."""

    name: str
    program: str
    """`infer` or `train`."""
    argv: Argv
    files: Mapping[str, str]
    """Name -> valid contents. One or more of them are made hostile."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Name -> `lines`, `json` or `yaml`: grammar for hostile variants; `lines` by default."""
    weight: int = 10
    """Relative frequency."""
    needs_model: bool = False
    """Whether the folder `model` contains a tiny model."""

    @property
    def main(self) -> Callable[[], None]:
        """Return the program's entry point."""
        if self.program == "infer":
            from rankllm_infer.cli import main
        else:
            from rankllm_train.cli import main
        return main


PASSAGES = {"d1": "Cats sleep most of the day.", "d2": "Rayleigh scattering makes the sky blue.", "d3": "Dogs bark."}
QUERIES = {"q1": "why is the sky blue", "q2": "do cats sleep"}

QUERIES_TSV = "".join(f"{qid}\t{text}\n" for qid, text in QUERIES.items())
CORPUS_TSV = "".join(f"{docid}\t{text}\n" for docid, text in PASSAGES.items())
CORPUS_JSONL = "".join(
    json.dumps({"docid": docid, "title": "T", "text": text}) + "\n" for docid, text in PASSAGES.items()
)
QRELS = "q1 0 d2 1\nq1 0 d1 0\nq2 0 d1 2\n"
RUN = "".join(
    f"{qid} Q0 {docid} {rank} {9.5 - rank} tag\n" for qid in QUERIES for rank, docid in enumerate(PASSAGES, start=1)
)
RUN_TSV = "".join(f"{qid}\t{docid}\t{9.25 - rank}\n" for qid in QUERIES for rank, docid in enumerate(PASSAGES))
TEACHER = "".join(
    f"{qid} Q0 {docid} 1 {len(text) / 7:.3f} tag\n" for qid in QUERIES for docid, text in PASSAGES.items()
)


def _candidates() -> list[dict[str, object]]:
    return [
        {"docid": docid, "score": 3.0 - rank, "doc": {"contents": text}}
        for rank, (docid, text) in enumerate(PASSAGES.items())
    ]


REQUESTS = "".join(
    json.dumps({"query": {"text": text, "qid": qid}, "candidates": _candidates()}) + "\n"
    for qid, text in QUERIES.items()
)
RESULTS = "".join(
    json.dumps(
        {
            "query": {"text": text, "qid": qid},
            "candidates": [candidate | {"model_score": 0.5} for candidate in _candidates()],
            "status": "ok",
            "defects": [],
            "usage": {"calls": 1, "rounds": 1, "prompt_tokens": 10, "completion_tokens": 3},
        }
    )
    + "\n"
    for qid, text in QUERIES.items()
)
RERANK_INPUT = "".join(
    json.dumps({"docid": docid, "title": "", "text": text, "score": 1.5, "query_id": qid, "query": query}) + "\n"
    for qid, query in QUERIES.items()
    for docid, text in PASSAGES.items()
)
TRACE = "".join(
    json.dumps(
        {
            "query": {"text": text, "qid": qid},
            "invocations_history": [
                {
                    "start": 0,
                    "docids": list(PASSAGES),
                    "prompt": "p",
                    "response": "[2] > [1] > [3]",
                    "order": [1, 0, 2],
                    "status": "ok",
                    "defects": [],
                    "scores": None,
                    "input_token_count": 10,
                    "output_token_count": 3,
                }
            ],
        }
    )
    + "\n"
    for qid, text in QUERIES.items()
)
FEW_SHOT = json.dumps([{"conversations": [{"role": "user", "value": "u"}, {"role": "assistant", "value": "[1]"}]}])
POINTWISE = "".join(
    json.dumps(
        {
            "query_id": qid,
            "query": text,
            "positive_passages": [{"docid": best, "title": "", "text": PASSAGES[best]}],
            "negative_passages": [{"docid": "d3", "title": "", "text": PASSAGES["d3"]}],
        }
    )
    + "\n"
    for (qid, text), best in zip(QUERIES.items(), ("d2", "d1"), strict=True)
)
_PROMPT = (
    "I will provide you with 3 passages, each indicated by a numerical identifier []. Rank the passages based on their "
    "relevance to the search query: sky.\n\n[1] Cats.\n[2] Sky.\n[3] Dogs.\n\nSearch Query: sky.\nRank the 3 passages."
)
LISTWISE = "".join(
    json.dumps(
        {
            "id": f"r{number}",
            "conversations": [
                {"from": "system", "value": "You are RankLLM."},
                {"from": "human", "value": _PROMPT},
                {"from": "gpt", "value": "[2] > [1] > [3]"},
            ],
        }
    )
    + "\n"
    for number in range(3)
)
TEMPLATE = """method: singleturn_listwise
system_message: You rank passages.
prefix: "I will provide {num} passages. Query: {query}.\\n"
body: "[{rank}] {candidate}\\n"
suffix: "Query: {query}. Answer like [2] > [1]."
"""
CARD = """format: 1
kind: pointwise
template: {method: pointwise, layout: yes-no, body: "Query: {query} Document: {document}"}
head: yes-no
bos: single
append_eos: false
query_tokens: 32
passage_tokens: 128
"""
RECIPE = """method: pointwise
data: {train: pointwise.jsonl, group_size: 2}
model: {name_or_path: model}
schedule: {max_steps: 1}
checkpoint: {output_dir: out}
optim: {learning_rate: 1.0e-4}
"""
PRIOR = "identifier_prior: [0.1, -0.1, 0.0]\nmodel: none\n"
DEEPSPEED = json.dumps({"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}})

_TEXTS = ("--queries", "queries.tsv", "--corpus", "corpus.jsonl")
_COLLECTION = {"queries.tsv": QUERIES_TSV, "corpus.jsonl": CORPUS_JSONL}
_JUDGED = ("--run", "a.run", "--qrels", "qrels", *_TEXTS, "--output-path", "out.jsonl")


@functools.cache
def targets() -> tuple[Target, ...]:
    """Return all targets."""
    return (*_infer_targets(), *_train_targets(), *_model_targets())


def _infer_targets() -> tuple[Target, ...]:
    rerank = ("rerank", "--model-path", "no/such-model", "--output", "out.trec")
    render = ("prompts", "render", "--qid", "q1")
    return (
        Target(name="evaluate", program="infer", argv=("evaluate", "--qrels", "qrels", "a.run", "b.tsv"),
               files={"qrels": QRELS, "a.run": RUN, "b.tsv": RUN_TSV}),
        Target(name="compare", program="infer",
               argv=("compare", "--qrels", "qrels", "a.run", "b.tsv", "--resamples", "100"),
               files={"qrels": QRELS, "a.run": RUN, "b.tsv": RUN_TSV}),
        Target(name="convert run", program="infer",
               argv=("convert", "--input", "a.run", "--output", "out.tsv", "--to", "tsv"), files={"a.run": RUN}),
        Target(name="convert requests", program="infer",
               argv=("convert", "--input", "r.jsonl", "--output", "out.trec", "--to", "trec"),
               files={"r.jsonl": REQUESTS}, kinds={"r.jsonl": "json"}),
        Target(name="convert array", program="infer",
               argv=("convert", "--input", "r.json", "--output", "out.jsonl", "--to", "rerank-input", "--from",
                     "requests"),
               files={"r.json": "[" + ",\n".join(REQUESTS.splitlines()) + "]\n"}, kinds={"r.json": "json"}),
        Target(name="convert rerank-input", program="infer",
               argv=("convert", "--input", "r.jsonl", "--output", "out.jsonl", "--to", "requests"),
               files={"r.jsonl": RERANK_INPUT}, kinds={"r.jsonl": "json"}),
        Target(name="prepare", program="infer",
               argv=("prepare", "--retrieval-results", "a.run", "--query-data-name", "queries.tsv",
                     "--corpus-data-name", "corpus.jsonl", "--output-path", "out.jsonl"),
               files={"a.run": RUN, **_COLLECTION}, kinds={"corpus.jsonl": "json"}),
        Target(name="report", program="infer",
               argv=("report", "new.jsonl", "--baseline", "a.run", "--qrels", "qrels", "--requests", "r.jsonl",
                     "--trace", "trace.jsonl", "--output", "page.html", "--overwrite"),
               files={"new.jsonl": RESULTS, "a.run": RUN, "qrels": QRELS, "r.jsonl": REQUESTS, "trace.jsonl": TRACE},
               kinds={"new.jsonl": "json", "r.jsonl": "json", "trace.jsonl": "json"}, weight=6),
        Target(name="retrieve", program="infer",
               argv=("retrieve", "--corpus", "corpus.jsonl", "--queries", "queries.tsv", "--output", "out.trec",
                     "--index-dir", "index"),
               files=_COLLECTION, kinds={"corpus.jsonl": "json"}, weight=4),
        Target(name="rerank requests", program="infer", argv=(*rerank, "--requests", "r.jsonl", "--qrels", "qrels"),
               files={"r.jsonl": REQUESTS, "qrels": QRELS}, kinds={"r.jsonl": "json"}),
        Target(name="rerank pairs", program="infer", argv=(*rerank, "--rerank-input", "r.jsonl"),
               files={"r.jsonl": RERANK_INPUT}, kinds={"r.jsonl": "json"}),
        Target(name="rerank run", program="infer", argv=(*rerank, "--run", "a.run", *_TEXTS),
               files={"a.run": RUN, **_COLLECTION}, kinds={"corpus.jsonl": "json"}),
        Target(name="rerank query", program="infer",
               argv=("rerank", "--model-path", "no/such-model", "--query", "q", "--passages", "p.jsonl"),
               files={"p.jsonl": CORPUS_JSONL}, kinds={"p.jsonl": "json"}),
        Target(name="rerank prior", program="infer", argv=(*rerank, "--requests", "r.jsonl", "--identifier-prior",
                                                           "prior.yaml"),
               files={"r.jsonl": REQUESTS, "prior.yaml": PRIOR}, kinds={"r.jsonl": "json", "prior.yaml": "yaml"}),
        Target(name="rerank few-shot", program="infer",
               argv=(*rerank, "--requests", "r.jsonl", "--few-shot-file", "few.json", "--num-few-shot-examples", "1"),
               files={"r.jsonl": REQUESTS, "few.json": FEW_SHOT}, kinds={"r.jsonl": "json", "few.json": "json"}),
        Target(name="prompts render", program="infer",
               argv=(*render, "--requests", "r.jsonl", "--prompt-template-path", "t.yaml"),
               files={"r.jsonl": REQUESTS, "t.yaml": TEMPLATE}, kinds={"r.jsonl": "json", "t.yaml": "yaml"}),
    )  # fmt: skip


def _train_targets() -> tuple[Target, ...]:
    return (
        Target(name="mine", program="train", argv=("mine", *_JUDGED, "--teacher-run", "t.run"),
               files={"a.run": RUN, "t.run": TEACHER, "qrels": QRELS, **_COLLECTION}, kinds={"corpus.jsonl": "json"}),
        Target(name="label qrels", program="train", argv=("label", *_JUDGED, "--max-window", "3"),
               files={"a.run": RUN, "qrels": QRELS, **_COLLECTION}, kinds={"corpus.jsonl": "json"}),
        Target(name="label results", program="train",
               argv=("label", "--results", "new.jsonl", "--output-path", "out.jsonl", "--max-window", "3"),
               files={"new.jsonl": RESULTS}, kinds={"new.jsonl": "json"}),
        Target(name="split pointwise", program="train",
               argv=("split", "r.jsonl", "--output-dir", "out", "--dev-fraction", "0.5", "--no-link-positives"),
               files={"r.jsonl": POINTWISE}, kinds={"r.jsonl": "json"}),
        Target(name="check-data listwise", program="train", argv=("check-data", "r.jsonl"),
               files={"r.jsonl": LISTWISE}, kinds={"r.jsonl": "json"}),
        Target(name="check-data pointwise", program="train", argv=("check-data", "r.jsonl"),
               files={"r.jsonl": POINTWISE}, kinds={"r.jsonl": "json"}),
        Target(name="recipes", program="train", argv=("recipes", "recipe.yaml"),
               files={"recipe.yaml": RECIPE}, kinds={"recipe.yaml": "yaml"}),
        Target(name="recipe", program="train",
               argv=("pointwise", "--recipe", "recipe.yaml", "--model-name-or-path", "no/such-model",
                     "--train-dataset-path", "pointwise.jsonl", "--output-dir", "out"),
               files={"recipe.yaml": RECIPE, "pointwise.jsonl": POINTWISE}, kinds={"recipe.yaml": "yaml"}, weight=3),
    )  # fmt: skip


def _model_targets() -> tuple[Target, ...]:
    """Targets with a tiny model, for files read after loading it. Slow, and therefore drawn rarely."""
    train = ("--model-name-or-path", "model", "--output-dir", "out", "--max-train-steps", "1",
             "--per-device-train-batch-size", "1")  # fmt: skip
    return (
        Target(name="rerank card", program="infer",
               argv=("rerank", "--model-path", "model", "--requests", "r.jsonl", "--output", "out.trec",
                     "--dtype", "float32"),
               files={"r.jsonl": REQUESTS, "model/rankllm.yaml": CARD},
               kinds={"r.jsonl": "json", "model/rankllm.yaml": "yaml"}, weight=1, needs_model=True),
        Target(name="train pointwise", program="train",
               argv=("pointwise", "--recipe", "smollm2-rankllama", *train, "--train-dataset-path", "p.jsonl",
                     "--train-n-passages", "2"),
               files={"p.jsonl": POINTWISE}, kinds={"p.jsonl": "json"}, weight=1, needs_model=True),
        Target(name="train listwise", program="train",
               argv=("listwise", *train, "--train-dataset-path", "l.jsonl", "--objective", "generation"),
               files={"l.jsonl": LISTWISE}, kinds={"l.jsonl": "json"}, weight=1, needs_model=True),
    )  # fmt: skip


def make_model(folder: Path) -> None:
    """Save a random Llama with a few thousand weights, and a tokenizer with bytes, `yes`, `no` and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    merges = [("y", "e"), ("ye", "s"), ("n", "o")]
    tokens = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
