"""Each option of `rerank` is declared once: every row takes part in all that is derived from the table."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rankllm_core.errors import ConfigError
from rankllm_infer.cli.options import from_given
from rankllm_infer.cli.rerank import command, read_command
from rankllm_infer.cli.rerank_options import OWNERS, ModelArguments
from rankllm_infer.effective_card import resolve_card
from rankllm_infer.jobs.fingerprint import changed_names, run_settings
from rankllm_infer.option_table import ALL_METHODS, ENGINES, GROUPS, option, rows_of
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
    "trust_remote_code": Given("--trust-remote-code", True),
    "vllm_args": Given("--vllm-arg a=1", ("a=1",), engine="vllm"),
    "base_model": Given("--base-model b", "b"),
    "template": Given("--prompt-template-path rank_vicuna", "rank_vicuna"),
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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the options name, which is the current one."""
    monkeypatch.chdir(tmp_path)
    for name in ("shots.json", "copy.json"):
        Path(name).write_text('[{"conversations": []}]', encoding="utf-8")
    Path("prior.yaml").write_text(f"identifier_prior: {list(PRIOR)}\n", encoding="utf-8")
    Path("m").mkdir()
    Path("m/config.json").write_text("{}", encoding="utf-8")
    return tmp_path


def test_the_fields_written_down_here_are_all_there_are():
    """A new option is added above, or the tests below say nothing of it; and every field of RerankOptions has a row."""
    assert set(SET) | {"api_key"} == set(ROWS)
    assert set(OPTIONS) == {field.name for field in fields(RerankOptions)}
    assert len(ROWS) == sum(len(rows_of(owner)) for owner in OWNERS)
    assert {name: list(row.option.flags[1:]) for name, row in ROWS.items() if row.option.flags[1:]} == ALIASES


# The command line.


def test_the_command_has_the_options_of_the_table_and_no_others():
    """Those that are accepted and ignored are hidden."""
    shown = {name for p in command.params if not getattr(p, "hidden", False) for name in p.opts}
    assert shown == {flag for name, row in ROWS.items() if name not in FOR_PYTHON for flag in row.option.flags}


def spelled(name):
    """The option by its name, by its aliases, and each of them with underscores."""
    flag, *value = SET[name].words.split()
    flags = [flag, *ALIASES.get(name, [])]
    return [[spelling, *value] for f in flags for spelling in (f, "--" + f.removeprefix("--").replace("-", "_"))]


def parsed(*words):
    """What click makes of a command line."""
    return command.make_context("rerank", list(words)).params


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.owner is RerankOptions and name in SET])
def test_each_flag_sets_its_field_of_the_options(folder, name):
    """The options of a command line are those of Python, in which every other field has its default."""
    given = SET[name]
    beside = [word for other in given.beside for word in WORDS_BESIDE.get(other, SET.get(other, given).words).split()]
    engine = [] if name == "engine" else ["--engine", given.engine]
    if given.engine == "openai" and name != "base_url":
        engine += ["--base-url", "http://h/v1"]
    for words in spelled(name):
        values = parsed("--model-path", "m", "--requests", "r", "--output", "o", *engine, *beside, *words)
        assert read_command(values).options == options(name)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.owner is not RerankOptions])
def test_each_flag_sets_its_field_of_the_command(name):
    """Inputs, outputs and the model: what is not given has the owner's default."""
    model = [] if name == "model_path" else ["--model-path", "m"]
    for words in spelled(name):
        made = from_given(ROWS[name].owner, parsed(*model, *words))
        assert getattr(made, name) == SET[name].value
        others = [row for row in rows_of(ROWS[name].owner).values() if row.name != name]
        assert all(getattr(made, row.name) == row.default for row in others if row.default is not MISSING)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.option.least is not None])
def test_a_number_below_the_least_is_refused(name):
    """By the command line and by Python."""
    row = ROWS[name]
    below = int(row.option.least) - 1
    with pytest.raises(click.BadParameter, match="is not in the range"):
        parsed("--model-path", "m", row.spelled, str(below))
    if row.owner is RerankOptions:
        with pytest.raises(ConfigError, match=rf"^({row.name}|{row.spelled}): expected "):
            RerankOptions(**{name: below})


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.option.choices])
def test_what_is_no_choice_is_refused(name):
    """By the command line and by Python."""
    row = ROWS[name]
    with pytest.raises(click.BadParameter, match="'nonsense' is not one of"):
        parsed("--model-path", "m", row.spelled, "nonsense")
    if row.owner is RerankOptions:
        with pytest.raises(ConfigError, match=rf"^{name}: expected one of "):
            RerankOptions(**{name: "nonsense"})


