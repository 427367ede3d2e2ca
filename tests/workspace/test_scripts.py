"""What the scripts reject before they load a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
from collections_on_disk import Collection
from shared_files import REPOSITORY

MODELS = REPOSITORY / "scripts" / "models"
SCRIPT = MODELS / "minilm_run.py"


@pytest.fixture
def files(tmp_path):
    """One query with one candidate."""
    collection = Collection(tmp_path)
    collection.run({"q1": {"d1": 1.0}})
    collection.queries({"q1": "what"})
    collection.corpus({"d1": "text"})
    return collection


def minilm(files, output):
    """Run the script in the collection's folder and return its standard error."""
    named = ["--run", "run.trec", "--queries", "queries.tsv", "--corpus", "corpus.jsonl", "--output", *output]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *named], cwd=files.folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    return done.stderr


def test_a_query_of_the_run_without_a_text_is_named(files):
    """The error is raised before anything is encoded."""
    files.run({"q1": {"d1": 1.0}, "q7": {"d1": 1.0}})
    assert minilm(files, ["out.trec"]) == "Error: queries.tsv: lacks 1 queries of the run, such as 'q7'\n"


def test_passages_that_the_corpus_lacks_are_named(files):
    """A missing file is named as well."""
    files.corpus({"d2": "text"})
    assert minilm(files, ["out.trec"]) == "Error: corpus.jsonl: lacks 1 passages of the run, such as 'd1'\n"
    files.path("corpus.jsonl").unlink()
    assert minilm(files, ["out.trec"]) == "Error: corpus.jsonl: no such file\n"


def test_nothing_is_replaced_without_leave_and_no_input_ever(files):
    """Existing files are kept."""
    files.path("out.trec").write_text("mine", encoding="utf-8")
    assert (
        minilm(files, ["out.trec"])
        == "Error: out.trec: already exists; use --overwrite to replace it, or another name\n"
    )
    assert "is both input and output" in minilm(files, ["corpus.jsonl", "--overwrite"])
    assert files.path("out.trec").read_text(encoding="utf-8") == "mine"
