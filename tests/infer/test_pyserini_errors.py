"""What Pyserini's errors are told as, without Pyserini: the words are those of its release 1.6."""

from __future__ import annotations

from urllib.error import HTTPError

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_infer.retrieval.pyserini_library import fetching


def told(what, error):
    """The line that an error becomes while `dl19` is fetched."""
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
    """It may also have been meant as a file or a folder."""
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
    """A page that is gone, a library of Java's: the name was right."""
    line = told("topics", error)
    assert line.startswith("topics 'dl19': could not be downloaded (")
    assert "ound)" in line
    assert "unknown to" not in line
