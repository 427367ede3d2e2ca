"""Joining a run with queries and passages: what is kept, its order, and reports about the rest."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from shared_files import data

from rankllm_core.data.records import read_requests, read_rerank_input
from rankllm_core.errors import ConfigError, DataError, MissingPackageError, RankLLMError
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.formats.prepare import PrepareReport, build_requests, write_prepared

RUN = """\
q2 Q0 d3 1 2.5 t
q1 Q0 d1 1 0.5 t
q1 Q0 d2 2 3.0 t
q2 Q0 d1 2 9.0 t
q1 Q0 d3 3 3.0 t
"""
QUERIES = "q1\twhat is aml\nq2\twho is it\nq3\tnobody asked\n"
CORPUS = '{"docid": "d1", "title": "T", "text": "x"}\n{"docid": "d2", "text": "y"}\n{"docid": "d3", "text": "z"}\n'
D1, D2, D3 = {"title": "T", "text": "x"}, {"text": "y"}, {"text": "z"}


@pytest.fixture
def join(tmp_path):
    """Write the three files and join them."""

    def joined(*, run=RUN, queries=QUERIES, corpus=CORPUS, **options):
        paths = [tmp_path / name for name in ("run.txt", "queries.tsv", "corpus.jsonl")]
        for path, text in zip(paths, (run, queries, corpus), strict=True):
            path.write_text(text, encoding="utf-8")
        return build_requests(paths[0], queries=paths[1], corpus=paths[2], **options)

    return joined


def rankings(requests):
    """qid -> docids, in order."""
    return {request.query.qid: [candidate.docid for candidate in request.candidates] for request in requests}


def candidate(docid, score, doc):
    return Candidate(docid=docid, score=score, doc=doc)


# What is kept


def test_a_run_becomes_requests_with_texts_and_first_stage_scores(join):
    """Queries in run order, candidates by decreasing score; equal scores in file order."""
    requests, report = join()
    assert requests == [
        Request(
            query=Query(qid="q2", text="who is it"), candidates=(candidate("d1", 9.0, D1), candidate("d3", 2.5, D3))
        ),
        Request(
            query=Query(qid="q1", text="what is aml"),
            candidates=(candidate("d2", 3.0, D2), candidate("d3", 3.0, D3), candidate("d1", 0.5, D1)),
        ),
    ]
    assert report == PrepareReport(queries=2, candidates=5, qids_without_hits=("q3",))


def test_the_depth_cut_keeps_the_best_scores(join):
    """An unsorted run loses its lowest-scored candidates, not its last lines."""
    requests, report = join(depth=1)
    assert rankings(requests) == {"q2": ["d1"], "q1": ["d2"]}
    assert report.candidates == 2


@pytest.mark.parametrize(
    "run",
    [
        "q1\td2\t.3\nq1\td1\t4\n",
        "q1 d2 - 3\nq1 d1 - 4\n",
        "q1\td1\t1\nq1\td2\t2\n",
        "q1 Q0 d1 2 4 t\nq1 Q0 d2 1 3 t\n",
    ],
    ids=["3 columns", "4 columns", "msmarco ranks", "6 columns"],
)
def test_every_run_layout_gives_the_same_order(join, run):
    """Scores in three, four or six columns, or MS MARCO's ranks; the rank column of a TREC run is ignored."""
    requests, _ = join(run=run)
    assert rankings(requests) == {"q1": ["d1", "d2"]}


def test_max_queries_keeps_the_first_queries_of_the_run_that_have_a_text(join):
    """Queries beyond it are not reported, since omitting them was requested."""
    requests, report = join(run=f"q0 Q0 d1 1 1 t\n{RUN}", max_queries=1)
    assert rankings(requests) == {"q2": ["d1", "d3"]}
    assert report == PrepareReport(queries=1, candidates=2, unknown_qids=("q0",), qids_without_hits=("q3",))


