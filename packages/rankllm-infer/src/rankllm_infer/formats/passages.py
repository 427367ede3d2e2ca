"""The passages of one query, from a file or a stream: one a line, or JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import read_lines
from rankllm_core.files.json_text import as_id, check_value, json_problem, located


def read_passages(path: str | Path, *, source: IO[bytes] | None = None) -> list[str | Mapping[str, object]]:
    """Passages in their order, for `make_request`: texts, or objects with `text` and perhaps `docid`.

    source: is read in place of the path, which then only names it. Raises RankLLMError where there is none, DataError
    naming the line of one that cannot be read.
    """
    lines = list(read_lines(path, source=source))
    if not lines:
        raise RankLLMError(f"{path}: no passages, expected one a line")
    if not all(line.lstrip().startswith("{") for _, line in lines):
        return [line for _, line in lines]
    return [_passage(path, number, line) for number, line in lines]


def _passage(path: str | Path, number: int, line: str) -> Mapping[str, object]:
    try:
        doc: dict[str, object] = json.loads(line)
        check_value(doc, line)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else json_problem(error)
        raise DataError(f"not JSON: {problem}", path=path, line=number) from None
    with located(path, number):
        return doc | ({"docid": as_id(doc["docid"], what="docid")} if "docid" in doc else {})
