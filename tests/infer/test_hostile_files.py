"""Files that are not what they are taken for: each command ends with one line and status 1, or reads them."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from rankllm_core.data.collections import lines_of_docid, read_corpus, read_queries
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.trec.qrels import read_qrels
from rankllm_core.trec.runs import read_run
from rankllm_infer.cli import cli
from rankllm_infer.report.ranked_files import read_ranked
from rankllm_infer.report.traces import read_traces
from rankllm_infer.retrieval.bm25_cache import open_index
from rankllm_infer.retrieval.dataset_retrieval import stored_qrels
from rankllm_infer.retrieval.retrieval_data import find_dataset

RUN = "q1 Q0 d1 1 9.5 t\nq1 Q0 d2 2 8.5 t\n"
REQUEST = {
    "query": {"text": "what is aml", "qid": "q1"},
    "candidates": [{"docid": docid, "score": 1.0, "doc": {"text": "x"}} for docid in ("d1", "d2")],
}
CALL = {
    **{"start": 0, "docids": ["a", "b"], "order": [1, 0], "prompt": "p", "response": "[2] > [1]", "scores": [1.0, 2.0]},
    **{"status": "ok", "defects": [], "input_token_count": 3, "output_token_count": 2},
}
FILES = {
    "a.run": RUN,
    "qrels": "q1 0 d1 1\n",
    "queries.tsv": "q1\tcats\n",
    "corpus.jsonl": '{"docid": "d1", "text": "cats"}\n{"docid": "d2", "text": "dogs"}\n',
    "requests.jsonl": json.dumps(REQUEST) + "\n",
}
COMMANDS = {
    "evaluate run": (["evaluate", "--qrels", "qrels", "a.run"], "a.run"),
    "evaluate qrels": (["evaluate", "--qrels", "qrels", "a.run"], "qrels"),
    "convert": (["convert", "--input", "a.run", "--output", "out", "--to", "tsv"], "a.run"),
    "convert requests": (["convert", "--input", "requests.jsonl", "--output", "out", "--to", "trec"], "requests.jsonl"),
    "prepare run": ("run", "a.run"),
    "prepare queries": ("run", "queries.tsv"),
    "prepare corpus": ("run", "corpus.jsonl"),
    "retrieve queries": ("retrieve", "queries.tsv"),
    "retrieve corpus": ("retrieve", "corpus.jsonl"),
    "report": (
        ["report", "requests.jsonl", "--baseline", "a.run", "--qrels", "qrels", "--output", "out"],
        "requests.jsonl",
    ),
}
LINES = {
    "run": [
        *["prepare", "--retrieval-results", "a.run", "--query-data-name", "queries.tsv"],
        *["--corpus-data-name", "corpus.jsonl", "--output-path", "out"],
    ],
    "retrieve": [
        *["retrieve", "--corpus", "corpus.jsonl", "--queries", "queries.tsv", "--output", "out"],
        *["--index-dir", "index"],
    ],
}
DAMAGE = {
    "cut archive": lambda text: gzip.compress(text.encode() * 50)[:-9],
    "archive with more behind": lambda text: bz2.compress(text.encode()) + b"more",
    "flipped archive": lambda text: lzma.compress(text.encode())[:-20] + b"\x00" * 20,
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "zstd": lambda text: b"\x28\xb5\x2f\xfd" + text.encode(),
    "zip": lambda text: b"PK\x03\x04" + text.encode(),
    "Latin-1": lambda text: (text + "gr\u00f6\u00dfe\n").encode("latin-1"),
    "NUL": lambda text: text.encode() + b"\x00\n",
    "nothing but brackets": lambda text: b"[" * 100_000,
}
PACKED = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one good file of each kind, which is the current one."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command):
    """Run a command of COMMANDS."""
    arguments, _ = COMMANDS[command]
    return CliRunner().invoke(cli, LINES.get(arguments, arguments) if isinstance(arguments, str) else arguments)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(folder, command, damage):
    """And nothing is written."""
    name = COMMANDS[command][1]
    (folder / name).write_bytes(DAMAGE[damage](FILES[name]))
    done = run(command)
    assert isinstance(done.exception, RankLLMError), done.exception
    assert str(done.exception).startswith(name)
    assert "\n" not in str(done.exception)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("pack", PACKED)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_packed_file_is_read_under_any_name(folder, command, pack):
    """The name says nothing of it."""
    plain = run(command)
    out = (folder / "out").read_bytes() if (folder / "out").exists() else None
    (folder / "out").unlink(missing_ok=True)
    name = COMMANDS[command][1]
    (folder / name).write_bytes(PACKED[pack](FILES[name].encode()))
    packed = run(command)
    assert (packed.exit_code, plain.exit_code) == (0, 0), packed.output
    if "retrieve" not in command:  # which says that the corpus has changed
        assert packed.output == plain.output
    assert ((folder / "out").read_bytes() if out is not None else None) == out


@pytest.mark.parametrize("where", ["query", "docid", "title"])
def test_half_a_character_never_reaches_c_code(folder, where):
    """pytrec_eval ends in a segmentation fault. In a text it does no harm."""
    request = json.loads(json.dumps(REQUEST))
    if where == "query":
        request["query"]["qid"] = "q\ud800"
    elif where == "docid":
        request["candidates"][1]["docid"] = "d\ud800"
    else:
        request["candidates"][1]["doc"]["title"] = request["query"]["text"] = "t\udfff"
    (folder / "requests.jsonl").write_text(json.dumps(request) + "\n", encoding="ascii")
    program = "from rankllm_infer.cli import main; main()"
    report = ["report", "requests.jsonl", "--baseline", "a.run", "--qrels", "qrels", "--output", "page.html"]
    done = subprocess.run([sys.executable, "-c", program, *report], capture_output=True, text=True, check=False)
    if where == "title":
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("Error: requests.jsonl:1: ")
        assert "a lone surrogate" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("letter", ["\ufeff", "\u200b", "\u2060", "\x01"])
def test_ids_that_only_look_alike_are_refused_with_the_line(folder, letter):
    """In judgements, queries and corpora."""
    odd = f"x{letter}1"

    def corpus(path):
        return list(read_corpus(path))

    for name, text, read in [
        ("qrels", f"q1 0 d1 1\nq1 0 {odd} 1\n", read_qrels),
        ("qrels", f"q1 0 d1 1\n{odd} 0 d1 1\n", read_qrels),
        ("q.tsv", f"q1\ta\n{odd}\tb\n", read_queries),
        ("c.tsv", f"d1\ta\n{odd}\tb\n", corpus),
        ("c.jsonl", f'{{"_id": "d", "text": ""}}\n{{"_id": {json.dumps(odd)}, "text": ""}}\n', corpus),
    ]:
        (folder / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=rf"{name}:2: .*U\+{ord(letter):04X}"):
            read(folder / name)


def test_marks_of_joined_files_are_dropped(folder):
    """`cat` of files that an editor has marked: the ids are those of the files."""
    mark = "\ufeff"
    for name, text in FILES.items():
        (folder / name).write_text("".join(mark + line for line in text.splitlines(keepends=True)), encoding="utf-8")
    assert read_qrels(folder / "qrels") == {"q1": {"d1": 1}}
    assert read_queries(folder / "queries.tsv") == {"q1": "cats"}
    assert [docid for docid, _ in read_corpus(folder / "corpus.jsonl")] == ["d1", "d2"]
    assert list(read_ranked(folder / "a.run").run) == list(read_ranked(folder / "requests.jsonl").run) == ["q1"]


@pytest.mark.parametrize(("line", "hint"), [('{"query": 1}', "looks like JSON"), ("<top> x", "looks like TREC or XML")])
def test_other_files_given_for_a_run_are_told(folder, line, hint):
    """The first line says what they are."""
    (folder / "b.run").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"b\.run:1: expected 6 .*found 2: .*\({hint}"):
        read_run(folder / "b.run")


def test_top1000_given_for_a_run_is_told(folder):
    """It has texts in place of ranks."""
    (folder / "a.run").write_text("1\t7\twhat is aml\tA passage about it.\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"a\.run:1: expected 6 .*looks like a top1000 file of MS MARCO \(qid, pid, query"
    ):
        read_ranked(folder / "a.run")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"docid": "d", "text": ["x"]}, "docid 'd': passage: text: expected text, found list"),
        ({"docid": "d", "text": {"x": 1}}, "docid 'd': passage: text: expected text, found dict"),
        ({"docid": "d", "title": ["x"], "text": "x"}, "docid 'd': passage: title: expected text, found list"),
        ({"docid": ["d"], "text": "x"}, "docid: expected a non-empty string or an integer, found an array"),
    ],
)
def test_a_passage_that_is_no_text_is_found_where_it_stands(folder, record, message):
    """Before a model is loaded."""
    (folder / "corpus.jsonl").write_text('{"docid": "a", "text": "x"}\n' + json.dumps(record), encoding="utf-8")
    for command in ("prepare corpus", "retrieve corpus"):
        assert str(run(command).exception) == f"corpus.jsonl:2: {message}"


def test_a_candidate_that_is_no_text_is_found_where_it_stands(folder):
    """Other fields may be anything."""
    for doc, problem in [
        ({"text": ["x"]}, "passage: text: expected text, found list"),
        ({"title": {}, "text": "x"}, "passage: title: expected text, found dict"),
        ({"text": "x", "passage": ["y"], "tags": ["z"]}, None),
        ({"tags": ["z"]}, None),
    ]:
        request = REQUEST | {"candidates": [{"docid": "d1", "score": 1.0, "doc": doc}]}
        (folder / "requests.jsonl").write_text(json.dumps(request), encoding="utf-8")
        error = run("convert requests").exception
        where = "requests.jsonl:1: query 'q1', candidate 1: docid 'd1': "
        assert error is None if problem is None else str(error) == where + problem
        (folder / "out").unlink(missing_ok=True)


def test_a_repeated_docid_is_told_with_both_lines(folder):
    """For an index each docid is one document; for a join the same text twice is harmless."""
    path = folder / "corpus.jsonl"
    path.write_text(FILES["corpus.jsonl"] + '\n{"docid": "d1", "text": "other"}\n', encoding="utf-8")
    assert lines_of_docid(path, "d1") == [1, 4]
    with pytest.raises(DataError, match=r"corpus\.jsonl:4: docid 'd1' occurs twice \(first on line 1\)"):
        open_index(path, folder=folder / "index")
    assert "corpus.jsonl: docid 'd1' occurs twice, with different contents (lines 1, 4)" in str(
        run("prepare run").exception
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [10**400, 1.0]}, "scores: expected finite numbers or null"),
        ({"scores": [float("nan"), 1.0]}, "scores: expected finite numbers or null"),
        ({"scores": ["x"]}, "scores: expected finite numbers or null"),
        ({"input_token_count": 10**300}, "input_token_count: expected a whole number from 0"),
        ({"start": -1}, "start: expected a whole number from 0, found -1"),
        ({"status": ["ok"]}, "status: expected one of ok"),
        ({"docids": ["a", "b\ud800"]}, "a lone surrogate"),
    ],
)
def test_a_trace_of_odd_values_is_one_line(folder, changes, message):
    """Numbers without end and values of another kind."""
    record = {"query": {"qid": "q1", "text": "x"}, "invocations_history": [CALL | changes]}
    (folder / "a.trace").write_text(json.dumps(record) + "\n", encoding="ascii")
    with pytest.raises(DataError, match=r"a\.trace:1: ") as caught:
        read_traces(folder / "a.trace", prompt_characters=10)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        *[b"[1]", b"{", b'{"q": 1}', b'{"q": {"d": null}}', b'{"q": {"d": 1e999}}', b'{"q": {"d": 100000}}', b"\xff"],
        *[b"[" * 5000, b'{"q\\ud800": {"d": 1}}', b'{"q": {"d\\u0000": 1}}', gzip.compress(b"{}", mtime=0)[:-3]],
    ],
)
def test_stored_judgements_of_another_kind_are_one_line(folder, data):
    """Of rank_llm's folder."""
    (folder / "qrels").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels" / "qrels_nfc.json").write_bytes(data)
    with pytest.raises(DataError, match="expected an object of query -> docid -> grade"):
        stored_qrels(find_dataset("nfc"), folder / "retrieve_results")


@pytest.mark.parametrize("name", [b"\xff\xfe.run", b"a\x1b[31m.run", b"a\nb.run", b"x" * 300])
def test_odd_file_names_are_printed_in_one_line(folder, name):
    """Not UTF-8, an escape sequence, a line end, too long; for a file that is there and for one that is not."""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", "from rankllm_infer.cli import main; main()", "evaluate", "--qrels", "qrels", name]
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"\x1b" not in done.stderr
    assert done.stderr.startswith(b"Error: ")
    if len(name) < 255:
        (folder / os.fsdecode(name)).write_text(RUN, encoding="utf-8")
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"1.0000" in done.stdout


def test_an_end_of_file_in_a_library_is_not_taken_for_ctrl_c(rankllm, monkeypatch):
    """click turns EOFError into Abort; `Stopped.` and status 130 would hide it."""
    from rankllm_infer.cli import evaluate

    def torn(*given, **more):
        raise EOFError("torn")

    monkeypatch.setattr(evaluate.command, "callback", torn)
    with pytest.raises(EOFError, match="torn"):
        rankllm("evaluate", "--qrels", "x", "y")