# What an option applies to.

FOREIGN_ENGINE = [
    (name, engine)
    for name, row in OPTIONS.items()
    if name not in (*FOR_PYTHON, "base_url")  # base_url and its engine go together, which is said by itself
    for engine in ENGINES
    if engine not in row.option.engines
]


@pytest.mark.parametrize(("name", "engine"), FOREIGN_ENGINE)
def test_an_option_of_another_engine_is_refused_by_its_flag(name, engine):
    """As the user wrote it."""
    flag = SET[name].words.split()[0]
    with pytest.raises(ConfigError, match=rf"^{flag} has no effect with --engine {engine}; leave it out$"):
        options(name, engine=engine)


def test_a_key_without_a_server_is_refused_by_the_fields_name():
    """It has no flag."""
    with pytest.raises(ConfigError, match=r"^api_key has no effect with --engine vllm; leave it out$"):
        RerankOptions(engine="vllm", api_key="k")


ASKED = {
    "pointwise": ({"method": "pointwise"}, "on a pointwise reranker"),
    "FIRST": ({"method": "listwise", "use_logits": True}, "with FIRST|on a listwise reranker"),
    "generation": ({"method": "listwise", "use_logits": False}, "with generation|on a listwise reranker"),
}
FOREIGN_METHOD = [
    (name, method)
    for name, row in OPTIONS.items()
    if name != "use_logits"  # it chooses between the two
    for method in ALL_METHODS
    if method not in row.option.methods
]


@pytest.mark.parametrize(("name", "method"), FOREIGN_METHOD)
def test_an_option_of_another_method_is_refused_by_its_flag(name, method):
    """Or by the flag without which it cannot be given."""
    changes, why = ASKED[method]
    flags = [SET[name].words.split()[0]]
    flags += [SET[other].words.split()[0] for other in SET[name].beside if other in SET and other not in changes]
    flags += ["--strategy"] if "top_down" in SET[name].beside else []
    with pytest.raises(ConfigError, match=rf"^({'|'.join(flags)}) has no effect ({why})"):
        resolve_card("m", options(name, **changes), folder=None, score_head=False)


def test_what_applies_is_written_down():
    """By hand, of the options that not every engine and method knows."""
    restricted = {"FIRST": ["identifier_prior"], "generation": ["decode_top_k", "free_decoding"]}
    restricted |= {"FIRST and pointwise": ["compile"], "pointwise": ["p_max_len", "q_max_len"]}
    restricted["listwise"] = [
        *("context_size", "few_shot_file", "max_passage_words", "num_few_shot_examples", "num_passes", "pass_depth"),
        *("permutations", "rank_top_k", "seed", "shuffle_candidates", "strategy", "stride", "system_message"),
        *("use_alpha", "use_logits", "variable_passages", "window_size"),
    ]
    for methods, names in restricted.items():
        found = [name for name, row in OPTIONS.items() if f"{methods} only" in row.scope.split("; ")]
        assert sorted(found) == names
    local = {"base_model", "batch_size", "batch_tokens", "dtype", "num_gpus", "trust_remote_code"}
    assert {name for name, row in OPTIONS.items() if "not with --engine openai" in row.scope} == local


# The card and the fingerprint.


def settings(model, asked):
    """The settings of a run with these options, and the card that they make."""
    card = resolve_card(str(model), asked, folder=None, score_head=False).card
    return run_settings(str(model), asked, card=card, requests="3 queries")


