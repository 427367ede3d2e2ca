"""`rankllm-infer retrieve` as a user sees it: a run, requests, figures, and what goes wrong."""

from __future__ import annotations

import json

import pytest
from shared_files import data

CORPUS = (
    '{"docid": "d1", "title": "Cats", "text": "Cats purr and purr."}\n'
    '{"docid": "d2", "text": "A dog and a cat."}\n'
    '{"docid": "q2", "text": "Who keeps dogs"}\n'
)
QUERIES = "q1\tcats\nq2\twho keeps dogs\nq3\tzebras\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a corpus, queries and judgements, which is the current one; the cache is in it as well."""
    (tmp_path / "corpus.jsonl").write_text(CORPUS, encoding="utf-8")
    (tmp_path / "queries.tsv").write_text(QUERIES, encoding="utf-8")
    (tmp_path / "qrels.txt").write_text("q1 0 d2 1\nq3 0 d1 1\nq9 0 d1 1\n", encoding="utf-8")
    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILES = ("--corpus", "corpus.jsonl", "--queries", "queries.tsv")


def rows(path):
    return [line.split()[:4] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_is_written_and_reads_as_trec(folder, rankllm):
    """Ranks count up, scores fall, the tag says what made it; a query that finds nothing is named."""
    done = rankllm("retrieve", *FILES, "--output", "bm25.trec")
    assert (done.code, done.out) == (0, "")
    assert rows(folder / "bm25.trec") == [
        ["q1", "Q0", "d1", "1"],
        ["q1", "Q0", "d2", "2"],
        ["q2", "Q0", "q2", "1"],
        ["q2", "Q0", "d2", "2"],
    ]
    assert (folder / "bm25.trec").read_text(encoding="utf-8").split()[5] == "bm25"
    assert "retrieved 4 candidates for 2 queries\nno results for 1 query ('q3')\nWrote bm25.trec\n" in done.err


def test_the_second_time_the_index_is_there(folder, rankllm):
    """And it is told where."""
    rankllm("retrieve", *FILES, "--output", "one.trec", "--index-dir", "index")
    done = rankllm("retrieve", *FILES, "--output", "two.trec", "--index-dir", "index")
    assert "Using the index of corpus.jsonl in index\n" in done.err
    assert (folder / "one.trec").read_bytes() == (folder / "two.trec").read_bytes()


def test_requests_carry_the_texts_and_need_no_further_step(folder, rankllm):
    """What `rerank --requests` reads: the passages as stored, the scores of the run, no empty query."""
    done = rankllm("retrieve", *FILES, "--output-requests", "requests.jsonl", "--depth", "1")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["query"]["qid"] for record in records] == ["q1", "q2"]
    [candidate] = records[0]["candidates"]
    assert (candidate["docid"], candidate["doc"]) == ("d1", {"title": "Cats", "text": "Cats purr and purr."})
    assert candidate["score"] > 0


