"""The command lines of rank_llm and tevatron: every option is taken, or answered with what to use instead."""

from __future__ import annotations

import click
import original_parsers
import pytest
from click.testing import CliRunner

from rankllm_core.original_options import HUGGING_FACE_ARGUMENTS
from rankllm_infer.cli import cli
from rankllm_infer.cli.originals import ORIGINALS


@pytest.mark.parametrize(("whose", "command", "options"), original_parsers.INFER, ids=lambda value: value.split()[0])
def test_no_option_of_the_originals_is_unknown(whose, command, options, capsys):
    """It parses, in both spellings, or one line says what to do; never `No such option`."""
    for name in options.split():
        for option in (f"--{name}", f"--{name.replace('_', '-')}"):
            said = original_parsers.answer_to(cli, command, option, "1")
            assert "\n" not in said
            if said:
                assert said.startswith(f"--{name.replace('_', '-')}: is an option of the original programs; "), said


def test_every_replacement_is_of_an_option_that_we_have():
    """What the table turns options into is taken by the command, and so is every option that its messages name."""
    for command, table in ORIGINALS.options.items():
        if not command:
            continue
        found = cli.get_command(click.Context(cli), command)
        own = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for name, option in table.items():
            assert {part for part in option.becomes if part.startswith("--")} <= own, name
            words = option.instead.replace(",", " ").replace(":", " ").split()
            named = {word for word in words if word.startswith("--")}
            assert named - {"--trec-file"} <= own, name
            # An option that we have must not be in the table, but for values that mean nothing special.
            assert name not in own or option.defaults or name in HUGGING_FACE_ARGUMENTS, name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["rerank", "--use_azure_openai"],
            "use --engine openai --base-url https://RESOURCE.openai.azure.com/openai/v1",
        ),
        (["rerank", "--populate_invocations_history"], "use --trace FILE"),
        (["analyze", "--files", "h.json"], "--trace FILE records them with their defects"),
        (["validate", "rerank", "--requests-file", "r"], "`rerank --dry-run` reads and checks the whole input"),
        (["--output", "json", "rerank"], "use --json after the command"),
        (["evaluate", "--model-name", "m"], "evaluate --qrels QRELS rerank_results/*/*.txt"),
    ],
)
def test_what_is_replaced_says_by_what(words, message):
    """Wrong usage, and the line ends in what to do."""
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["serve", "http", "--help"], "serve [OPTIONS]"),
        (["serve", "mcp", "--help"], "mcp [OPTIONS]"),
        (["prompt", "list", "--help"], "prompts list [OPTIONS]"),
        (["retrieve-cache", "--help"], "prepare [OPTIONS]"),
    ],
)
def test_commands_of_rank_llm_are_ours_by_another_name(words, usage):
    """Two words or one."""
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0
    assert usage in done.output.splitlines()[0]


_BM25 = "--top_k_candidates=100 --dataset=dl19 --retrieval_method=bm25"
_SPLADE = "--top_k_candidates=100 --dataset=dl20 --retrieval_method=SPLADE++_EnsembleDistil_ONNX"
_TEMPLATES = "src/rank_llm/rerank/prompt_templates"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        # castorini/rank_llm@1b3cabb README.md, behind `rank-llm` and, for `rerank`, `run_rank_llm.py`.
        ("rerank --model-path m --dataset dl20 --retrieval-method bm25 --top-k-candidates 100", ""),
        ("prompt list", ""),
        ("view demo_outputs/rerank_results.jsonl", "`report` shows a run query by query"),
        ("evaluate --model-name castorini/rank_zephyr_7b_v1_full", "pass the runs: evaluate --qrels QRELS"),
        ("serve http --model-path castorini/rank_zephyr_7b_v1_full --port 8082", ""),
        ("serve mcp --transport stdio", ""),
        (f"rerank --model-path m {_SPLADE} --prompt-template-path {_TEMPLATES}/rank_zephyr_template.yaml", ""),
        (f"rerank --model-path m {_SPLADE} --prompt_mode=rank_GPT --context_size=4096 --variable_passages", ""),
        (f"rerank --model-path m {_SPLADE} --num_passes 3 --vllm_batched", ""),
        (f"rerank --model-path m {_SPLADE} --sglang_batched", "use --engine openai --base-url"),
        (f"rerank --model-path m {_SPLADE} --tensorrt_batched", "use --engine openai --base-url"),
        (
            f"rerank --model-path gpt-4o {_BM25} --context-size 4096 --use-azure-openai",
            "use --engine openai --base-url",
        ),
        (f"rerank --model_path=castorini/LiT5-Distill-large-v2 {_BM25} --batch_size=4 --window_size=100", ""),
        (
            f"rerank --model_path m {_BM25} --prompt_template_path {_TEMPLATES}/monot5_template.yaml --context_size 9",
            "",
        ),
        (f"rerank --model_path=first {_SPLADE} --variable_passages --use_logits --use_alpha --num_gpus 1", ""),
    ],
)
def test_the_lines_of_rank_llms_readme_parse_or_are_answered(line, answer):
    """What each comes to in our words, without running it."""
    said = original_parsers.answer_to(cli, *line.split())
    assert bool(said) == bool(answer)
    assert answer in said


def test_unknown_words_stay_unknown():
    """What neither program has is refused as ever, with click's nearest."""
    assert "No such option '--reqests'" in CliRunner().invoke(cli, ["rerank", "--reqests", "r"]).stderr
    assert "No such command 'rank'" in CliRunner().invoke(cli, ["rank"]).stderr


def parsed(*words):
    """The words after ours have been put in."""
    return cli.resolve_command(click.Context(cli), ["rerank", *words])[2]


def test_options_of_the_originals_become_ours(capsys):
    """Renamed, told true or false, at their default, or without effect."""
    assert parsed("--max_model_len", "1024", "--tensor_parallel_size=2") == [
        "--vllm-arg",
        "max_model_len=1024",
        "--num-gpus",
        "2",
    ]
    assert parsed("--listwise_vllm_with_openai_sdk", "--base_url", "u") == ["--engine", "openai", "--base_url", "u"]
    assert parsed("--fp16", "True", "--use_alpha=false") == ["--fp16", "--no-use-alpha"]
    assert parsed("--max_queries", "-1", "--top_k_rerank=-1", "--stride", "5") == ["--stride", "5"]
    assert capsys.readouterr().err == ""
    assert parsed("--report_to", "wandb", "tensorboard", "--query", "--num-gpus") == ["--query", "--num-gpus"]
    assert parsed("--", "--report_to") == ["--", "--report_to"]
    assert capsys.readouterr().err == "Warning: --report-to has no effect in rankllm and is ignored\n"
