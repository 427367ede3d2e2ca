"""Decisions that depend on files are made by one process, so that all act on the same one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rankllm_core.errors import RankLLMError

Decision = TypeVar("Decision")


def first_decides(decide: Callable[[], Decision]) -> Decision:
    """Have process 0 decide; every process returns its value, or raises its RankLLMError. The value is pickled."""
    import torch.distributed as processes

    if not (processes.is_available() and processes.is_initialized()) or processes.get_world_size() == 1:
        return decide()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if processes.get_rank() == 0:
        try:
            outcome = [decide(), None]
        except RankLLMError as error:
            outcome = [None, str(error)]
    value, fault = broadcast_object_list(outcome)
    if fault is not None:
        raise RankLLMError(fault)
    return value  # type: ignore[no-any-return]