WITHOUT = {
    "engine": RerankOptions(),
    "base_url": RerankOptions(engine="openai", base_url="http://other:1/v1"),
    "few_shot_file": RerankOptions(few_shot_file="copy.json", num_few_shot_examples=1),
    "num_few_shot_examples": RerankOptions(few_shot_file="shots.json", num_few_shot_examples=2),
}
"""What an option is compared with, where its default is no answer."""


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "api_key"])
def test_the_fingerprint_holds_an_option_as_its_row_says(folder, name):
    """Its own value, the card, what is loaded or found in a file, or nothing at all."""
    effect, flag = OPTIONS[name].option.effect, SET[name].words.split()[0].replace("--no-", "--")
    asked, without = options(name), WITHOUT.get(name)
    without = without or replace(asked, **{name: OPTIONS[name].default})
    changed = changed_names(settings("m", without), settings("m", asked))
    if effect == "option":
        assert flag in changed
    elif effect == "card":
        assert changed
        assert all(setting.startswith("card ") for setting in changed)
    else:
        assert changed == (["model"] if name == "base_url" else [])


def test_an_adapters_base_counts_by_its_files(folder):
    """A copy of the base is the same base."""
    for base, text in (("b", "{}"), ("copy", "{}"), ("other", '{"layers": 2}')):
        Path(base).mkdir()
        Path(base, "config.json").write_text(text, encoding="utf-8")
    Path("m/adapter_config.json").write_text('{"base_model_name_or_path": "b"}', encoding="utf-8")
    known = settings("m", RerankOptions())
    assert changed_names(known, settings("m", RerankOptions(base_model="copy"))) == []
    assert changed_names(known, settings("m", RerankOptions(base_model="other"))) == ["base model"]


def test_what_counts_by_contents_and_not_at_all():
    """By hand; the card's options are counted above."""
    by_effect = {}
    for name, row in OPTIONS.items():
        by_effect.setdefault(row.option.effect, set()).add(name)
    assert by_effect["none"] == {"api_key", "timeout_s", "concurrency"}
    assert by_effect["loaded"] == {"dtype", "device"}
    assert by_effect["content"] == {"base_url", "base_model", "few_shot_file"}
    assert by_effect["card"] == {name for name, row in OPTIONS.items() if row.option.card}
    assert {row.option.card for row in OPTIONS.values()} - {None} == {
        "kind",
        "template",
        "identifiers",
        "answer",
        "context_tokens",
        "max_passage_words",
        "window_size",
        "stride",
        "query_tokens",
        "passage_tokens",
        "identifier_prior",
        "fuse_weight",
    }


# Help.


def sections(text):
    """Heading -> its lines, of a help text."""
    found, lines = {}, []
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][^\n]*:", line):
            lines = found.setdefault(line.removesuffix(":"), [])
        lines.append(line)
    return {heading: "\n".join(below) for heading, below in found.items()}


@pytest.fixture(scope="module")
def shown():
    """The help text of `rerank`, by its headings."""
    return sections(CliRunner().invoke(command, ["--help"], terminal_width=10_000).output)


def test_help_has_the_groups_in_their_order(shown):
    """And `--help` behind them."""
    assert list(shown) == [*GROUPS, "Other"]


@pytest.mark.parametrize("name", [name for name in SET if name != "with_trace"])
def test_help_shows_an_option_in_its_group(shown, name):
    """With its text, and nowhere else."""
    row, flag = ROWS[name], SET[name].words.split()[0].replace("--no-variable", "--variable")
    (line,) = [line for text in shown.values() for line in text.splitlines() if re.match(rf"  {flag}[ ,]", line)]
    section = shown[row.option.group]
    assert line in section.splitlines()
    assert row.help in " ".join(section.split())
    assert re.fullmatch(r"[A-Z].+\.", row.help, flags=re.DOTALL), row.help


def test_a_row_without_a_text_is_noticed():
    """What the tests above rely on: a new field must be explained."""

    @dataclass(frozen=True, kw_only=True)
    class Plain:
        n: int = option(1, "--n", group="Input", least=1)

    with pytest.raises(KeyError):
        _ = rows_of(Plain)["n"].help


def test_a_model_is_required():
    """Of all the options, it alone."""
    assert [name for name, row in ROWS.items() if row.default is MISSING] == ["model_path"]
    with pytest.raises(click.MissingParameter, match="model_path"):
        parsed("--requests", "r")
    assert rows_of(ModelArguments)["model_path"].spelled == "--model-path"


def test_secrets_are_not_shown():
    """A password in an address, and the key."""
    made = RerankOptions(engine="openai", base_url="http://me:secret@h/v1", api_key="sk-1")
    assert "secret" not in repr(made)
    assert "sk-1" not in repr(made)
