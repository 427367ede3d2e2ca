"""How Pyserini's errors are reported, tested without Pyserini: the messages are those of release 1.6."""

from __future__ import annotations

from urllib.error import HTTPError

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_infer.retrieval.pyserini_library import fetching


def told(what, error):
    """The message for an error while `dl19` is being downloaded."""
    with pytest.raises(RankLLMError) as caught, fetching(what, "dl19"):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("what", "error", "place"),
    [
        ("index", ValueError("Unrecognized index name dl19"), "folder"),
        ("topics", ValueError("Topic dl19 Not Found"), "file"),
        ("judgements", FileNotFoundError("no qrels file for dl19"), "file"),
    ],
)
def test_a_name_that_pyserini_does_not_know_is_said_to_be_unknown(what, error, place):
    """It may also have been meant as a file or folder."""
    assert told(what, error) == f"{what} 'dl19': no such {place}, and unknown to Pyserini"


@pytest.mark.parametrize(
    "error",
    [
        HTTPError("https://x", 404, "Not Found", None, None),
        OSError("libjvm.so: cannot open shared object file: not found"),
        ValueError("Topic dl20 Not Found"),
        RuntimeError("JVM exception occurred: file not found"),
    ],
)
def test_what_is_not_found_on_the_way_does_not_blame_the_name(error):
    """A missing web page, a missing Java library: the name was right."""
    line = told("topics", error)
    assert line.startswith("topics 'dl19': could not be downloaded (")
    assert "ound)" in line
    assert "unknown to" not in line
