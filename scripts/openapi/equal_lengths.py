"""A Schemathesis hook for the only rule that JSON Schema cannot express: `/score` takes one text
against N, or N against N. Of two arrays that are longer than one, the longer is cut to the shorter, so that what is
generated as valid is."""

from __future__ import annotations

from typing import Any

import schemathesis

PAIRS = (("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Truncate the arrays of a valid request to equal length."""
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_valid or not case.path.endswith("/score") or not isinstance(case.body, dict):
        return
    for one, other in PAIRS:
        arrays = [case.body.get(key) for key in (one, other)]
        if all(isinstance(array, list) and len(array) > 1 for array in arrays):
            n = min(map(len, arrays))
            case.body |= {one: arrays[0][:n], other: arrays[1][:n]}
