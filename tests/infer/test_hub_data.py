"""`prepare` reads the originals' data sets from a hub, though `datasets` refuses repositories with a loading script."""

from __future__ import annotations

import importlib.util

import pytest
from data_set_hub import lines, run_with_hub, serving_data_sets, with_script

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the package datasets, an extra of rankllm-infer"
)
QUERIES, CORPUS = "Tevatron/msmarco-passage", "Tevatron/msmarco-passage-corpus"
PREPARE = f"""
from rankllm_core.errors import RankLLMError
from rankllm_infer.formats.prepare import build_requests
open("run.txt", "w").write("1 Q0 7 1 1.5 t\\n")
for split in ("dl19", "dl20"):
    try:
        (request,), _ = build_requests("run.txt", queries="{QUERIES}", corpus="{CORPUS}", query_split=split)
        print(request.query.text, request.candidates[0].docid, dict(request.candidates[0].doc))
    except RankLLMError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What `prepare` says of the splits dl19 and dl20: with the hub, and then without it."""
    folder = tmp_path_factory.mktemp("hub")
    judged = {"query_id": 1, "query": "what is aml", "positive_passages": [], "negative_passages": []}
    repositories = {
        QUERIES: with_script(QUERIES, train=lines({"query_id": 1, "query": "another split"}), dl19=lines(judged)),
        CORPUS: with_script(CORPUS, corpus=lines({"docid": 7, "title": "T", "text": "x"})),
    }
    with serving_data_sets(repositories) as (hub, asked):
        online = run_with_hub(PREPARE, folder=folder, hub=hub)
    return online, run_with_hub(PREPARE, folder=folder), asked


def test_the_originals_data_sets_are_read_from_their_files(prepared):
    """Queries of the split that is asked for, and the corpus, which is one file by another name than `train`."""
    online, offline, asked = prepared
    assert online[0] == "what is aml 7 {'title': 'T', 'text': 'x'}"
    assert not any(path.endswith("train.jsonl.gz") for path in asked)
    # What was downloaded before is enough.
    assert offline[0] == online[0]


def test_a_split_that_the_repository_lacks_is_one_line(prepared):
    """It names the files that there are."""
    online, *_ = prepared
    assert online[1].startswith(f"{QUERIES}: contains a loading script, which is not run, and no data file named")
    assert "'dl20' (dl19.jsonl.gz, train.jsonl.gz)" in online[1]


def test_a_cloned_repository_with_a_script_is_read_as_well(tmp_path):
    """Its folder is given in place of its name."""
    for name, files in {
        "queries": with_script("x/queries", dev=lines({"query_id": "1", "query": "t"})),
        "corpus": with_script("x/corpus", corpus=lines({"docid": "7", "text": "x"})),
    }.items():
        (tmp_path / name).mkdir()
        for file, body in files["main"].items():
            (tmp_path / name / file).write_bytes(body)
    code = """
from rankllm_infer.formats.prepare import build_requests
open("run.txt", "w").write("1 Q0 7 1 1.5 t\\n")
(request,), _ = build_requests("run.txt", queries="queries", corpus="corpus")
print(request.query.text, request.candidates[0].docid)
"""
    assert run_with_hub(code, folder=tmp_path) == ["t 7"]
