"""Requests, results and rerank-input rows: what is accepted, what is rejected and where, what survives unchanged."""

import gzip
import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankllm_core.data.records import (
    parse_request,
    read_requests,
    read_rerank_input,
    request_to_dict,
    result_to_dict,
    write_requests,
    write_rerank_input,
)
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.types import Candidate, Query, Request, Result, Usage, WindowTrace

NEW_LINE = (
    '{"query": {"text": "what is aml", "qid": "q1"}, '
    '"candidates": [{"docid": "d1", "score": 1.5, "doc": {"text": "x"}}]}'
)
OLD_LINE = '{"query": "what is aml", "hits": [{"content": "x", "qid": 7, "docid": 12, "rank": 1, "score": 2}]}'


def request(qid="q1", text="what is aml", docs=None):
    docs = {"d1": {"title": "T", "text": "x"}, "d2": {"title": "", "text": "y"}} if docs is None else docs
    scores = [9.5, 4.25, -1e-9, 0.1]
    candidates = [Candidate(docid=d, score=s, doc=doc) for (d, doc), s in zip(docs.items(), scores, strict=False)]
    return Request(query=Query(qid=qid, text=text), candidates=tuple(candidates))


def written(tmp_path, *lines, name="r.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refusal(read, path):
    """The error message with paths relative to the folder."""
    with pytest.raises(DataError) as caught:
        list(read(path))
    return str(caught.value).removeprefix(str(path.parent) + "/")


def record(**changes):
    """A request line with one candidate and the given fields replaced."""
    candidate = {"docid": "d1", "score": 1.5, "doc": {"text": "x"}} | changes
    return json.dumps({"query": {"text": "t", "qid": "q1"}, "candidates": [candidate]})


# Reading requests


def test_the_layout_of_rank_llm_is_read(tmp_path):
    """Query, docid, score and doc are read unchanged."""
    (read,) = read_requests(written(tmp_path, NEW_LINE))
    candidate = Candidate(docid="d1", score=1.5, doc={"text": "x"})
    assert read == Request(query=Query(qid="q1", text="what is aml"), candidates=(candidate,))


def test_the_old_layout_is_recognised_record_by_record(tmp_path):
    """A file may mix both layouts; the old one's qid comes from its hits, and its content becomes the doc."""
    new, old = read_requests(written(tmp_path, NEW_LINE, OLD_LINE))
    assert new.query.qid == "q1"
    candidate = Candidate(docid="12", score=2.0, doc={"content": "x"})
    assert old == Request(query=Query(qid="7", text="what is aml"), candidates=(candidate,))


def test_a_json_file_holds_an_array_of_the_same_records(tmp_path):
    """Any array formatting is accepted."""
    records = [json.loads(NEW_LINE), json.loads(OLD_LINE)]
    for indent in (None, 1):
        path = written(tmp_path, json.dumps(records, indent=indent), name="r.json")
        assert [r.query.qid for r in read_requests(path)] == ["q1", "7"]


def test_a_json_file_may_also_hold_json_lines(tmp_path):
    """The content decides, so a misnamed file is accepted."""
    assert [r.query.qid for r in read_requests(written(tmp_path, NEW_LINE, OLD_LINE, name="r.json"))] == ["q1", "7"]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("name", ["r.jsonl", "r.json"])
def test_compressed_files_are_unpacked(tmp_path, name, suffix, pack):
    """`.gz` and `.xz` files behave like the file inside."""
    text = NEW_LINE if name == "r.jsonl" else f"[{NEW_LINE}]"
    path = tmp_path / (name + suffix)
    path.write_bytes(pack(text.encode()))
    assert [r.query.qid for r in read_requests(path)] == ["q1"]


def test_windows_line_ends_and_blank_lines_do_no_harm(tmp_path):
    """CRLF is accepted as a line ending."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(f"{NEW_LINE}\r\n\r\n{OLD_LINE}\r\n".encode())
    assert [r.query.qid for r in read_requests(path)] == ["q1", "7"]


def test_integer_ids_become_strings(tmp_path):
    """A qid or docid may be a JSON integer."""
    line = '{"query": {"text": "t", "qid": 3}, "candidates": [{"docid": -4, "score": 1, "doc": {}}]}'
    (read,) = read_requests(written(tmp_path, line))
    assert (read.query.qid, read.candidates[0].docid) == ("3", "-4")


def test_a_missing_score_is_zero_and_a_plain_doc_becomes_contents(tmp_path):
    """Lists written by hand have neither."""
    line = '{"query": {"text": "t", "qid": "q"}, "candidates": [{"docid": "d", "doc": "plain"}]}'
    (read,) = read_requests(written(tmp_path, line))
    assert read.candidates == (Candidate(docid="d", score=0.0, doc={"contents": "plain"}),)


def test_an_empty_list_of_candidates_is_a_request(tmp_path):
    """The reranker decides how to handle it."""
    (read,) = read_requests(written(tmp_path, '{"query": {"text": "t", "qid": "q"}, "candidates": []}'))
    assert read.candidates == ()


def test_unknown_keys_of_a_record_are_ignored(tmp_path):
    """rank_llm's own results contain an invocations_history."""
    line = NEW_LINE[:-1] + ', "invocations_history": [{"prompt": "p"}]}'
    assert list(read_requests(written(tmp_path, line))) == list(read_requests(written(tmp_path, NEW_LINE)))


def test_lone_surrogates_survive(tmp_path):
    """Half an emoji in a JSON escape survives reading, writing and reading again."""
    path = written(tmp_path, record(doc={"text": "\ud83d half"}))
    read = list(read_requests(path))
    assert read[0].candidates[0].doc == {"text": "\ud83d half"}
    write_requests(tmp_path / "again.jsonl", read)
    assert list(read_requests(tmp_path / "again.jsonl")) == read


# Refusing requests


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[1]", "expected a JSON object, found list"),
        ('{"a": 1, "b": 2}', "request: expected the key 'query', found 'a', 'b'"),
        ('{"query": "t", "candidates": []}', "query: expected an object, found the string 't'"),
        ('{"query": {"text": "t"}, "candidates": []}', "query: expected the key 'qid', found 'text'"),
        ('{"query": {"qid": "q1"}, "candidates": []}', "query 'q1': expected the key 'text', found 'qid'"),
        ('{"query": {"qid": "q1", "text": null}, "candidates": []}', "query 'q1': text: expected a string, found null"),
        (
            '{"query": {"qid": 1.5, "text": "t"}, "candidates": []}',
            "query.qid: expected a non-empty string or an integer, found the number 1.5",
        ),
        (
            '{"query": {"qid": " ", "text": "t"}, "candidates": []}',
            "query.qid: expected a non-empty string or an integer, found the string ' '",
        ),
        ('{"query": {"qid": "q1", "text": "t"}}', "query 'q1': expected the key 'candidates', found 'query'"),
        (
            '{"query": {"qid": "q1", "text": "t"}, "candidates": {}}',
            "query 'q1': candidates: expected an array, found an object",
        ),
        (
            '{"query": {"qid": "q1", "text": "t"}, "candidates": ["p"]}',
            "query 'q1', candidate 1: candidate: expected an object, found the string 'p'",
        ),
        (
            '{"query": {"qid": "q1", "text": "t"}, "candidates": [{"doc": {}}]}',
            "query 'q1', candidate 1: candidate: expected the key 'docid', found 'doc'",
        ),
        (
            '{"query": {"qid": "q1", "text": "t"}, "candidates": [{"docid": true}]}',
            "query 'q1', candidate 1: docid: expected a non-empty string or an integer, found true",
        ),
        (
            '{"query": {"qid": "q1", "text": "t"}, "candidates": [{"docid": "d1", "score": 1}]}',
            "query 'q1', candidate 1: docid 'd1': candidate: expected the key 'doc', found 'docid', 'score'",
        ),
        (record(doc=None), "query 'q1', candidate 1: docid 'd1': doc: expected an object, found null"),
        (record(doc=["x"]), "query 'q1', candidate 1: docid 'd1': doc: expected an object, found an array"),
        (record(score=None), "query 'q1', candidate 1: docid 'd1': score: expected a finite number, found null"),
        (
            record(score="1"),
            "query 'q1', candidate 1: docid 'd1': score: expected a finite number, found the string '1'",
        ),
        (record(score=True), "query 'q1', candidate 1: docid 'd1': score: expected a finite number, found true"),
        (record(score=float("nan")), "query 'q1', candidate 1: docid 'd1': score: expected a finite number, found NaN"),
        (
            record(score=float("-inf")),
            "query 'q1', candidate 1: docid 'd1': score: expected a finite number, found an infinite number",
        ),
        (
            record(score=10**400),
            "query 'q1', candidate 1: docid 'd1': score: expected a finite number, "
            "found a number of more than 38 digits",
        ),
        (
            '{"query": {"qid": "q1", "text": "t"}, "candidates": '
            '[{"docid": "d1", "doc": {}}, {"docid": "d2", "doc": {}}, {"docid": "d1", "doc": {}}]}',
            "query 'q1': docid 'd1' occurs twice; list each candidate once",
        ),
        ('{"query": "t", "hits": []}', "query 't': expected at least one hit, which contains the qid, found none"),
        (
            '{"query": "t", "hits": [{"qid": 1, "docid": "d"}]}',
            "query 't', hit 1: hit: expected the key 'content', found 'qid', 'docid'",
        ),
        (
            '{"query": "t", "hits": ['
            '{"qid": 1, "docid": "d", "content": "x"}, {"qid": 2, "docid": "e", "content": "x"}]}',
            "query 't', hit 2: expected the qid '1' of the previous hits, found '2'",
        ),
        (
            '{"query": "t", "hits": [{"qid": 1, "docid": "d", "content": "x", "score": NaN}]}',
            "query 't', hit 1: docid 'd': score: expected a finite number, found NaN",
        ),
    ],
)
def test_an_unusable_record_is_refused_with_its_place(tmp_path, line, message):
    """The error gives file, line, what was found and what was expected."""
    path = written(tmp_path, '{"query": {"text": "fine", "qid": "q0"}, "candidates": []}', "", line)
    assert refusal(read_requests, path) == f"r.jsonl:3: {message}"


