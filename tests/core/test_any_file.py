"""Whatever a file contains, every reader returns records or raises a one-line error that names the file."""

from __future__ import annotations

import gzip
import json

import pytest
from fuzz_inputs import hostile_bytes, hostile_json, hostile_yaml, mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankllm_core.card import card_from_dict
from rankllm_core.config import load_yaml
from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.data.records import read_requests, read_rerank_input
from rankllm_core.errors import RankLLMError, one_line
from rankllm_core.files import read_json, read_jsonl, read_lines
from rankllm_core.prompts.template import load_template
from rankllm_core.trec.qrels import read_qrels

REQUEST = {
    "query": {"text": "what is aml", "qid": "q1"},
    "candidates": [{"docid": "d1", "score": 1.5, "doc": {"text": "x"}}],
}
GOOD = {
    "r.jsonl": (json.dumps(REQUEST) + "\n").encode(),
    "r.json": json.dumps([REQUEST], indent=1).encode(),
    "rows.jsonl": b'{"docid": "d1", "title": "", "text": "x", "score": 1.5, "query_id": "q1", "query": "what"}\n' * 1,
    "q.tsv": "q1\twhat is aml\nq2\tgröße\n".encode(),
    "c.tsv": b"d1\ttitle\ttext\nd2\tt\tx\n",
    "c.jsonl": b'{"_id": "d1", "title": "t", "text": "x"}\n{"_id": "d2", "text": "y"}\n',
    "qrels": b"q1 0 d1 1\nq1 0 d2 0\n",
    "card.yaml": b"format: 1\nkind: listwise\ntemplate: rank_zephyr\nwindow: {size: 20, stride: 10}\n",
}
READERS = {
    "lines": read_lines,
    "jsonl": read_jsonl,
    "json": lambda path: [read_json(path)],
    "requests": read_requests,
    "rerank-input": read_rerank_input,
    "queries": read_queries,
    "corpus": read_corpus,
    "qrels": read_qrels,
    "yaml": load_yaml,
    "card": lambda path: [card_from_dict(load_yaml(path), where=str(path))],
    "template": lambda path: [load_template(str(path))],
}
CALM = settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FIELDS = st.sampled_from(["query", "candidates", "qid", "docid", "text", "score", "doc", "_id"])
LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner))


def check_readers(path):
    """Read the file with every reader; an error is a RankLLMError in one line."""
    for read in READERS.values():
        try:
            for _ in read(path):
                pass
        except RankLLMError as error:
            message = one_line(str(error))
            assert path.name in message
            assert message.isprintable() or "\u00a0" in message or "\u3000" in message
            assert len(message) < 2100


@CALM
@given(seed=st.integers(0, 1 << 32), kind=st.sampled_from([hostile_bytes, hostile_json, hostile_yaml]))
@pytest.mark.parametrize("name", ["f", "f.jsonl", "f.json.gz"])
def test_no_content_is_a_traceback(tmp_path, name, seed, kind):
    """Random bytes, archives, JSON and YAML under misleading names."""
    content = kind(seed)
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    check_readers(path)


@settings(CALM, max_examples=200)
@given(seed=st.integers(0, 1 << 32), name=st.sampled_from(sorted(GOOD)))
def test_no_damage_is_a_traceback(tmp_path, seed, name):
    """Valid files that were damaged."""
    path = tmp_path / name
    path.write_bytes(mutate(GOOD[name], seed))
    check_readers(path)


@CALM
@given(value=VALUES)
def test_no_json_value_is_a_traceback(tmp_path, value):
    """Any structure with the project's field names."""
    path = tmp_path / "v.jsonl"
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    check_readers(path)


@pytest.mark.parametrize(
    "make", [hostile_bytes, hostile_json, hostile_yaml, lambda seed: mutate(b"q1 Q0 d1 1 1 t\n", seed)]
)
def test_a_seed_gives_the_same_input_again(make):
    """A failure can be reproduced from its seed."""
    assert [make(seed) for seed in range(30)] == [make(seed) for seed in range(30)]
    assert len({make(seed) for seed in range(30)}) > 10
