"""The options of `rerank`, by what they are about."""

from __future__ import annotations

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_infer.cli.options import ignored, run_format_option
from rankllm_infer.options import ATTENTIONS, DTYPES, ENGINES, METHODS
from rankllm_infer.ranking.strategies import STRATEGIES


def input_options(command: click.decorators.FC) -> click.decorators.FC:
    """What to rerank."""
    for decorate in reversed(
        [
            click.option(
                "--requests",
                "--requests-file",
                "requests",
                type=PATH,
                help="Requests JSONL, or results of an earlier run.",
            ),
            click.option(
                "--rerank-input", "--encode-in-path", "rerank_input", type=PATH, help="Pairs as `prepare` writes them."
            ),
            click.option(
                "--run", type=PATH, help="A first-stage run (TREC, TSV, MS MARCO); needs --queries and --corpus."
            ),
            run_format_option,
            click.option("--queries", type=NAME, help="Queries TSV or JSONL (gz), or a Hugging Face data set."),
            click.option("--corpus", type=NAME, help="Passages JSONL or TSV (gz), or a Hugging Face data set."),
            click.option(
                "--dataset", type=NAME, help="A data set by name (dl19, beir-nfcorpus, ...); needs --retrieval-method."
            ),
            click.option(
                "--retrieval-method", help="Its first stage: bm25, bm25_rm3, SPLADE++_EnsembleDistil_ONNX, splade_v3."
            ),
            click.option(
                "--retrieval-results-dir",
                type=PATH,
                help="Where its stored first-stage results are.  [default: retrieve_results]",
            ),
            click.option("--query", help="One query; needs --passages."),
            click.option(
                "--passages",
                type=NAME,
                help="Its passages: a file with one a line or JSONL, or `-` for standard input.",
            ),
            click.option(
                "--top-k-candidates",
                type=click.IntRange(1),
                help="Candidates of each query to rerank; the others follow (of --run and --dataset: are left out).",
            ),
            click.option("--max-queries", type=click.IntRange(1), help="Stop after so many queries."),
            click.option(
                "--strict/--no-strict", default=False, help="Missing texts and queries without candidates are errors."
            ),
        ]
    ):
        command = decorate(command)
    return command


def model_options(command: click.decorators.FC) -> click.decorators.FC:
    """Which model, and what runs it."""
    for decorate in reversed(
        [
            click.option(
                "--model-path",
                "--model-name-or-path",
                "model_path",
                type=NAME,
                required=True,
                help="A checkpoint's folder, a hub name, smollm2-pointwise, smollm2-first, or a server's model name.",
            ),
            click.option("--base-model", type=NAME, help="For an adapter: its base, in place of the one it names."),
            click.option(
                "--trust-remote-code/--no-trust-remote-code",
                "trust_remote_code",
                default=False,
                help="Run Python code that comes with the model: a local folder, or a revision pinned as "
                "OWNER/MODEL@COMMIT. Of an adapter: with --base-model, its base's code.",
            ),
            click.option("--method", type=click.Choice(METHODS), default="auto"),
            click.option("--engine", type=click.Choice(ENGINES), default="transformers"),
            click.option(
                "--base-url", help="Server of --engine openai, ending in /v1. The key is read from OPENAI_API_KEY."
            ),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0, min_open=True),
                default=300.0,
                help="Seconds to wait for an answer of a server.",
            ),
            click.option(
                "--concurrency", type=click.IntRange(1), default=16, help="Prompts under way at a server at once."
            ),
            click.option(
                "--dtype",
                type=click.Choice(DTYPES),
                default=None,
                help="auto: bfloat16 where the hardware is fast at it.  [default: auto]",
            ),
            click.option("--bf16/--no-bf16", default=None, help="The same as --dtype bfloat16."),
            click.option("--fp16/--no-fp16", default=None, help="The same as --dtype float16."),
            click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps."),
            click.option("--num-gpus", type=click.IntRange(1), default=1, help="Spread the model over so many."),
            click.option(
                "--batch-size",
                "--per-device-eval-batch-size",
                "batch_size",
                type=click.IntRange(1),
                help="Prompts at once, at the most; scores in float32 on a CPU: always 1.  "
                "[default: 32; vllm: its own choice]",
            ),
            click.option(
                "--batch-tokens",
                type=click.IntRange(0),
                default=0,
                help="Padded tokens at once, at the most; 0: what suits the device.",
            ),
            click.option(
                "--compile/--no-compile",
                "compile",
                default=False,
                help="Compile the model's layers: a minute at the start, then scores are read faster.",
            ),
            click.option(
                "--attn-implementation",
                type=click.Choice(ATTENTIONS),
                default="auto",
                help="auto: flash-attention 2 on a GPU where it is installed, on a CPU one made for it, else sdpa.",
            ),
            click.option(
                "--vllm-arg",
                "vllm_args",
                multiple=True,
                metavar="KEY=VALUE",
                help="An argument of vLLM's engine, such as gpu_memory_utilization=0.8. Can be given several times.",
            ),
        ]
    ):
        command = decorate(command)
    return command