def test_a_query_that_comes_twice_is_refused_with_both_lines(tmp_path):
    """Two lists for one query are contradictory; 1 and "1" are the same ID."""
    line = '{"query": {"text": "t", "qid": %s}, "candidates": []}'
    path = written(tmp_path, line % '"1"', line % "2", line % "1")
    assert refusal(read_requests, path) == "r.jsonl:3: query '1' occurs again (first on line 1); list each query once"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n\n{"query": 1}\n]', "r.json:3: query: expected an object, found the number 1"),
        ("[\n1]", "r.json:2: array element: expected an object, found the number 1"),
        (f"[{NEW_LINE},\n {NEW_LINE}]", "r.json:2: query 'q1' occurs again (first on line 1); list each query once"),
        (f"[{NEW_LINE},\n", f"r.json:1: not JSON: Expecting value at column {len(NEW_LINE) + 3}"),
        (f"[{NEW_LINE}\n] x", "r.json:2: not JSON: expected nothing after the array"),
        (f"[{NEW_LINE}\n{OLD_LINE}]", "r.json:2: not JSON: expected ',' or ']' after this record"),
        ('[\n{"query": }]', "r.json:2: not JSON: Expecting value at column 11"),
    ],
)
def test_an_unusable_array_is_refused_with_the_line_of_the_record(tmp_path, text, message):
    """Lines are counted in arrays, too."""
    path = tmp_path / "r.json"
    path.write_text(text)
    assert refusal(read_requests, path) == message


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "1" * 5000 + "]"])
def test_json_that_python_gives_up_on_is_refused_too(tmp_path, text):
    """Very deep nesting and numbers with thousands of digits give an error, not a crash."""
    path = tmp_path / "r.json"
    path.write_text(text)
    assert refusal(read_requests, path).startswith("r.json:1: not usable: ")


