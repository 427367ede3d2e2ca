"""`rankllm-infer convert`: layouts in and out, and what is said about them."""

import json

import pytest
from click.testing import CliRunner

from rankllm_core.errors import ConfigError, DataError
from rankllm_infer.cli import cli

RUN = "q1 Q0 d1 1 9.5 t\nq1 Q0 d2 2 8.5 t\nq2 Q0 d2 1 3.0 t\n"
ROWS = [
    {"docid": "d1", "title": "T", "text": "x", "score": 9.5, "query_id": "q1", "query": "what is aml"},
    {"docid": "d2", "text": "y", "score": 8.5, "query_id": "q1", "query": "what is aml"},
    {"docid": "q2", "text": "z", "score": 3.0, "query_id": "q2", "query": "who is it"},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a run and a rerank-input file, which is the current one."""
    (tmp_path / "run.trec").write_text(RUN, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(source, target, to, *more):
    """Run the command."""
    args = ["convert", "--input", source, "--output", target, "--to", to, *more]
    return CliRunner().invoke(cli, args, standalone_mode=False)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("trec", "q1 Q0 d1 1 9.5 rankllm\nq1 Q0 d2 2 8.5 rankllm\nq2 Q0 q2 1 3.0 rankllm\n"),
        ("tsv", "q1\td1\t9.5\nq1\td2\t8.5\nq2\tq2\t3.0\n"),
        ("msmarco", "q1\td1\t1\nq1\td2\t2\nq2\tq2\t1\n"),
    ],
)
def test_rerank_input_becomes_each_kind_of_run(folder, to, expected):
    """The file holds the run, standard output nothing, standard error what was done."""
    result = convert("rows.jsonl", "out", to)
    assert result.exception is None
    assert [line.split() for line in (folder / "out").read_text(encoding="utf-8").splitlines()] == [
        line.split() for line in expected.splitlines()
    ]
    assert result.stdout == ""
    assert result.stderr == f"converted 2 queries with 3 candidates\nWrote out ({to})\n"


@pytest.mark.parametrize("spelling", ["rerank-input", "rerank_input"])
def test_the_name_of_a_layout_may_be_spelled_with_an_underscore(folder, spelling):
    """Both spellings name the layout, as the target and as the source."""
    requests = convert("rows.jsonl", "requests.jsonl", "requests", "--from", spelling)
    assert requests.exception is None
    back = convert("requests.jsonl", "back.jsonl", spelling)
    assert back.exception is None
    assert back.stderr.splitlines()[-1] == "Wrote back.jsonl (rerank-input)"
    assert [json.loads(line) for line in (folder / "back.jsonl").read_text(encoding="utf-8").splitlines()] == ROWS


def test_a_run_is_joined_with_its_texts(folder):
    """--queries and --corpus give the texts; what the join lost is told as `prepare` tells it."""
    (folder / "queries.tsv").write_text("q1\twhat is aml\n", encoding="utf-8")
    (folder / "corpus.tsv").write_text("d1\tx\nd2\ty\n", encoding="utf-8")
    options = ["--queries", "queries.tsv", "--corpus", "corpus.tsv"]
    result = convert("run.trec", "out.jsonl", "requests", *options)
    assert result.exception is None
    (record,) = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [candidate["docid"] for candidate in record["candidates"]] == ["d1", "d2"]
    assert "dropped 1 query of the run without text ('q2')" in result.stderr
    refused = convert("run.trec", "other.jsonl", "requests")
    assert isinstance(refused.exception, ConfigError)
    assert not (folder / "other.jsonl").exists()


def test_what_is_more_than_a_copy_is_told(folder):
    """Sorting, scores of our own, removed candidates and emptied queries each have a line that names the queries."""
    (folder / "run.trec").write_text("q1 Q0 d1 1 1.0 t\nq1 Q0 d2 2 2.0 t\n", encoding="utf-8")
    result = convert("run.trec", "a.tsv", "tsv")
    assert "sorted 1 query whose lines were not in score order ('q1')" in result.stderr

    rows = [row | {"score": 1.0} for row in ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = convert("rows.jsonl", "b.trec", "trec", "--remove_query", "--tag", "mine")
    assert "set the scores of 1 query to n - rank + 1" in result.stderr
    assert "dropped 1 candidate whose docid equals the qid" in result.stderr
    assert "without candidates: 1 query ('q2'), omitted from the output" in result.stderr
    assert [line.split()[4:] for line in (folder / "b.trec").read_text(encoding="utf-8").splitlines()] == [
        ["2.0", "mine"],
        ["1.0", "mine"],
    ]
    ranks = convert("rows.jsonl", "c.tsv", "msmarco")
    assert "n - rank" not in ranks.stderr


def test_a_tag_goes_with_trec_alone(folder):
    """An option that would have no effect is a usage error."""
    result = convert("rows.jsonl", "out.tsv", "tsv", "--tag", "mine")
    assert "--tag is a column of TREC runs" in str(result.exception)
    assert not (folder / "out.tsv").exists()


def test_outputs_are_not_replaced_by_accident(folder):
    """Neither an existing file without --overwrite nor the input with it."""
    assert "use --overwrite" in str(convert("rows.jsonl", "run.trec", "trec").exception)
    assert "is both input and output" in str(convert("rows.jsonl", "rows.jsonl", "trec", "--overwrite").exception)
    assert (folder / "run.trec").read_text(encoding="utf-8") == RUN
    assert convert("rows.jsonl", "run.trec", "trec", "--overwrite").exception is None
    assert (folder / "run.trec").read_text(encoding="utf-8") != RUN


def test_nothing_is_left_behind_where_a_line_is_broken(folder):
    """The line is named, and no file appears, not even a hidden one."""
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"docid": 7}\n')
    result = convert("rows.jsonl", "out.trec", "trec")
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith("rows.jsonl:4: ")
    assert sorted(path.name for path in folder.iterdir()) == ["rows.jsonl", "run.trec"]


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("out.trec", "trec"),
        ("out.tsv.gz", "tsv"),
        ("OUT.TSV", "tsv"),
        ("run.msmarco", "msmarco"),
        ("run.marco", "msmarco"),
    ],
)
def test_the_name_of_the_output_tells_its_layout(folder, name, layout):
    """As in tevatron's convert_result_to_trec; --to says another one."""
    args = ["convert", "--input", "rows.jsonl", "--output", name]
    assert CliRunner().invoke(cli, args, standalone_mode=False).stderr.splitlines()[-1] == f"Wrote {name} ({layout})"
    again = CliRunner().invoke(cli, [*args, "--to", "requests", "--overwrite"], standalone_mode=False)
    assert again.stderr.splitlines()[-1] == f"Wrote {name} (requests)"


@pytest.mark.parametrize("name", ["out.txt", "out.jsonl", "out"])
def test_a_name_that_tells_no_layout_needs_to(folder, name):
    """It may be several; nothing is guessed."""
    done = CliRunner().invoke(cli, ["convert", "--input", "run.trec", "--output", name])
    assert done.exit_code == 2
    assert (
        f"{name}: the format is not clear from the name (as it is for .trec, .tsv, .msmarco, .marco); add --to"
        in done.stderr
    )
    assert not (folder / name).exists()