def test_a_query_need_not_find_itself(folder, rankllm):
    """--remove-query makes room for the next candidate."""
    options = ["--remove-query", "--depth", "1", "--output", "bm25.tsv"]
    assert rankllm("retrieve", *FILES, *options).code == 0
    lines = (folder / "bm25.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["q1", "d1"], ["q2", "d2"]]


def test_figures_count_every_query_that_was_asked(folder, rankllm):
    """q1 finds its passage at rank 2, q3 nothing; q9, which was not asked, does not count."""
    done = rankllm("retrieve", *FILES, "--qrels", "qrels.txt")
    assert "retrieved\tMRR@10\t0.2500" in done.out.splitlines()
    assert "Scores of the 2 judged queries among the 3 in this run:" in done.err


def test_judgements_of_other_queries_are_refused_before_the_index_is_made(folder, rankllm):
    """Indexing may take an hour."""
    (folder / "other.txt").write_text("x1 0 d1 1\n", encoding="utf-8")
    done = rankllm("retrieve", *FILES, "--qrels", "other.txt", "--index-dir", "index")
    assert (done.code, "other.txt: judges none of the 3 queries" in done.err) == (1, True)
    assert "index of" not in done.err
    assert not (folder / "index").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "nothing to write: give --output, --output-requests or --qrels"),
        (["--output", "o", "--output-requests", "o"], 2, "o: given for two outputs"),
        (["--output", "o", "--output-requests", "cache/../o"], 2, "o: given for two outputs"),
        (["--qrels", "qrels.txt", "--tag", "t"], 2, "--tag has no effect without an --output in the TREC format"),
        (["--qrels", "qrels.txt", "--output-format", "tsv"], 2, "--output-format has no effect without --output"),
        (["--output", "o", "--b", "1.5"], 2, "Invalid value for '--b'"),
        (["--output", "corpus.jsonl", "--overwrite"], 1, "corpus.jsonl: is both input and output"),
        (["--output", "queries.tsv"], 1, "queries.tsv: already exists; use --overwrite"),
        (["--output", "o", "--corpus", "nowhere.jsonl"], 1, "nowhere.jsonl: no such file"),
        (["--output", "o", "--queries", "none.tsv"], 1, "none.tsv: contains no queries"),
        (["--output", "o", "--queries", "zebra.tsv"], 1, "corpus.jsonl: found no passage for any of 1 query"),
        (["--output", "o", "--qrels", "other.txt"], 1, "other.txt: judges none of the 3 queries"),
    ],
)
def test_errors_are_one_line_and_write_nothing(folder, rankllm, options, code, message):
    """Status 2 for wrong usage, 1 for what the files hold."""
    (folder / "none.tsv").write_text("\n", encoding="utf-8")
    (folder / "zebra.tsv").write_text("q3\tzebras\n", encoding="utf-8")
    (folder / "other.txt").write_text("x 0 d1 1\n", encoding="utf-8")
    done = rankllm("retrieve", *FILES, *options)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not (folder / "o").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "o"], "give one of --corpus, --index and --dataset"),
        (["--corpus", "c", "--dataset", "d", "--output", "o"], "give one of --corpus, --index and --dataset"),
        (["--corpus", "c", "--output", "o"], "--corpus needs --queries"),
        (["--index", "i", "--output", "o"], "--index needs --queries"),
        (["--dataset", "d", "--output", "o"], "--dataset needs --retrieval-method"),
        (
            ["--dataset", "d", "--retrieval-method", "bm25", "--queries", "q"],
            "--dataset cannot be combined with --queries",
        ),
        (
            ["--corpus", "c", "--queries", "q", "--retrieval-method", "bm25"],
            "--corpus cannot be combined with --retrieval-me",
        ),
        (["--index", "i", "--queries", "q", "--index-dir", "d"], "--index cannot be combined with --index-dir"),
    ],
)
def test_what_is_searched_is_one_thing(folder, rankllm, options, message):
    """Status 2 before anything is read."""
    done = rankllm("retrieve", *options)
    assert (done.code, done.out) == (2, "")
    assert f"Error: {message}" in done.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--retrieval-method", "splade_v3", "--k1", "1"],
            2,
            "--k1 is a BM25 parameter and has no effect on splade_v3",
        ),
        (["--retrieval-method", "bm52"], 1, "retrieval method 'bm52': unknown; did you mean 'bm25'?"),
        (["--retrieval-method", "rep-llama"], 1, "rep-llama is available only as stored results for dataset dl19"),
    ],
)
def test_what_a_method_cannot_do_is_told_before_pyserini_starts(folder, rankllm, options, code, message):
    """It takes a while to come up."""
    done = rankllm("retrieve", "--dataset", "dl19", *options, "--output", "o")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Starting" not in done.err


def test_a_data_set_needs_no_output(folder, rankllm):
    """Its figures are known: what is complained of is the name."""
    done = rankllm("retrieve", "--dataset", "dl99", "--retrieval-method", "bm25")
    assert (done.code, done.out) == (1, "")
    assert "dataset 'dl99': unknown; did you mean 'dl19'?" in done.err


def test_an_index_needs_a_method_that_can_search_it(folder, rankllm):
    """Stored results are of data sets."""
    done = rankllm(
        "retrieve", "--index", "i", "--queries", "queries.tsv", "--retrieval-method", "rep-llama", "--output", "o"
    )
    assert done.code == 2
    assert "--index cannot be searched with rep-llama" in done.err


def test_a_real_collection_gives_the_recorded_figure(tmp_path, rankllm, monkeypatch):
    """NFCorpus from its files, by one command: nDCG@10 .318 as recorded beside it."""
    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path))
    source = data("nfcorpus")
    files = ["--corpus", source / "corpus.jsonl.gz", "--queries", source / "queries.tsv"]
    done = rankllm("retrieve", *files, "--qrels", source / "qrels.txt")
    assert done.code == 0, done.err
    assert float(done.out.splitlines()[0].split("\t")[2]) == pytest.approx(0.318, abs=0.0005)