def test_a_missing_file_is_named(tmp_path):
    """The error is one line."""
    with pytest.raises(RankLLMError, match=r"none\.jsonl: no such file"):
        list(read_requests(tmp_path / "none.jsonl"))


# Writing requests and results


def test_a_request_has_the_key_order_of_rank_llm():
    """The line is byte-identical to rank_llm's JSONL layout, written here by hand."""
    parsed = parse_request(json.loads(NEW_LINE))
    assert json.dumps(request_to_dict(parsed)) == NEW_LINE


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.jsonl.gz", "r.json.gz"])
def test_written_requests_read_back_equal(tmp_path, name):
    """Including an empty list."""
    for requests in ([], [request()], [request(), request("2", 'Größe\u2028"数', {}), request("3", "", {"d": {}})]):
        write_requests(tmp_path / name, requests)
        assert list(read_requests(tmp_path / name)) == requests


def test_a_json_name_is_written_as_an_array(tmp_path):
    """rank_llm decides by the file name: an array for `.json`, one object per line otherwise."""
    write_requests(tmp_path / "r.json", [request(), request("q2")])
    assert len(json.loads((tmp_path / "r.json").read_text())) == 2
    write_requests(tmp_path / "r.jsonl", [request(), request("q2")])
    assert [len(json.loads(line)) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == [2, 2]


RESULT = Result(
    query=Query(qid="q1", text="what is aml"),
    candidates=(
        Candidate(docid="d2", score=2.0, doc={"text": "y"}, model_score=-0.5),
        Candidate(docid="d1", score=1.0, doc={"text": "x"}),
    ),
    status="repaired",
    defects=("missing [2]",),
    usage=Usage(calls=1, rounds=1, prompt_tokens=20, completion_tokens=3),
    trace=(WindowTrace(start=0, docids=("d1", "d2"), prompt="p", response="[2]", order=(1, 0), status="repaired"),),
)
RESULT_LINE = (
    '{"query": {"text": "what is aml", "qid": "q1"}, "candidates": ['
    '{"docid": "d2", "score": 2.0, "doc": {"text": "y"}, "model_score": -0.5}, '
    '{"docid": "d1", "score": 1.0, "doc": {"text": "x"}, "model_score": null}], '
    '"status": "repaired", "defects": ["missing [2]"], '
    '"usage": {"calls": 1, "rounds": 1, "prompt_tokens": 20, "completion_tokens": 3}}'
)


def test_a_result_line_has_the_documented_layout():
    """Key by key, in order; the trace has its own file."""
    assert json.dumps(result_to_dict(RESULT)) == RESULT_LINE


def test_an_error_stands_in_a_result_line_only_when_there_is_one():
    """A failed query has its error."""
    failed = Result(query=Query(qid="q", text="t"), candidates=(), status="failed", error="timeout")
    assert list(result_to_dict(failed)) == ["query", "candidates", "status", "defects", "usage", "error"]
    assert result_to_dict(failed)["error"] == "timeout"


def test_a_results_file_is_a_requests_file(tmp_path):
    """Candidates are in the new order, without the old model's scores."""
    (read,) = read_requests(written(tmp_path, RESULT_LINE))
    assert read == Request(
        query=RESULT.query,
        candidates=(
            Candidate(docid="d2", score=2.0, doc={"text": "y"}),
            Candidate(docid="d1", score=1.0, doc={"text": "x"}),
        ),
    )


# Rerank input


def test_rerank_input_is_written_as_tevatron_writes_it(tmp_path):
    """The corpus record's keys, then score, query_id and query, with ASCII escapes."""
    docs = {"12": {"title": "Größe", "text": "x\ty", "url": "u"}}
    write_rerank_input(tmp_path / "r.jsonl", [request("q1", "what is 数?", docs)])
    assert (tmp_path / "r.jsonl").read_bytes() == (
        b'{"docid": "12", "title": "Gr\\u00f6\\u00dfe", "text": "x\\ty", "url": "u", '
        b'"score": 9.5, "query_id": "q1", "query": "what is \\u6570?"}\n'
    )


def test_rerank_input_rows_become_one_request_a_query(tmp_path):
    """Rows of a query are joined in file order, which need not follow the scores; ids may be integers."""
    rows = [
        '{"docid": "a", "title": "T", "text": "x", "score": 1.5, "query_id": 7, "query": "t"}',
        '{"docid": 5, "title": "", "text": "y", "score": 2, "query_id": "7", "query": "t"}',
        '{"query_id": "q2", "query": "u", "docid": "a", "text": "x"}',
    ]
    first, second = read_rerank_input(written(tmp_path, *rows))
    assert first.query == Query(qid="7", text="t")
    assert first.candidates == (
        Candidate(docid="a", score=1.5, doc={"title": "T", "text": "x"}),
        Candidate(docid="5", score=2.0, doc={"title": "", "text": "y"}),
    )
    assert second.query == Query(qid="q2", text="u")
    assert second.candidates == (Candidate(docid="a", score=0.0, doc={"text": "x"}),)


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_written_rerank_input_reads_back_equal(tmp_path, name):
    """Including lone surrogates."""
    requests = [request("q1", "Größe"), request("q2", "t\ud83d", {"d": {"text": "\udc00"}})]
    write_rerank_input(tmp_path / name, requests)
    assert list(read_rerank_input(tmp_path / name)) == requests


def test_a_docs_own_docid_gives_way_to_the_candidates(tmp_path):
    """A row has one docid, and runs and qrels use the candidate's."""
    write_rerank_input(tmp_path / "r.jsonl", [request(docs={"12": {"text": "x", "docid": 12, "score": "n/a"}})])
    row = '{"docid": "12", "text": "x", "score": 9.5, "query_id": "q1", "query": "what is aml"}\n'
    assert (tmp_path / "r.jsonl").read_text() == row


def row(**changes):
    """A rerank-input row with the given fields replaced."""
    return json.dumps({"docid": "d1", "title": "", "text": "x", "score": 1.0, "query_id": "q1", "query": "t"} | changes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row(), row(docid="d2"), row(query_id="q2"), row(docid="d3")],
            "r.jsonl:4: query 'q1' occurs again after its rows 1 to 2; group the rows by query",
        ),
        (
            [row(), row(docid="d2", query="u")],
            "r.jsonl:2: query 'q1' has a different text than on line 1",
        ),
        (
            [row(), row(docid="d2"), row()],
            "r.jsonl:3: query 'q1': docid 'd1' occurs again (first on line 1); list each candidate once",
        ),
        (
            [row(), row(docid="d2", score=None)],
            "r.jsonl:2: query 'q1', docid 'd2': score: expected a finite number, found null",
        ),
        (['{"docid": "d", "text": "x"}'], "r.jsonl:1: row: expected the key 'query_id', found 'docid', 'text'"),
        (
            ['{"query_id": "q", "docid": "d"}'],
            "r.jsonl:1: query 'q': expected the key 'query', found 'query_id', 'docid'",
        ),
        (
            ['{"query_id": "q", "query": "t"}'],
            "r.jsonl:1: query 'q', candidate: expected the key 'docid', found 'query_id', 'query'",
        ),
    ],
)
def test_unusable_rerank_input_is_refused_with_its_place(tmp_path, rows, message):
    """The error gives file and line."""
    assert refusal(read_rerank_input, written(tmp_path, *rows)) == message


