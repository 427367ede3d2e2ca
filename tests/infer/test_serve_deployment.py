"""Claims of docs/serving.md about other products: the requests they send are answered, and the units are valid."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from serving_fakes import Served, pointwise
from shared_files import REPOSITORY

PAGE = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")
QUERY = 'what "is" aml\n'
DOCUMENTS = ["a 1", 'a "quoted" 3', "a 2"]
SCORES = [1 / (1 + 2.718281828459045**-value) for value in (3, 2, 1)]


def blocks(language):
    """The page's fenced blocks."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def request(title):
    """JSON of the block that begins with this line."""
    (block,) = [text for text in blocks("json") if text.startswith(title)]
    return json.loads(block.removeprefix(title))


def ranked(url, body):
    """(indexes, scores) of the response to a raw body."""
    path = url.removeprefix("RERANKER")
    response = Served(pointwise()).ask("POST", path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    return [result["index"] for result in results], [result["relevance_score"] for result in results]


def test_every_json_block_is_json():
    """After the line that names its destination."""
    titled = [text for text in blocks("json") if not text.startswith("{")]
    assert len(titled) == 6
    for text in titled:
        json.loads(text.partition("\n")[2])


def test_elasticsearch():
    """Its templates are replaced by JSON: a string for the query, a list for the input."""
    settings = request("PUT _inference/rerank/rankllm")["service_settings"]
    body = settings["request"].replace("${query}", json.dumps(QUERY)).replace("${input}", json.dumps(DOCUMENTS))
    assert "${" not in body
    indexes, scores = ranked(settings["url"], body)
    assert indexes == [1, 2, 0]
    assert scores == pytest.approx(SCORES)
    paths = settings["response"]["json_parser"]
    assert paths == {"reranked_index": "$.results[*].index", "relevance_score": "$.results[*].relevance_score"}


def test_opensearch():
    """`connector.pre_process.cohere.rerank` sends documents, query and top_n, the number of documents."""
    (action,) = request("POST /_plugins/_ml/connectors/_create")["actions"]
    body = action["request_body"]
    given = {"documents": json.dumps(DOCUMENTS), "query": json.dumps(QUERY)[1:-1], "top_n": str(len(DOCUMENTS))}
    for name, value in given.items():
        body = body.replace(f"${{parameters.{name}}}", value)
    assert "${" not in body
    indexes, scores = ranked(action["url"], body)
    assert indexes == [1, 2, 0]
    assert scores == pytest.approx(SCORES)


def test_open_webui():
    """Its external reranker sends model, query, documents and their number, and sorts results by index."""
    (settings,) = [text for text in blocks("bash") if "RAG_RERANKING_ENGINE" in text]
    url = re.search(r"^RAG_EXTERNAL_RERANKER_URL=(\S+)$", settings, re.MULTILINE)[1]
    body = {"model": "tiny", "query": QUERY, "documents": DOCUMENTS, "top_n": 3}
    assert ranked(url, json.dumps(body))[0] == [1, 2, 0]


def test_librechat():
    """It sends Jina's model name for any model, and reads `document` as a string or its `text`."""
    (settings,) = [text for text in blocks("yaml") if "rerankerType" in text]
    url = re.search(r"# (RERANKER/\S+)$", settings, re.MULTILINE)[1]
    body = {
        "model": "jina-reranker-v2-base-multilingual",
        "query": QUERY,
        "top_n": 5,
        "documents": DOCUMENTS,
        "return_documents": True,
    }
    served = Served(pointwise(), any_model_name=True)
    results = served.post(url.removeprefix("RERANKER"), body).json()["results"]
    assert [result["document"]["text"] for result in results] == [DOCUMENTS[1], DOCUMENTS[2], DOCUMENTS[0]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze verifies the unit")
def test_the_systemd_unit_is_sound(tmp_path):
    """With an existing command."""
    (unit,) = blocks("ini")
    path = tmp_path / "rankllm.service"
    path.write_text(unit.replace("/opt/rankllm/bin/rankllm-infer", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_stops_a_service_waits_for_its_requests():
    """The time limits of the unit and of the container exceed a request's."""
    from rankllm_infer.serving.settings import ServerOptions

    (unit,) = blocks("ini")
    limits = [re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1], re.search(r"--stop-timeout (\d+)", PAGE)[1]]
    assert all(int(limit) > ServerOptions().request_timeout_s for limit in limits)
