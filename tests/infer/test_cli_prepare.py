"""`rankllm-infer prepare`: what it writes, what it says, and that nothing is left behind where it fails."""

import gzip
import json

import pytest
from click.testing import CliRunner

from rankllm_core.errors import DataError, RankLLMError
from rankllm_infer.cli import cli

RUN = "q1 Q0 d1 1 9.5 t\nq1 Q0 d2 2 8.5 t\nq1 Q0 q1 3 7.5 t\nq2 Q0 d2 1 3.0 t\n"
QUERIES = "q1\twhat is aml\nq2\twho is it\n"
CORPUS = (
    '{"docid": "d1", "title": "T", "text": "x"}\n{"docid": "d2", "text": "y"}\n{"docid": "q1", "text": "the query"}\n'
)
ROW_D1 = {"docid": "d1", "title": "T", "text": "x", "score": 9.5, "query_id": "q1", "query": "what is aml"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a run, its queries and its corpus, which is the current one."""
    for name, text in (("run.trec", RUN), ("queries.tsv", QUERIES), ("corpus.jsonl", CORPUS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(*more, output="out.jsonl"):
    """Run the command over the three files."""
    files = ["--query-data-name", "queries.tsv", "--corpus-data-name", "corpus.jsonl", "--output-path", output]
    args = ["prepare", "--retrieval-results", "run.trec", *files, *more]
    return CliRunner().invoke(cli, args, standalone_mode=False)


def names(folder):
    """What lies in the folder beside the three inputs, hidden files as well."""
    return sorted({path.name for path in folder.iterdir()} - {"run.trec", "queries.tsv", "corpus.jsonl"})


def test_rerank_input_is_written_and_standard_output_stays_empty(folder):
    """Rows go to the file, the report and the file's name to standard error."""
    result = prepare()
    assert result.exception is None
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ROW_D1
    assert [(row["query_id"], row["docid"]) for row in rows] == [("q1", "d1"), ("q1", "d2"), ("q1", "q1"), ("q2", "d2")]
    assert result.stdout == ""
    assert result.stderr == "prepared 2 queries with 4 candidates\nWrote out.jsonl (rerank-input)\n"


def test_the_originals_spelling_and_their_cache_option_are_taken(folder):
    """A command of the original repository works as pasted; the option without effect costs one warning."""
    args = ["prepare", "--retrieval_results", "run.trec", "--query_data_name", "queries.tsv", "--query_data_split"]
    args += ["dev", "--corpus_data_name", "corpus.jsonl", "--output_path", "out.jsonl", "--depth", "1"]
    result = CliRunner().invoke(cli, [*args, "--cache_dir", "cache"], standalone_mode=False)
    assert result.exception is None
    assert len((folder / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert result.stderr.splitlines()[0] == "Warning: --cache-dir has no effect in rankllm and is ignored"
    assert result.stderr.count("Warning") == 1


def test_requests_format_depth_and_queries_without_themselves(folder):
    """--format, --depth, --max-queries and --remove-query reach the join; a .gz name is compressed."""
    options = ["--format", "requests", "--depth", "2", "--max_queries", "1", "--remove_query"]
    result = prepare(*options, output="deep/out.jsonl.gz")
    assert result.exception is None
    with gzip.open(folder / "deep" / "out.jsonl.gz", "rt", encoding="utf-8") as stream:
        (record,) = [json.loads(line) for line in stream]
    assert record["query"] == {"text": "what is aml", "qid": "q1"}
    assert [candidate["docid"] for candidate in record["candidates"]] == ["d1", "d2"]
    assert "dropped 1 candidate whose docid equals the qid" in result.stderr


def test_losses_are_told_and_strict_makes_them_errors(folder):
    """A docid without a text is left out with a line that names it; --strict refuses, and --no-strict does not."""
    (folder / "corpus.jsonl").write_text('{"docid": "d1", "text": "x"}\n', encoding="utf-8")
    result = prepare("--no-strict")
    assert "'d2'" in result.stderr
    strict = prepare("--strict", output="strict.jsonl")
    assert isinstance(strict.exception, RankLLMError)
    assert "--strict" in str(strict.exception)
    assert names(folder) == ["out.jsonl"]


def test_an_existing_output_is_kept_unless_it_may_be_replaced(folder):
    """The error names --overwrite; with it the file is new."""
    (folder / "out.jsonl").write_text("mine", encoding="utf-8")
    refused = prepare()
    assert str(refused.exception) == "out.jsonl: already exists; use --overwrite to replace it, or another name"
    assert (folder / "out.jsonl").read_text(encoding="utf-8") == "mine"
    assert prepare("--overwrite").exception is None
    assert "mine" not in (folder / "out.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["run.trec", "queries.tsv", "corpus.jsonl"])
def test_an_input_is_never_the_output(folder, name):
    """--overwrite does not let the output take the place of what it is made from."""
    before = (folder / name).read_bytes()
    result = prepare("--overwrite", output=f"./{name}")
    assert str(result.exception) == f"{name}: is both input and output; write to another file"
    assert (folder / name).read_bytes() == before


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (".", "expected an output file, found a folder"),
        ("run.trec/out.jsonl", "is not a folder"),
        ("out.jsonl.xz", "writing .xz is not supported"),
        ("/dev/null", "expected an output file, found a device or a pipe"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(folder, output, says):
    """The name is looked at before anything is read: the corpus, which is broken, is not complained of."""
    (folder / "corpus.jsonl").write_text("{", encoding="utf-8")
    result = prepare("--overwrite", output=output)
    assert isinstance(result.exception, RankLLMError)
    assert says in str(result.exception)
    assert "corpus" not in str(result.exception)


def test_nothing_is_left_behind_where_an_input_is_broken(folder):
    """A bad line is named with its number; no output, whole or partial, appears."""
    (folder / "corpus.jsonl").write_text(CORPUS + "{oops\n", encoding="utf-8")
    result = prepare()
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith("corpus.jsonl:4: not JSON")
    assert names(folder) == []


def test_a_configuration_is_for_data_sets(folder):
    """A local file has no configuration: giving one is an error, not a silence."""
    result = prepare("--query_data_config", "en")
    assert str(result.exception) == (
        "--query-data-config en: queries.tsv is a local path, which has no configurations; leave the option out"
    )
    result = prepare("--corpus-data-config", "en", "--corpus-data-name", "some/set:de")
    assert "a name that already includes a configuration" in str(result.exception)
