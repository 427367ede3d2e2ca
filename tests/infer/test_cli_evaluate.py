"""`rankllm-infer evaluate`: lines, JSON and trec_eval's own options."""

import json
import math

import pytest
from click.testing import CliRunner
from shared_files import data

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.cli import cli

QRELS = "q1 0 d1 2\nq1 0 d2 0\nq2 0 d9 1\n"
RUN = "q1 Q0 d2 1 9.0 t\nq1 Q0 d1 2 8.0 t\nq7 Q0 d1 1 1.0 t\n"
NDCG_Q1 = 1 / math.log2(3)
"""The one relevant document at rank 2: gain 2 / log2(3), ideally 2."""


PILOT = "; for a partial run, --run-queries-only averages over the queries of the run"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with judgements and a run, which is the current one."""
    (tmp_path / "qrels").write_text(QRELS, encoding="utf-8")
    (tmp_path / "a.run").write_text(RUN, encoding="utf-8")
    (tmp_path / "b.run").write_text("q1 d1 1\nq2 d9 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*args):
    """Run the command over the judgements."""
    return CliRunner().invoke(cli, ["evaluate", "--qrels", "qrels", *args], standalone_mode=False)


def test_all_judged_queries_count_and_missing_ones_are_told(folder):
    """By default nDCG@10 over all judged queries; one that the run lacks counts 0 and is named on standard error."""
    result = evaluate("a.run")
    assert result.exception is None
    assert result.stdout == f"a.run\tnDCG@10\t{NDCG_Q1 / 2:.4f}\n"
    assert result.stderr == f"a.run: 1 of 2 judged queries missing from the run, counted as 0 ('q2'){PILOT}\n"


def test_the_originals_way_counts_the_queries_of_the_run(folder):
    """--run_queries_only leaves the missing ones out of the mean, and says so."""
    result = evaluate("a.run", "--run_queries_only")
    assert result.stdout == f"a.run\tnDCG@10\t{NDCG_Q1:.4f}\n"
    assert result.stderr == "a.run: 1 of 2 judged queries missing from the run, excluded from the means ('q2')\n"


def test_measures_may_be_repeated_or_hold_commas(folder):
    """A comma parts measures, but not the cut-offs of trec_eval's names; several runs follow each other."""
    result = evaluate("a.run", "b.run", "-m", "RR@10,recall.1,10,P@1", "--measure", "AP")
    assert result.stdout.splitlines() == [
        "a.run\tRR@10\t0.2500",
        "a.run\trecall.1\t0.0000",
        "a.run\trecall.10\t0.5000",
        "a.run\tP@1\t0.0000",
        "a.run\tAP\t0.2500",
        "b.run\tRR@10\t1.0000",
        "b.run\trecall.1\t1.0000",
        "b.run\trecall.10\t1.0000",
        "b.run\tP@1\t1.0000",
        "b.run\tAP\t1.0000",
    ]
    assert "b.run" not in result.stderr


@pytest.mark.parametrize("options", [["-q", "-c"], ["--per_query"], ["--per-query"]])
def test_each_query_and_the_mean_are_printed(folder, options):
    """-q is trec_eval's name of --per-query, and -c what is done anyway."""
    result = evaluate("a.run", "-m", "RR", *options)
    assert result.stdout == "a.run\tRR\tq1\t0.5000\na.run\tRR\tq2\t0.0000\na.run\tRR\tall\t0.2500\n"
    assert result.stderr.count("\n") == 1


def test_json_is_one_object_a_run(folder):
    """Values are in full precision, and what is missing or not judged is in the object."""
    result = evaluate("a.run", "b.run", "--json", "--per-query")
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["run"] == "a.run"
    assert first["measures"]["nDCG@10"] == pytest.approx(NDCG_Q1 / 2, abs=1e-12)
    assert (first["missing_qids"], first["unjudged_qids"]) == (["q2"], ["q7"])
    assert first["per_query"]["q2"] == {"nDCG@10": 0.0}
    assert second["measures"] == {"nDCG@10": 1.0}


@pytest.mark.parametrize("option", ["-l", "--relevance-level", "--relevance_level"])
def test_the_relevance_level_is_trec_evals(folder, option):
    """From level 2 on, the document of grade 1 is not relevant any more."""
    result = evaluate("b.run", "-m", "P@1", option, "2")
    assert result.stdout == "b.run\tP@1\t0.5000\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["a.run", "-m", "ndgc@10"], "measure 'ndgc@10': unknown; did you mean 'nDCG@10'?"),
        (["a.run", "-m", "P"], "needs a cutoff"),
        (["a.run", "nowhere.run"], "nowhere.run: no such file"),
        (["bad.run"], "bad.run:1: expected 6"),
        (["other.run"], "other.run: no query of the run is judged"),
    ],
)
def test_errors_name_the_run_and_print_no_numbers(folder, args, says):
    """What is wrong is found before the first number is printed."""
    (folder / "bad.run").write_text("q1 d1\n", encoding="utf-8")
    (folder / "other.run").write_text("x Q0 d1 1 1 t\n", encoding="utf-8")
    result = evaluate(*args)
    assert isinstance(result.exception, RankLLMError)
    assert says in str(result.exception)
    assert result.stdout == ""