def test_remove_query_leaves_out_the_candidate_that_is_the_query(join):
    """Before truncation to the depth, so that it is still reached (ArguAna's queries are documents of its corpus)."""
    run = "d1 Q0 d1 1 9 t\nd1 Q0 d2 2 8 t\nd1 Q0 d3 3 7 t\n"
    requests, report = join(run=run, queries="d1\tx\n", depth=2, remove_query=True)
    assert rankings(requests) == {"d1": ["d2", "d3"]}
    assert report == PrepareReport(queries=1, candidates=2, removed_queries=1)
    assert rankings(join(run=run, queries="d1\tx\n", depth=2)[0]) == {"d1": ["d1", "d2"]}


def test_progress_is_told_while_the_corpus_is_read(join):
    """Every ten thousand passages."""
    seen = []
    corpus = CORPUS + "".join(f'{{"docid": "e{n}", "text": "x"}}\n' for n in range(20_000))
    join(corpus=corpus, progress=seen.append)
    assert seen == [10_000, 20_000]


# What is left out, and what is said


def test_what_has_no_text_is_left_out_and_reported(join):
    """Unknown queries, missing passages, and queries left empty by them; truncation to the depth comes first."""
    run = RUN + "q9 Q0 d1 1 1 t\nq3 Q0 e1 1 2 t\nq1 Q0 e1 1 8 t\nq1 Q0 e2 1 7 t\n"
    requests, report = join(run=run, queries=QUERIES + "q4\tnothing\n", depth=4)
    assert rankings(requests) == {"q2": ["d1", "d3"], "q1": ["d2", "d3"]}
    assert report == PrepareReport(
        queries=2,
        candidates=4,
        unknown_qids=("q9",),
        qids_without_hits=("q4",),
        emptied_qids=("q3",),
        missing_docids=("e1", "e2"),
        missing_candidates=3,
    )
    assert report.lines() == [
        "prepared 2 queries with 4 candidates",
        "dropped 1 query of the run without text ('q9')",
        "dropped 1 query without results in the run ('q4')",
        "dropped 1 query without remaining candidates ('q3')",
        "dropped 3 candidates: 2 docids not in the corpus ('e1', 'e2')",
    ]


def test_a_report_names_the_first_few(join):
    """Thousands of ids would hide the important ones."""
    report = PrepareReport(queries=1, candidates=1, unknown_qids=tuple("abcdefg"), removed_queries=2)
    assert report.lines() == [
        "prepared 1 query with 1 candidate",
        "dropped 7 queries of the run without text ('a', 'b', 'c', 'd', 'e', ...)",
        "dropped 2 candidates whose docid equals the qid",
    ]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("q9 Q0 d1 1 1 t\n", r"queries\.tsv: lacks 1 of the run's 3 qids \('q9'\); add them, or omit --strict"),
        ("q1 Q0 e1 4 1 t\n", r"corpus\.jsonl: lacks 1 of the run's 4 docids \('e1'\); add them, or omit --strict"),
    ],
)
def test_strict_refuses_what_has_no_text(join, extra, message):
    """One line with the file and the first ids."""
    with pytest.raises(RankLLMError, match=message):
        join(run=RUN + extra, strict=True)


