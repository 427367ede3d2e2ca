"""`rankllm-infer rerank` with checkpoints: cards, adapters, and commands from the papers' repositories."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from ranking_server import request, write_jsonl
from tiny_models import change_json

from rankllm_core.card import ListwiseCard, save_card
from rankllm_core.data.records import read_requests, read_rerank_input
from rankllm_core.prompts.template import load_template
from rankllm_core.trec import read_run, run_lines
from rankllm_infer.api import load_reranker
from rankllm_infer.options import RerankOptions

FIRST = ListwiseCard(
    template=load_template("rank_zephyr_alpha"),
    identifiers="alpha",
    answer="first-token",
    context_tokens=1024,
    max_passage_words=2,
    window_size=3,
    stride=2,
)


@pytest.fixture
def requests(tmp_path):
    """Three queries with 5, 2 and 3 candidates."""
    return write_jsonl(tmp_path / "requests.jsonl", *(request(f"q{n}", *range(n)) for n in (5, 2, 3)))


@pytest.fixture
def carded(tmp_path, tiny_causal):
    """A copy of the tiny model with the card of a FIRST model that reads letters."""
    folder = tmp_path / "carded"
    shutil.copytree(tiny_causal, folder)
    save_card(FIRST, folder)
    return folder


@pytest.fixture
def pairs(tmp_path):
    """A rerank-input file as written by Tevatron's `prepare_rerank_file.py`."""
    rows = [
        {
            "docid": f"d{number}",
            "title": "" if number % 2 else f"title {number}",
            "text": f"passage {number} about {qid}",
            "score": 10.0 - number,
            "query_id": qid,
            "query": f"question {qid}",
        }
        for qid in ("19335", "47923")
        for number in range(7)
    ]
    return write_jsonl(tmp_path / "pairs.jsonl", *rows)


def calls(path):
    """Model calls in a trace file."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [call for record in records for call in record["invocations_history"]]


def test_a_checkpoint_with_a_card_needs_no_option(tmp_path, rankllm, carded, requests):
    """Letters, windows of three, two words per passage, one token read: all from rankllm.yaml, without warnings."""
    trace = tmp_path / "trace.jsonl"
    done = rankllm("rerank", "--model-path", carded, "--requests", requests, "--trace", trace)
    assert done.code == 0, done.err
    assert "Warning" not in done.err
    assert f"Reranking: listwise, {carded} on cpu in " in done.err
    assert f"({carded}/rankllm.yaml)" in done.err
    assert [(call["start"], len(call["docids"])) for call in calls(trace)] == [(2, 3), (0, 3), (0, 2), (0, 3)]
    for call in calls(trace):
        assert re.findall(r"^\[([A-Z])\] (.*)$", call["prompt"], re.MULTILINE) == [
            (label, f"passage {docid[1:]}") for label, docid in zip("ABC", call["docids"], strict=False)
        ]
        assert call["prompt"].endswith("[")
        assert call["output_token_count"] == 0
        assert len(call["scores"]) == len(call["docids"])


def test_an_option_against_the_card_is_honoured_with_both_values(tmp_path, rankllm, carded, requests):
    """One warning line for each."""
    trace = tmp_path / "trace.jsonl"
    options = ["--window-size", "4", "--no-use-alpha", "--context-size", "1024"]
    done = rankllm("rerank", "--model-path", carded, "--requests", requests, "--trace", trace, *options)
    assert done.code == 0, done.err
    said = f"{carded}/rankllm.yaml says"
    assert [line for line in done.err.splitlines() if line.startswith("Warning")] == [
        f"Warning: --no-use-alpha: using identifiers numeric, {said} alpha",
        f"Warning: --window-size: using window_size 4, {said} 3",
    ]
    assert len(calls(trace)[0]["docids"]) == 4
    assert "\n[1] passage " in calls(trace)[0]["prompt"]


def test_the_command_line_gives_what_the_python_interface_gives(tmp_path, rankllm, carded, requests):
    """The command is equivalent to load_reranker(...).rerank(...)."""
    run = tmp_path / "run.trec"
    done = rankllm("rerank", "--model-path", carded, "--requests", requests, "--output", run, "--dtype", "float32")
    assert done.code == 0, done.err
    with load_reranker(carded, RerankOptions(dtype="float32")) as reranker:
        results = reranker.rerank(read_requests(requests))
    lines = [line for r in results for line in run_lines(r.query.qid, [(c.docid, c.score) for c in r.candidates])]
    assert run.read_text(encoding="utf-8") == "".join(lines)


def test_the_command_of_tevatrons_readme_runs_as_it_is(tmp_path, rankllm, monkeypatch, tiny_adapter, pairs):
    """RankLLaMA is a LoRA adapter: scores are written as TSV, options without effect are reported once, no folder
    `temp`."""
    monkeypatch.chdir(tmp_path)
    done = rankllm(
        *["rerank", "--output_dir=temp", "--model_name_or_path", tiny_adapter, "--tokenizer_name", "some/tokenizer"],
        *["--encode_in_path", pairs.name, "--fp16", "--per_device_eval_batch_size", "64"],
        *["--q_max_len", "32", "--p_max_len", "164", "--dataset_name", "json"],
        *["--encoded_save_path", "run.rankllama.txt"],
    )
    assert done.code == 0, done.err
    for name in ("--output-dir", "--tokenizer-name", "--dataset-name"):
        assert done.err.count(f"Warning: {name} has no effect in rankllm and is ignored\n") == 1
    assert done.err.count("Warning: ") == 3
    assert " on cpu in float16 " in done.err
    assert not (tmp_path / "temp").exists()
    lines = [line.split("\t") for line in (tmp_path / "run.rankllama.txt").read_text(encoding="utf-8").splitlines()]
    assert [fields[0] for fields in lines] == ["19335"] * 7 + ["47923"] * 7
    assert sorted(fields[1] for fields in lines[:7]) == [f"d{number}" for number in range(7)]
    with load_reranker(tiny_adapter, RerankOptions(dtype="float16")) as reranker:
        results = reranker.rerank(read_rerank_input(pairs))
    assert reranker.card.query_tokens == 32
    assert reranker.card.passage_tokens == 164
    expected = {r.query.qid: [(c.docid, c.score) for c in r.candidates] for r in results}
    assert read_run(tmp_path / "run.rankllama.txt", format="tsv") == {
        qid: [(docid, pytest.approx(score)) for docid, score in ranking] for qid, ranking in expected.items()
    }


def test_scores_of_a_head_order_the_run(tmp_path, rankllm, tiny_classifier, pairs):
    """The run contains the model's scores, in decreasing order."""
    run, out = tmp_path / "run.trec", tmp_path / "out.jsonl"
    done = rankllm(
        "rerank", "--model-path", tiny_classifier, "--rerank-input", pairs, "--output", run, "--output-jsonl", out
    )
    assert done.code == 0, done.err
    for line in out.read_text(encoding="utf-8").splitlines():
        candidates = json.loads(line)["candidates"]
        said = [c["model_score"] for c in candidates]
        assert said == sorted(said, reverse=True)
        assert [c["score"] for c in candidates] == pytest.approx(said)