def test_rerank_input_is_streamed(tmp_path):
    """The first query is returned before later lines are read."""
    requests = read_rerank_input(written(tmp_path, row(), row(query_id="q2"), "not JSON"))
    assert next(requests).query.qid == "q1"
    with pytest.raises(DataError, match=r"r\.jsonl:3: not JSON"):
        next(requests)


TEXTS = st.text(alphabet=st.characters(codec=None), max_size=20)
FILLERS = "\u115f\u1160\u3164\uffa0"  # letters without a shape, which no id may hold
IDS = st.text(alphabet=st.characters(categories=("L", "N"), exclude_characters=FILLERS), min_size=1, max_size=5)
REQUESTS = st.lists(
    st.builds(
        lambda qid, text, docs: Request(
            query=Query(qid=qid, text=text),
            candidates=tuple(Candidate(docid=d, score=s, doc={"title": t, "text": x}) for d, (s, t, x) in docs.items()),
        ),
        IDS,
        TEXTS,
        st.dictionaries(
            IDS, st.tuples(st.floats(allow_nan=False, allow_infinity=False), TEXTS, TEXTS), min_size=1, max_size=3
        ),
    ),
    max_size=3,
    unique_by=lambda r: r.query.qid,
)


@settings(max_examples=40, deadline=None)
@given(requests=REQUESTS)
def test_any_text_and_any_score_survive_every_file(tmp_path_factory, requests):
    """Surrogates, control characters, line separators and subnormal scores survive a round trip."""
    folder = tmp_path_factory.mktemp("records")
    for name in ("r.jsonl", "r.json"):
        write_requests(folder / name, requests)
        assert list(read_requests(folder / name)) == requests
    write_rerank_input(folder / "rows.jsonl", requests)
    assert list(read_rerank_input(folder / "rows.jsonl")) == requests