def test_strict_accepts_queries_without_hits(join):
    """A first stage may find nothing; the files are still complete."""
    assert join(strict=True)[1].qids_without_hits == ("q3",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"queries": "test1\tt\n"},
            r"queries\.tsv: contains none of the run's 2 qids \(the run has 'q2', 'q1'; this file has 'test1'\); use",
        ),
        (
            {"corpus": '{"docid": 1, "text": "x"}\n'},
            r"corpus\.jsonl: contains none of the run's 3 docids \(the run has 'd1', 'd3', 'd2'; this file has '1'\)",
        ),
        ({"corpus": ""}, r"corpus\.jsonl: contains none .* this file has none\)"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(join, changes, message):
    """Nothing can be joined: the ids of both sides show why."""
    with pytest.raises(RankLLMError, match=message):
        join(**changes)


def test_two_passages_under_one_docid_are_refused(join):
    """Choosing one would be a guess; an identical duplicate is harmless."""
    assert join(corpus=CORPUS + CORPUS)[1].candidates == 5
    with pytest.raises(RankLLMError, match=r"corpus\.jsonl: docid 'd2' occurs twice, with different contents"):
        join(corpus=CORPUS + '{"docid": "d2", "text": "other"}\n')


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"run": "q1 Q0 d1 1 nan t\n"}, r"run\.txt:1: "),
        ({"run": RUN + "q1 Q0 d1 9 0.1 t\n"}, r"run\.txt:6: "),
        ({"queries": "q1\ta\nq2 b\n"}, r"queries\.tsv:2: expected 2 tab-separated fields"),
        ({"corpus": CORPUS + "{}\n"}, r"corpus\.jsonl:4: passage: expected the key"),
    ],
)
def test_an_unusable_line_is_refused_with_its_place(join, changes, place):
    """In any of the three files."""
    with pytest.raises(DataError, match=place):
        join(**changes)


@pytest.mark.parametrize("options", [{"depth": 0}, {"max_queries": 0}])
def test_a_depth_or_number_of_queries_below_one_is_refused(join, options):
    """It would prepare nothing."""
    with pytest.raises(ConfigError, match="at least 1"):
        join(**options)


# Files and data sets


@pytest.mark.parametrize("name", ["no.tsv", "no.jsonl.gz", "./no", "some/deep/name"])
def test_a_path_that_does_not_exist_is_no_data_set(tmp_path, name):
    """A mistyped path is not looked up on the hub."""
    run = tmp_path / "run.txt"
    run.write_text(RUN)
    with pytest.raises(RankLLMError, match=f"^{name}: no such file$"):
        build_requests(run, queries=name, corpus="c")