def test_a_chat_model_is_asked_yes_or_no(tmp_path, rankllm, tiny_causal, requests):
    """--method pointwise without a score head: logit(yes) - logit(no)."""
    trace = tmp_path / "trace.jsonl"
    done = rankllm(
        "rerank", "--model-path", tiny_causal, "--requests", requests, "--trace", trace, "--method", "pointwise"
    )
    assert done.code == 0, done.err
    assert len(calls(trace)) == 10
    assert all(len(call["scores"]) == 2 for call in calls(trace))
    assert all('can only be "yes" or "no"' in call["prompt"] for call in calls(trace))


def test_a_model_with_fewer_positions_than_the_default_says_so(tmp_path, rankllm, tiny_causal, requests):
    """The default without a card is 4,096 tokens; the model has 2,048 positions."""
    options = ["--use-alpha", "--use-logits", "--output", tmp_path / "run.trec"]
    done = rankllm("rerank", "--model-path", tiny_causal, "--requests", requests, *options)
    assert done.code == 0
    assert "Warning: the context is limited to 2048 tokens, the model's maximum (requested: 4096)\n" in done.err


@pytest.mark.parametrize(
    ("checkpoint", "options", "message"),
    [
        ("causal", ["--context-size", "4096"], "--context-size 4096: the model has 2048 positions"),
        (
            "causal",
            ["--method", "pointwise", "--prompt-template-path", "rankllama"],
            r"no score head \(score.weight\) in the checkpoint; its scores would be random. Use a trained",
        ),
        ("classifier", ["--method", "listwise"], "has a score head and no language model; use --method pointwise"),
        ("adapter", ["--method", "listwise"], "was trained with a score head; use --method pointwise"),
        (
            "causal",
            ["--use-logits"],
            r"FIRST reads one token per identifier: .*'10'.*; use --use-alpha, or --window-size 9 or less",
        ),
        ("causal", ["--base-model", "other"], "--base-model has no effect: the model is not an adapter; leave it out"),
        ("causal", ["--few-shot-file", "gone.json", "--num-few-shot-examples", "1"], "gone.json: no such file"),
        ("causal", ["--device", "cuda:7"], "--device cuda:7: found 0 CUDA devices; use --device cpu"),
    ],
)
def test_a_model_that_cannot_do_it_is_one_line(
    tmp_path, rankllm, request, requests, monkeypatch, checkpoint, options, message
):
    """Conflicts with the checkpoint are found before the first prompt."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model = request.getfixturevalue(f"tiny_{checkpoint}")
    done = rankllm("rerank", "--model-path", model, "--requests", requests, "--output", tmp_path / "run", *options)
    assert (done.code, done.out) == (1, "")
    assert re.search(f"^Error: .*{message}", done.err.splitlines()[-1]), done.err
    assert "Traceback" not in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.jsonl"]


def test_an_adapter_on_another_base_than_its_cards_is_an_error(tmp_path, rankllm, tiny_adapter, requests):
    """The message gives both names and what to do; --base-model resolves it."""
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, adapter)
    base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    card = (
        "format: 1\nkind: pointwise\nbase_model: meta-llama/Llama-2-7b-hf\ntemplate: rankllama\n"
        "head: sequence-classification\n"
    )
    (adapter / "rankllm.yaml").write_text(card, encoding="utf-8")
    options = ["--requests", requests, "--output", tmp_path / "run.trec"]
    done = rankllm("rerank", "--model-path", adapter, *options)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"Error: the card names base model 'meta-llama/Llama-2-7b-hf', but adapter_config.json names {base!r}; "
        "correct one of the two, or select one with --base-model"
    )
    assert rankllm("rerank", "--model-path", adapter, "--base-model", base, *options).code == 0


def test_an_adapter_whose_base_is_nowhere_is_an_error(tmp_path, rankllm, tiny_adapter, requests):
    """The base named by the adapter is reported as missing, with the option that gives its location."""
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, adapter)
    change_json(adapter / "adapter_config.json", base_model_name_or_path="nobody/base")
    done = rankllm("rerank", "--model-path", adapter, "--requests", requests, "--output", tmp_path / "run.trec")
    assert done.code == 1
    (*_, error) = done.err.splitlines()
    reason = "(nobody/base: no such model folder, not in the hub's cache, and"
    assert error.startswith(f"Error: {adapter}: is an adapter, and its base model cannot be loaded {reason}")
    assert error.endswith("with --base-model")


def test_scores_that_are_no_numbers_fail_the_query(tmp_path, rankllm, tiny_classifier, requests):
    """A broken head returns NaN: every query fails with query and docid named, and no file is created."""
    import torch
    from safetensors.torch import load_file, save_file

    model = tmp_path / "broken"
    shutil.copytree(tiny_classifier, model)
    weights = load_file(model / "model.safetensors")
    weights["score.weight"] = torch.full_like(weights["score.weight"], torch.nan)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    done = rankllm("rerank", "--model-path", model, "--requests", requests, "--output", tmp_path / "run.trec")
    assert done.code == 3
    assert "query 'q2': the model's score of docid 'd1' is nan, expected a finite float32 number" in done.err
    assert done.err.splitlines()[-1] == "Error: no query could be ranked; nothing was written"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "requests.jsonl"]


def test_a_query_too_long_for_the_context_fails_alone(tmp_path, rankllm, tiny_causal):
    """Status 3: the query is named and omitted from all outputs; the others are ranked."""
    long = request("long", 1, 2)
    long["query"]["text"] = "word " * 500
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q1", 1, 2), long, request("q2", 1, 2))
    run, out, trace = (tmp_path / name for name in ("run.trec", "out.jsonl", "trace.jsonl"))
    done = rankllm(
        *["rerank", "--model-path", tiny_causal, "--requests", requests, "--use-alpha", "--use-logits"],
        *["--context-size", "400", "--output", run, "--output-jsonl", out, "--trace", trace],
    )
    assert done.code == 3
    assert ": ok 2, failed 1; " in done.err
    assert "Failed and omitted from all outputs: 1 query\n  query 'long': the prompt takes " in done.err
    assert set(read_run(run)) == {"q1", "q2"}
    assert [r.query.qid for r in read_requests(out)] == ["q1", "q2"]
    assert [json.loads(line)["query"]["qid"] for line in trace.read_text(encoding="utf-8").splitlines()] == ["q1", "q2"]


def test_the_first_stage_has_its_say(tmp_path, rankllm, carded, requests):
    """With --fuse-weight 1 the first-stage order is kept, in the run and in the results."""
    outputs = ["--output", tmp_path / "run.trec", "--output-jsonl", tmp_path / "results.jsonl"]
    done = rankllm("rerank", "--model-path", carded, "--requests", requests, "--fuse-weight", "1", *outputs)
    assert done.code == 0, done.err
    assert "Warning" not in done.err
    before = {r.query.qid: [c.docid for c in r.candidates] for r in read_requests(requests)}
    assert {qid: [docid for docid, _ in ranking] for qid, ranking in read_run(tmp_path / "run.trec").items()} == before
    results = read_requests(tmp_path / "results.jsonl")
    assert {r.query.qid: [c.docid for c in r.candidates] for r in results} == before
