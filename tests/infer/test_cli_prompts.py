"""`rankllm-infer prompts`: the templates, and the exact words that a model will see."""

import json
import re
import shutil

import click
import pytest
import yaml
from click.testing import CliRunner
from shared_files import tokenizer_dir

from rankllm_core.card import ListwiseCard, PointwiseCard, save_card
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.prompts.template import load_template, template_names
from rankllm_infer.cli import cli

TEMPLATE = """\
# Mine: for this test. Not for others.
method: singleturn_listwise
prefix: |
  Query: {query}. {num} passages.
body: |
  [{rank}] {candidate}
suffix: Rank them.
"""
PAIR_TEMPLATE = 'method: pointwise\nlayout: segments\nquery: "query: {query}"\npassage: "document: {title} {text}"\n'


def request(qid, texts):
    """One line of a requests file."""
    candidates = [{"docid": f"d{n}", "score": -n, "doc": {"text": text}} for n, text in enumerate(texts, start=1)]
    return json.dumps({"query": {"qid": qid, "text": f"about {qid}"}, "candidates": candidates}) + "\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with requests and templates, which is the current one."""
    lines = request("cats", ["one", "two", "three", "four five six"]) + request("dogs", ["bark"]) + request("none", [])
    (tmp_path / "requests.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(TEMPLATE, encoding="utf-8")
    (tmp_path / "pair.yaml").write_text(PAIR_TEMPLATE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(folder):
    """A folder with Llama 2's tokenizer and a card, and no weights."""
    path = folder / "checkpoint"
    shutil.copytree(tokenizer_dir("llama2"), path)
    path.chmod(0o755)
    template = yaml.safe_load(TEMPLATE) | {"chat_layout": "plain"}
    (folder / "plain.yaml").write_text(yaml.safe_dump(template), encoding="utf-8")
    save_card(ListwiseCard(template=load_template(folder / "plain.yaml"), window_size=3, stride=1), path)
    return path


def prompts(*args):
    """Run `prompts`."""
    return CliRunner().invoke(cli, ["prompts", *map(str, args)], standalone_mode=False)


def render(*args):
    """Run `prompts render` over the requests with the template of the test."""
    return prompts("render", "--requests", "requests.jsonl", "--prompt-template-path", "mine.yaml", *args)


def test_every_shipped_template_is_listed_with_what_it_is_for():
    """One line a template: name, method, and the first sentence of the file's comment."""
    result = prompts("list")
    rows = [line.split(None, 2) for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(template_names())
    assert ["rank_zephyr", "singleturn_listwise", "RankZephyr (arXiv:2312.02724)"] in rows
    assert all(len(row) == 3 and row[2] for row in rows)
    records = [json.loads(line) for line in prompts("list", "--json").stdout.splitlines()]
    assert [[record["name"], record["method"], record["description"]] for record in records] == rows


@pytest.mark.parametrize("name", template_names())
def test_what_show_prints_is_the_template(name, tmp_path):
    """Saved to a file, the output is the same template as the shipped one."""
    result = prompts("show", name)
    (tmp_path / "copy.yaml").write_text(result.stdout, encoding="utf-8")
    assert load_template(tmp_path / "copy.yaml").to_dict() == load_template(name).to_dict()


def test_show_prints_a_file_as_it_is_and_refuses_a_broken_one(folder):
    """A file of one's own is printed whole; what is wrong with it, or with the name, is said."""
    assert prompts("show", "mine.yaml").stdout == TEMPLATE
    (folder / "bad.yaml").write_text("method: singleturn_listwise\nbody: hello\n", encoding="utf-8")
    assert "expected the placeholder {candidate}" in str(prompts("show", "bad.yaml").exception)
    assert "did you mean 'rank_zephyr'?" in str(prompts("show", "rank_zephir").exception)


def test_the_first_window_is_shown_as_messages(folder):
    """The window is the lowest one, its words are cut, and standard output holds nothing but the messages."""
    result = render("--qid", "cats", "--window-size", "2", "--max-passage-words", "2")
    assert result.stdout == "=== user ===\nQuery: about cats. 2 passages.\n[1] three\n[2] four five\nRank them.\n"
    assert result.stderr.startswith("Query cats, ranks 3-4 of 4, about ")
    assert result.stderr.count("\n") == 1


def test_roles_letters_and_the_opening_of_first_are_shown(folder):
    """With --use_alpha --use_logits passages are letters and the model goes on after a bracket."""
    options = ["--window_size", "2", "--use_alpha", "--use_logits", "--system_message", "Be brief."]
    result = render(*options, "--top_k_candidates", "2")
    assert result.stdout == (
        "=== system ===\nBe brief.\n\n"
        "=== user ===\nQuery: about cats. 2 passages.\n[A] one\n[B] two\nRank them.\n\n"
        "=== assistant ===\n[\n"
    )
    assert "ranks 1-2 of 4" in result.stderr


def test_json_holds_messages_docids_and_rules(folder):
    """The same as one object."""
    record = json.loads(render("--window-size", "3", "--json").stdout)
    assert record["messages"] == [
        {"role": "user", "content": "Query: about cats. 3 passages.\n[1] two\n[2] three\n[3] four five six\nRank them."}
    ]
    assert (record["qid"], record["docids"], record["first_rank"]) == ("cats", ["d2", "d3", "d4"], 2)
    assert (record["kind"], record["read"], record["identifiers"]) == ("listwise", "text", ["1", "2", "3"])
    assert record["is_exact"] is False


def test_a_rerank_input_file_is_read_as_well(folder):
    """The layout is told by the first line; of a pointwise template the first pair is shown."""
    row = {"docid": "d1", "title": "T", "text": "x", "score": 1, "query_id": "q", "query": "why"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    result = prompts("render", "--rerank_input", "rows.jsonl", "--prompt-template-path", "pair.yaml")
    assert result.stdout == "query: why\ndocument: T x\n"
    assert "rank 1 of 1" in result.stderr
    question = prompts("render", "--requests", "rows.jsonl", "--prompt_template_path", "yes_no")
    assert "<Query>: why\n<Document>: T x\n" in question.stdout


def test_a_query_and_its_passages_can_be_typed(folder):
    """The prompt is the one of a request with the same texts."""
    (folder / "passages.txt").write_text("one\ntwo\nthree\nfour five six\n", encoding="utf-8")
    typed = ["--query", "about cats", "--passages", "passages.txt", "--prompt-template-path", "mine.yaml"]
    assert prompts("render", *typed).stdout == render().stdout != ""


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ([], ""),
        (["--query", "q"], ", not --query"),
        (
            ["--requests", "requests.jsonl", "--query", "q", "--passages", "p"],
            ", not --requests with --query with --passages",
        ),
        (["--qid", "cats", "--query", "q", "--passages", "p"], ", not --query with --passages with --qid"),
    ],
)
def test_what_to_render_is_given_in_one_way(folder, args, found):
    """Requests, or a query with its passages; neither half of one, nor both."""
    result = prompts("render", *args)
    assert isinstance(result.exception, click.UsageError)
    assert result.exception.message == f"give --requests (and perhaps --qid), or --query with --passages{found}"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--qid", "birds"], "requests.jsonl: contains no query 'birds'; its queries: 'cats', 'dogs', 'none'"),
        (["--qid", "dogs"], "query 'dogs': has one candidate to rerank, so the model is not called"),
        (["--qid", "none"], "query 'none': has 0 candidates, so the model is not called"),
        (["--context-size", "60"], "query 'cats': the prompt takes"),
        (["--use-alpha", "--window-size", "27"], "there are 26 alphabetic identifiers"),
        (["--requests", "mine.yaml"], "found no JSON; join a run with its texts first (`prepare`)"),
        (["--requests", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--model-path", "./nowhere"], "./nowhere: no such model folder"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(folder, args, says):
    """An unknown query gets the known ones; a query that no model is asked about says why."""
    result = render(*args)
    assert isinstance(result.exception, RankLLMError)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_with_a_model_the_exact_text_and_its_tokens_are_shown(checkpoint):
    """The card gives template and window; text and token count are those of the model's own tokenizer."""
    from transformers import AutoTokenizer

    text = "Query: about cats. 3 passages.\n[1] two\n[2] three\n[3] four five six\nRank them.\n"
    n_tokens = len(AutoTokenizer.from_pretrained(checkpoint).encode(text))
    result = prompts("render", "--requests", "requests.jsonl", "--model-path", checkpoint)
    assert result.exception is None
    assert result.stdout == text + "\n"
    assert f"ranks 2-4 of 4, {n_tokens} tokens; listwise" in result.stderr
    assert str(checkpoint / "rankllm.yaml") in result.stderr


def test_an_option_against_the_card_is_told(checkpoint):
    """One warning that names both values, and none about the stride, which the first window does not depend on."""
    args = ["render", "--requests", "requests.jsonl", "--model_name_or_path", checkpoint, "--window-size", "2"]
    result = prompts(*args, "--json")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning")]
    assert warnings == [f"Warning: --window-size: using window_size 2, {checkpoint}/rankllm.yaml says 3"]
    record = json.loads(result.stdout)
    assert record["docids"] == ["d3", "d4"]
    assert len(record["token_ids"]) == record["n_tokens"]


def test_the_context_shown_is_no_longer_than_the_model_is(checkpoint):
    """Words are cut to the positions that the model has, as `rerank` does."""
    (checkpoint / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 60}', encoding="utf-8")
    (checkpoint.parent / "requests.jsonl").write_text(request("long", ["a b c d " * 25] * 3), encoding="utf-8")
    result = prompts("render", "--requests", "requests.jsonl", "--model-path", checkpoint, "--json")
    assert json.loads(result.stdout)["n_tokens"] <= 60


def test_a_pair_for_which_the_model_is_too_short_is_refused(checkpoint):
    """As `rerank` refuses it: of a card for pairs too the lengths are held against the model's positions."""
    save_card(PointwiseCard(template=load_template("rankllama"), query_tokens=32, passage_tokens=164), checkpoint)
    for positions, is_long_enough in ((195, False), (196, True)):
        config = {"model_type": "llama", "max_position_embeddings": positions}
        (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
        result = prompts("render", "--requests", "requests.jsonl", "--model-path", checkpoint)
        assert (result.exception is None) is is_long_enough
        if not is_long_enough:
            assert f"pairs of 32 + 164 tokens: the model has {positions} positions" in str(result.exception)


def test_help_says_what_holds_without_a_card(folder):
    """The values in the help are those of the card that is taken then, and the templates are its own."""
    shown = " ".join(prompts("render", "--help").stdout.split())
    card = ListwiseCard(template=load_template("rank_zephyr"))
    values = (card.window_size, card.max_passage_words, card.context_tokens)
    assert [shown.count(f"default: from the card, else {value};") for value in values] == [1, 1, 1]
    assert not re.search(r"default: from the card[];]", shown)
    for options, template in (([], "rank_zephyr"), (["--use-alpha"], "rank_zephyr_alpha")):
        record = json.loads(prompts("render", "--requests", "requests.jsonl", "--json", *options).stdout)
        assert record["template"] == template
        assert template in shown


def test_a_pair_is_shown_as_its_ids_are(checkpoint):
    """RankLLaMA's two segments, each with its BOS and cut at its limit."""
    (checkpoint / "rankllm.yaml").unlink()
    args = ["render", "--requests", "requests.jsonl", "--qid", "dogs", "--prompt-template-path", "rankllama"]
    result = prompts(*args, "--model-path", checkpoint, "--json")
    record = json.loads(result.stdout)
    assert record["token_ids"].count(1) == 2
    assert record["token_ids"][0] == 1
    assert "".join(record["text"].split()) == "<s>query:aboutdogs<s>document:bark"


def test_a_template_of_the_other_kind_is_refused(checkpoint):
    """A listwise card does not take a pointwise template."""
    result = prompts(
        "render", "--requests", "requests.jsonl", "--model-path", checkpoint, "--prompt-template-path", "yes_no"
    )
    assert isinstance(result.exception, ConfigError)


def test_control_characters_of_ids_and_texts_are_shown_and_not_sent(folder):
    """A requests file must not write to the terminal's title, colours or other lines."""
    (folder / "hostile.jsonl").write_text(request("q1", ["one\x1b[2J", "two\x9b2J"]), encoding="utf-8")
    result = prompts("render", "--requests", "hostile.jsonl")
    assert result.exit_code == 0
    shown = result.stdout + result.stderr
    assert not any(letter in shown for letter in "\x1b\x07\r\x9b")
    (folder / "hostile.jsonl").write_text(request("q\x1b]0;owned\x07", ["one"]), encoding="utf-8")
    refused = str(prompts("render", "--requests", "hostile.jsonl").exception)
    assert r"query.qid: 'q\x1b]0;owned\x07' contains a control character (U+001B)" in refused