def test_without_the_datasets_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    """The package is optional; None in sys.modules makes Python report that it cannot be imported."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    run = tmp_path / "run.txt"
    run.write_text(RUN)
    message = r"Some/queries: no such file, .* Install it with: uv add 'rankllm-infer\[datasets\]'"
    with pytest.raises(MissingPackageError, match=message):
        build_requests(run, queries="Some/queries", corpus="c")


def in_a_fresh_process(tmp_path, code):
    """Run Python without a network; the datasets library reads its settings once, at import."""
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("needs the package datasets")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    return done.stdout, done.stderr


def test_data_sets_are_joined_like_files(tmp_path):
    """A folder is also a dataset, read like one from the hub: integer ids, and the requested split."""
    for name, rows in {
        "q/train.jsonl": [{"query_id": 1, "query": "wrong split"}],
        "q/test.jsonl": [{"query_id": 1, "query": "t"}],
        "c/train.jsonl": [{"docid": 7, "title": "T", "text": "x"}, {"docid": 8, "title": "", "text": "y"}],
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.txt").write_text("1 Q0 8 1 1.5 t\n")
    code = """if True:
        from rankllm_infer.formats.prepare import build_requests, write_prepared
        requests, _ = build_requests("run.txt", queries="q", corpus="c", query_split="test")
        write_prepared("out.jsonl", requests, format="rerank-input")
        try:
            build_requests("run.txt", queries="q", corpus="c", query_split="dl19")
        except Exception as error:
            print(type(error).__name__, error)
        try:
            build_requests("run.txt", queries="Some/queries:config", corpus="c")
        except Exception as error:
            print(type(error).__name__, error)
    """
    stdout, stderr = in_a_fresh_process(tmp_path, code)
    split, unreachable = stdout.splitlines() or [stderr, ""]
    row = '{"docid": "8", "title": "", "text": "y", "score": 1.5, "query_id": "1", "query": "t"}\n'
    assert (tmp_path / "out.jsonl").read_text() == row
    assert split.startswith(
        "RankLLMError q: is a folder, and cannot be loaded as a dataset, split 'dl19': Unknown split"
    )
    assert unreachable.startswith(
        "RankLLMError Some/queries:config: no such file, and cannot be loaded as a dataset, split 'dev': Couldn't reach"
    )


def test_importing_the_module_imports_nothing_heavy(tmp_path):
    """`--help` stays fast."""
    code = (
        "import sys, rankllm_infer.formats.prepare; "
        "print({'torch', 'numpy', 'datasets', 'transformers'} & sys.modules.keys())"
    )
    assert in_a_fresh_process(tmp_path, code)[0] == "set()\n"


# Writing


def test_prepared_requests_read_back_equal_in_both_formats(join, tmp_path):
    """The reranked requests are the joined ones."""
    requests, _ = join()
    write_prepared(tmp_path / "rows.jsonl.gz", requests, format="rerank-input")
    assert list(read_rerank_input(tmp_path / "rows.jsonl.gz")) == requests
    write_prepared(tmp_path / "requests.jsonl", requests, format="requests")
    assert list(read_requests(tmp_path / "requests.jsonl")) == requests
    with pytest.raises(ConfigError, match="expected 'rerank-input' or 'requests'"):
        write_prepared(tmp_path / "x", requests, format="trec")


def test_rerank_input_rows_have_tevatrons_keys_in_order(join, tmp_path):
    """The corpus record's keys, then score, query_id and query (tevatron's prepare_rerank_file)."""
    write_prepared(tmp_path / "rows.jsonl", join()[0], format="rerank-input")
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[:2] == [
        '{"docid": "d1", "title": "T", "text": "x", "score": 9.0, "query_id": "q2", "query": "who is it"}',
        '{"docid": "d3", "text": "z", "score": 2.5, "query_id": "q2", "query": "who is it"}',
    ]


# A real collection


def test_nfcorpus_is_joined_whole():
    """323 queries, 308 of them with BM25 hits, in 21,948 lines (wc -l, cut | uniq); no list exceeds 100."""
    requests, report = build_requests(
        data("nfcorpus/runs/bm25.run"), queries=data("nfcorpus/queries.tsv"), corpus=data("nfcorpus/corpus.jsonl.gz")
    )
    assert (report.queries, report.candidates, len(report.qids_without_hits)) == (308, 21948, 15)
    assert len(report.lines()) == 2
    first = requests[0]
    assert first.query == Query(qid="PLAIN-2", text="Do Cholesterol Statin Drugs Cause Breast Cancer?")
    assert [(c.docid, c.score) for c in first.candidates[:2]] == [("MED-2429", 9.56170), ("MED-10", 9.51751)]
    title = "Statin Use and Breast Cancer Survival: A Nationwide Cohort Study from Finland"
    assert first.candidates[1].doc["title"] == title


def test_original_order_of_a_sorted_run_is_kept():
    """The run is sorted by score, so each query's top 20 are its first 20 lines, as in the originals."""
    path = data("scifact/runs/bm25.run")
    requests, _ = build_requests(
        path, queries=data("scifact/queries.tsv"), corpus=data("scifact/corpus.jsonl.gz"), depth=20, max_queries=50
    )
    lines: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        qid, _, docid, *_ = line.split()
        lines.setdefault(qid, []).append(docid)
    assert rankings(requests) == {qid: docids[:20] for qid, docids in list(lines.items())[:50]}


def test_a_tsv_corpus_gives_the_same_requests_as_json_lines(join, tmp_path):
    """The passages are the same in either file format."""
    requests, _ = join()
    (tmp_path / "c.tsv.gz").write_bytes(gzip.compress(b"d1\tT\tx\r\nd2\ty\r\nd3\tz\r\n"))
    again, _ = build_requests(
        tmp_path / "run.txt", queries=tmp_path / "queries.tsv", corpus=tmp_path / "c.tsv.gz", strict=True
    )
    assert rankings(again) == rankings(requests)
    assert again[0].candidates[0].doc == D1
