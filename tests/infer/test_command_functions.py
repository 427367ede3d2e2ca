"""The functions behind `retrieve`, `evaluate`, `compare` and `report`, called from Python: same results, no output."""

from __future__ import annotations

import pytest
from report_files import write_files, write_lines

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.evaluation.compare import compare_files
from rankllm_infer.evaluation.evaluate import evaluate_asked, evaluate_files
from rankllm_infer.report.build import NoTextsError, ReportFiles, ReportSettings, build_report
from rankllm_infer.retrieval.sources import (
    CorpusSource,
    RetrievedFiles,
    SearchSettings,
    search,
    write_retrieved,
)
from rankllm_infer.watching import Watcher


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A corpus of two passages and three queries, the last of which finds nothing."""
    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path / "cache"))
    passages = {"d1": "cats purr", "d2": "dogs bark"}
    write_lines(tmp_path / "corpus.jsonl", [{"docid": docid, "text": text} for docid, text in passages.items()])
    (tmp_path / "queries.tsv").write_text("q1\tcats\nq2\tdogs\nq3\tzebras\n", encoding="utf-8")
    return CorpusSource(corpus=tmp_path / "corpus.jsonl", queries=tmp_path / "queries.tsv")


@pytest.fixture
def files(tmp_path):
    """Inputs of a report; texts come from the results."""
    write_files(tmp_path)
    return ReportFiles(run=tmp_path / "new.jsonl", baseline=tmp_path / "base.run", qrels=tmp_path / "qrels")


def test_a_search_is_silent_unless_it_is_told_otherwise(pets, capsys):
    """Messages and progress go to the caller's callbacks; by default nowhere."""
    found = search(pets)
    assert {qid: [docid for docid, _ in ranking] for qid, ranking in found.run.items()} == {
        "q1": ["d1"],
        "q2": ["d2"],
        "q3": [],
    }
    assert found.lines() == ["retrieved 2 candidates for 2 queries", "no results for 1 query ('q3')"]
    assert capsys.readouterr() == ("", "")
    told: list[str] = []
    search(pets, watcher=Watcher(say=told.append))
    assert len(told) == 1
    assert told[0].startswith(f"Using the index of {pets.corpus} in ")


def test_a_search_keeps_to_its_settings_and_its_check(pets):
    """The check receives exactly the selected queries before the search and may reject them."""
    seen: list[dict[str, str]] = []
    found = search(pets, SearchSettings(max_queries=1), check=lambda queries: seen.append(dict(queries)))
    assert seen == [{"q1": "cats"}]
    assert list(found.run) == ["q1"]

    def refuse(queries):
        raise RankLLMError("not these")

    with pytest.raises(RankLLMError, match="not these"):
        search(pets, check=refuse)


def test_what_was_found_is_written_to_the_files_that_are_asked_for(pets, tmp_path):
    """A run tagged with the method, or a given tag; requests only if a path is given."""
    found = search(pets)
    write_retrieved(found, RetrievedFiles(run=tmp_path / "run.trec"))
    assert [line.split()[-1] for line in (tmp_path / "run.trec").read_text().splitlines()] == ["bm25", "bm25"]
    told: list[str] = []
    write_retrieved(found, RetrievedFiles(requests=tmp_path / "requests.jsonl"), watcher=Watcher(say=told.append))
    assert told == [f"Wrote {tmp_path / 'requests.jsonl'} (requests)"]
    assert [request.query.qid for request in found.requests()] == ["q1", "q2"]


def test_files_are_evaluated_and_compared_without_a_word(files, capsys):
    """RR by hand: base.run 1/3, 1 and 1; messages about missing queries are left to the caller."""
    [(path, found)] = evaluate_files(files.qrels, [files.baseline], ["RR"])
    assert (path, found.n_judged) == (files.baseline, 3)
    assert found.means["RR"] == pytest.approx(7 / 9)
    assert found.missing_lines("base") == []
    first, second = files.baseline, files.baseline.with_name("other.run")
    second.write_text("q1 Q0 c 1 1 x\n", encoding="utf-8")
    compared = compare_files(files.qrels, [first, second], ["RR"])
    assert (compared.baseline, compared.n_judged) == (str(first), 3)
    assert compared.measures["RR"][1].difference.mean == pytest.approx(1 / 3 - 7 / 9)
    assert [line.partition(", ")[0] for line in compared.missing_lines()] == [
        f"{second}: 2 of 3 judged queries missing from the run"
    ]
    assert capsys.readouterr() == ("", "")


def test_queries_that_were_asked_and_judged_count(files):
    """A searched query without results counts as 0, an unsearched one does not count; without any results, no
    measures."""
    qrels = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}}
    found = evaluate_asked(qrels, {"q1": [("a", 1.0)], "q2": []}, ["RR"])
    assert (found.n_queries, found.means["RR"]) == (2, 0.5)
    assert evaluate_asked(qrels, {"q1": [], "q9": [("a", 1.0)]}, ["RR"]) is None


def test_a_report_is_built_before_it_is_written(files, tmp_path):
    """Building writes no file; its notes are shown at the top of the page."""
    before = sorted(tmp_path.iterdir())
    report = build_report(files, ["RR"], ReportSettings(max_queries=2))
    assert sorted(tmp_path.iterdir()) == before
    assert report.n_queries == 2
    assert "Showing the 2 of 3 queries with the largest changes." in report.notes
    report.write(tmp_path / "page.html")
    assert "new.jsonl against base.run" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_files_that_do_not_go_together_are_refused(files, tmp_path):
    """Before any of them is read."""
    run, qrels = files.run, files.qrels
    with pytest.raises(ConfigError, match="--queries and --corpus go together"):
        ReportFiles(run=run, qrels=qrels, baseline=files.baseline, queries=tmp_path / "queries")
    with pytest.raises(ConfigError, match="give --baseline"):
        ReportFiles(run=run, qrels=qrels)
    with pytest.raises(ConfigError, match=r"new\.jsonl is given twice"):
        ReportFiles(run=run, qrels=qrels, baseline=run)
    with pytest.raises(NoTextsError, match="is a run, which contains no texts"):
        build_report(ReportFiles(run=files.baseline, qrels=qrels, baseline=run), ["RR"])
