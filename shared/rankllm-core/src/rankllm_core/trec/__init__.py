"""TREC files: runs, relevance judgements, and scores with the precision that trec_eval compares."""

from __future__ import annotations

from rankllm_core.trec.qrels import Qrels, read_qrels
from rankllm_core.trec.run_layout import RunFormat, format_beside_others
from rankllm_core.trec.runs import (
    DEFAULT_TAG,
    Ranking,
    Run,
    RunLine,
    RunOutput,
    ScoreError,
    decreasing_scores,
    format_score,
    holds_ranks,
    iter_run,
    msmarco_lines,
    read_run,
    run_lines,
    to_float32,
    trec_lines,
    trec_order,
    tsv_lines,
    write_msmarco,
    write_results,
    write_run,
    write_tsv,
)

__all__ = [
    "DEFAULT_TAG",
    "Qrels",
    "Ranking",
    "Run",
    "RunFormat",
    "RunLine",
    "RunOutput",
    "ScoreError",
    "decreasing_scores",
    "format_beside_others",
    "format_score",
    "holds_ranks",
    "iter_run",
    "msmarco_lines",
    "read_qrels",
    "read_run",
    "run_lines",
    "to_float32",
    "trec_lines",
    "trec_order",
    "tsv_lines",
    "write_msmarco",
    "write_results",
    "write_run",
    "write_tsv",
]