def test_empty_judgements_are_an_error(folder):
    """An empty file is not a perfect collection."""
    (folder / "qrels").write_text("", encoding="utf-8")
    assert str(evaluate("a.run").exception) == "qrels: contains no judgements"


def test_contradicting_options_are_refused(folder):
    """-c asks for all judged queries."""
    assert "contradict" in str(evaluate("a.run", "-c", "--run-queries-only").exception)
    assert isinstance(evaluate("a.run", "-m", ",").exception, ConfigError)


@pytest.mark.parametrize(
    ("folder_name", "run", "expected"),
    [("trec_dl21", "BM25.run.gz", "0.4458"), ("nfcorpus", "bm25.run", "0.318")],
)
def test_published_first_stage_numbers_come_out(folder_name, run, expected):
    """The nDCG@10 recorded beside the collections, from their own files."""
    collection = data(folder_name)
    args = ["evaluate", "--qrels", str(collection / "qrels.txt"), str(collection / "runs" / run)]
    result = CliRunner().invoke(cli, args, standalone_mode=False)
    assert f"{float(result.stdout.split()[2]):.{len(expected) - 2}f}" == expected


@pytest.fixture
def home(folder, monkeypatch):
    """A home folder without a cache, and none of Pyserini's."""
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.delenv("PYSERINI_CACHE", raising=False)
    monkeypatch.delenv("RANK_LLM_CACHE", raising=False)
    return folder / "home"


def trec_eval(*args):
    """Run the command as trec_eval is called: the judgements stand before the runs."""
    return CliRunner().invoke(cli, ["evaluate", *args], standalone_mode=False)


def test_judgements_may_stand_before_the_runs(folder):
    """The line of tevatron's README, with files; without a run, a line says how it goes."""
    result = trec_eval("-c", "-m", "ndcg_cut.10", "qrels", "a.run", "b.run")
    assert result.stdout.splitlines()[0] == f"a.run\tndcg_cut.10\t{NDCG_Q1 / 2:.4f}"
    assert len(result.stdout.splitlines()) == 2
    assert "expected a run after the judgements: evaluate qrels RUN" in str(trec_eval("qrels").exception)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dl19-passage", "qrels.dl19-passage.txt"),
        ("dl19", "qrels/qrels.dl19-passage.txt"),
        ("beir-scifact", "home/.cache/pyserini/topics-and-qrels/qrels.beir-v1.0.0-scifact-test.txt"),
        ("msmarco-passage-dev-subset", "qrels.msmarco-passage-dev-subset.txt"),
    ],
)
def test_a_test_collection_is_known_by_name(folder, home, name, file):
    """Its judgements may lie here, in a folder of their own, or where Pyserini has put them."""
    path = folder / file
    if path.parent.name == "qrels":
        (folder / "qrels").unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(QRELS, encoding="utf-8")
    assert trec_eval("-c", "-m", "RR", name, "a.run").stdout == "a.run\tRR\t0.2500\n"
    assert trec_eval("-m", "RR", "--qrels", name, "a.run").stdout == "a.run\tRR\t0.2500\n"


def test_judgements_in_rank_llms_json_are_read(folder, home):
    """By the collection's name or as a file: qid -> docid -> grade."""
    (folder / "qrels").unlink()
    (folder / "qrels").mkdir()
    judged = {"q1": {"d1": "2", "d2": 0}, "q2": {"d9": 1}}
    (folder / "qrels" / "qrels_dl20.json").write_text(json.dumps(judged), encoding="utf-8")
    assert trec_eval("-m", "RR", "dl20", "a.run").stdout == "a.run\tRR\t0.2500\n"
    assert trec_eval("-m", "RR", "qrels/qrels_dl20.json", "a.run").stdout == "a.run\tRR\t0.2500\n"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "dl20-passage",
            "download https://trec.nist.gov/data/deep/2020qrels-pass.txt and save it as qrels.dl20-passage",
        ),
        (
            "beir-scifact",
            "download test.tsv from https://huggingface.co/datasets/BeIR/scifact-qrels and save it as qrels.",
        ),
        (
            "mrtydi-sw",
            "github.com/castorini/mr.tydi and save it as qrels.mrtydi-v1.1-swahili-test.txt, or use --qrels",
        ),
        (
            "dl18-passage",
            "dl18-passage: no such file and no such test collection (known: dl19-passage, dl20-passage",
        ),
    ],
)
def test_judgements_that_are_not_at_hand_are_named_with_their_source(folder, home, name, says):
    """One line, and nothing is downloaded."""
    message = str(trec_eval(name, "a.run").exception)
    assert says in message
    assert "\n" not in message