def ranking_options(command: click.decorators.FC) -> click.decorators.FC:
    """How the model is asked."""
    said = " By default what the model's card says."
    for decorate in reversed(
        [
            click.option(
                "--prompt-template-path",
                "template",
                type=NAME,
                help="A template's name (see `prompts list`) or YAML file." + said,
            ),
            click.option("--context-size", type=click.IntRange(1), help="Tokens of prompt and answer." + said),
            click.option("--window-size", type=click.IntRange(1), help="Passages in a prompt." + said),
            click.option("--stride", type=click.IntRange(1), help="Ranks the sliding window moves." + said),
            click.option(
                "--strategy",
                type=click.Choice(STRATEGIES),
                default="sliding",
                help="Which windows are asked: bottom to top, all in one, from a pivot down, or rounds of winners.",
            ),
            click.option(
                "--rank-top-k",
                type=click.IntRange(1),
                help="top-down, tournament: find so many of the best.  [default: half a window]",
            ),
            click.option(
                "--permutations",
                type=click.IntRange(1),
                default=1,
                help="Ask each window so often, in shuffled orders after the first, and take the consensus.",
            ),
            click.option(
                "--num-passes", type=click.IntRange(1), default=1, help="How often the windows go over the list."
            ),
            click.option(
                "--pass-depth",
                type=click.IntRange(2),
                help="Passes after the first go over the first so many alone; the others keep their order.",
            ),
            click.option(
                "--use-logits/--no-use-logits",
                default=None,
                help="FIRST: read the order off the first token's logits." + said,
            ),
            click.option("--use-alpha/--no-use-alpha", default=None, help="Call the passages A, B, C." + said),
            click.option(
                "--shuffle-candidates/--no-shuffle-candidates",
                default=False,
                help="Shuffle each query's candidates first.",
            ),
            click.option("--seed", type=int, default=0, help="Of --shuffle-candidates and --permutations."),
            click.option("--num-few-shot-examples", type=click.IntRange(0), default=0),
            click.option("--few-shot-file", type=NAME, help='JSON array of {"conversations": [{"role", "value"}]}.'),
            click.option("--system-message", help="In place of the template's own."),
            click.option("--max-passage-words", type=click.IntRange(1), help="Words of a passage shown." + said),
            click.option(
                "--variable-passages/--no-variable-passages",
                default=True,
                help="Whether a window may hold fewer passages than its size.",
            ),
            click.option("--q-max-len", type=click.IntRange(1), help="Pointwise: tokens of the query." + said),
            click.option("--p-max-len", type=click.IntRange(1), help="Pointwise: tokens of the passage." + said),
            click.option(
                "--fuse-weight",
                type=click.FloatRange(0, 1),
                help="The first stage's share in the order: 0 the model alone, 1 the first stage alone." + said,
            ),
            click.option(
                "--identifier-prior",
                type=NAME,
                metavar="FILE|none",
                help="FIRST: take this off the identifiers' logits, as `calibrate` has measured it." + said,
            ),
            click.option(
                "--free-decoding",
                is_flag=True,
                help="Let the model write what it likes; by default --engine transformers allows only permutations.",
            ),
            click.option(
                "--decode-top-k",
                type=click.IntRange(1),
                help="Generate only the first so many of each window; the others keep their order.",
            ),
            ignored("--dataset-name", takes_value=True),
            ignored("--dataset-proc-num", takes_value=True),
            ignored("--tokenizer-name", takes_value=True),
            ignored("--cache-dir", takes_value=True),
            ignored("--output-dir", takes_value=True),
            ignored("--overwrite-cache", takes_value=False),
            ignored("--print-prompts-responses", takes_value=False),
            ignored("--populate-invocations-history", takes_value=False),
        ]
    ):
        command = decorate(command)
    return command


def output_options(command: click.decorators.FC) -> click.decorators.FC:
    """What to write."""
    for decorate in reversed(
        [
            click.option("--output", "--output-trec-file", "output", type=PATH, help="The run."),
            click.option("--encoded-save-path", type=PATH, help="The same as --output, in TSV by default."),
            click.option(
                "--output-format",
                type=click.Choice(["trec", "tsv", "msmarco"]),
                help="By default TREC, or TSV for a name that ends in .tsv.",
            ),
            click.option("--tag", help="The run's name in the TREC format.  [default: rankllm]"),
            click.option(
                "--output-jsonl",
                "--output-jsonl-file",
                "output_jsonl",
                type=PATH,
                help="Results with texts, scores and statuses; reads back as --requests.",
            ),
            click.option("--trace", "--invocations-history-file", "trace", type=PATH, help="Every prompt and answer."),
            click.option(
                "--qrels", "--qrels-file", "qrels", type=PATH, help="Score the queries of this run when done."
            ),
            click.option(
                "--resume/--no-resume",
                default=False,
                help="Also retry failed queries. Repeating the same command already resumes an interrupted run.",
            ),
            click.option(
                "--overwrite/--no-overwrite", default=False, help="Start over, and replace outputs that exist."
            ),
            click.option(
                "--json/--no-json", "as_json", default=False, help="With --query: print JSON instead of a table."
            ),
        ]
    ):
        command = decorate(command)
    return command
