"""Rerank with large language models: listwise (RankZephyr, FIRST), pointwise (RankLLaMA, yes/no) and pairwise
(duoT5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankllm_core.public_names import lazy_names

if TYPE_CHECKING:
    from rankllm_core.errors import RankLLMError
    from rankllm_core.types import Candidate, Query, Request, Result
    from rankllm_infer.api import Reranker, load_reranker, start_reranker
    from rankllm_infer.jobs.outputs import OutputFiles, Summary
    from rankllm_infer.jobs.rerank import RerankRun, RunReport, open_run, rerank_to_files
    from rankllm_infer.options import RerankOptions
    from rankllm_infer.plan import RerankPlan, plan_reranking
    from rankllm_infer.ranking.flow import make_request
    from rankllm_infer.scheduling.scheduler import DeadlineError
    from rankllm_infer.watching import Watcher

__all__ = [
    "Candidate",
    "DeadlineError",
    "OutputFiles",
    "Query",
    "RankLLMError",
    "Request",
    "RerankOptions",
    "RerankPlan",
    "RerankRun",
    "Reranker",
    "Result",
    "RunReport",
    "Summary",
    "Watcher",
    "load_reranker",
    "make_request",
    "open_run",
    "plan_reranking",
    "rerank_to_files",
    "start_reranker",
]

__version__ = "0.1.0"

_MODULE_OF = {
    **dict.fromkeys(("Candidate", "Query", "Request", "Result"), "rankllm_core.types"),
    "DeadlineError": "rankllm_infer.scheduling.scheduler",
    "RankLLMError": "rankllm_core.errors",
    "RerankOptions": "rankllm_infer.options",
    **dict.fromkeys(("RerankPlan", "plan_reranking"), "rankllm_infer.plan"),
    **dict.fromkeys(("Reranker", "load_reranker", "start_reranker"), "rankllm_infer.api"),
    **dict.fromkeys(("OutputFiles", "Summary"), "rankllm_infer.jobs.outputs"),
    **dict.fromkeys(("RerankRun", "RunReport", "open_run", "rerank_to_files"), "rankllm_infer.jobs.rerank"),
    "Watcher": "rankllm_infer.watching",
    "make_request": "rankllm_infer.ranking.flow",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
