"""Reranker as a PyTerrier transformer, for pipelines and experiments. Needs no Java."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Candidate, Query, Request, Result
from rankllm_infer.api import Reranker
from rankllm_infer.integrations.texts import TextReranker, missing_package
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.documents import checked

try:
    import pyterrier as pt
except ModuleNotFoundError as error:
    raise missing_package(error, "pyterrier", extra="pyterrier") from None
import pandas as pd  # installed with PyTerrier, whose absence is reported above

__all__ = ["RankLLMReRanker"]

_STATUS, _DEFECTS = "rankllm_status", "rankllm_defects"


class RankLLMReRanker(pt.Transformer):
    """Reranks a data frame of results (R to R) with a large language model.

    The model is loaded when the transformer is created. All queries of a frame are reranked together. Raises
    RankLLMError if the model cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        options: RerankOptions | Mapping[str, Any] | None = None,
        instruction: str | None = None,
        text_field: str = "text",
        title_field: str | None = None,
        query_field: str = "query",
        verbose: bool = False,
        reranker: Reranker | None = None,
    ) -> None:
        """model: a folder, a hub name, a bundled reranker, or a server's name for the model.

        options: `RerankOptions`, or a mapping of its fields. instruction: what counts as relevant, for models that take
        an instruction. text_field, title_field, query_field: columns of texts, titles (None: no titles) and queries;
        after a query expansion, `query_0` contains the original query. verbose: show a progress bar over queries.
        reranker: an already loaded reranker, instead of `model`, which several transformers may share.
        """
        super().__init__()
        self.instruction = instruction
        self.text_field = text_field
        self.title_field = title_field
        self.query_field = query_field
        self.verbose = verbose
        self._texts = TextReranker(model, options, reranker=reranker)
        self._texts.load()

    # What determines the loaded model is read-only (also for pt.inspect): setting it would have no effect.

    @property
    def model(self) -> str | Path | None:
        """Model that was loaded; None if a reranker was passed in."""
        return self._texts.model

    @property
    def options(self) -> RerankOptions | None:
        """Options it was loaded with."""
        return self._texts.options

    @property
    def reranker(self) -> Reranker | None:
        """Reranker that was passed in."""
        return None if self.model is not None else self._texts.load()

    def __repr__(self) -> str:
        return f"RankLLMReRanker({self._texts.name!r})"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of each query in their new order, with new `score` and `rank`; other columns are kept.

        inp: columns qid, docno, and those of the fields. The order before reranking is determined by `rank`, or else by
        decreasing `score`, or else by the order of rows. Scores strictly decrease, also as float32. `rankllm_status`
        describes how the model's answers to the query were parsed, `rankllm_defects` their problems. Raises
        pt.validate.InputValidationError for a missing column, and RankLLMError naming the query for a row without text,
        a repeated docno, and a query that cannot be ranked.
        """
        fields = [self.query_field, self.text_field, *([self.title_field] if self.title_field else [])]
        pt.validate.columns(inp, includes=["qid", "docno", *fields], context=self)
        groups = [(qid, _in_order(rows)) for qid, rows in inp.groupby("qid", sort=False, dropna=False)]
        results = self._texts.load().stream(self._request(qid, rows) for qid, rows in groups)
        shown: Iterator[Result] = pt.tqdm(results, total=len(groups), unit="q") if self.verbose else results
        ranked = [
            _ranked(rows, checked(result, is_named=True)) for (_, rows), result in zip(groups, shown, strict=True)
        ]
        if ranked:
            return pd.concat(ranked, ignore_index=True)
        return inp.assign(
            score=pd.Series(dtype="float64"), rank=pd.Series(dtype="int64"), **{_STATUS: "", _DEFECTS: ""}
        )

    def _request(self, qid: Hashable, rows: pd.DataFrame) -> Request:
        """Build the request of one query. Raises RankLLMError for a row without text."""
        name = f"query {str(qid)!r}"
        asked = list(rows[self.query_field].unique())
        if len(asked) != 1 or not isinstance(asked[0], str) or not asked[0].strip():
            raise RankLLMError(f"{name}: expected one text in column {self.query_field!r}, found {asked}")
        candidates = [
            Candidate(docid=str(docno), score=score, doc=self._doc(row, where=f"{name}, docno {docno!r}"))
            for docno, score, row in zip(rows["docno"], _first_stage(rows), rows.to_dict("records"), strict=True)
        ]
        query = Query(qid=str(qid), text=asked[0], instruction=self.instruction)
        return Request(query=query, candidates=tuple(candidates))

    def _doc(self, row: Mapping[Hashable, Any], *, where: str) -> dict[str, object]:
        """Build the passage of one row; a missing title is empty."""
        text, title = row[self.text_field], row[self.title_field] if self.title_field else None
        if not isinstance(text, str):
            found = f"{type(text).__name__} {text!r}"
            raise RankLLMError(
                f"{where}: expected a text in column {self.text_field!r}, found {found}; "
                "add the texts first, for example with pt.text.get_text"
            )
        return {"title": title, "text": text} if isinstance(title, str) else {"text": text}


def _first_stage(rows: pd.DataFrame) -> list[float]:
    """Return first-stage scores; if one is missing, scores decrease evenly from the number of rows to 1."""
    if "score" in rows and rows["score"].notna().all():
        return [float(score) for score in rows["score"]]
    return [float(n) for n in range(len(rows), 0, -1)]


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort one query's rows in first-stage order."""
    if "rank" in rows:
        return rows.sort_values("rank", kind="stable")
    return rows.sort_values("score", ascending=False, kind="stable") if "score" in rows else rows


def _ranked(rows: pd.DataFrame, result: Result) -> pd.DataFrame:
    """Reorder one query's rows according to its result."""
    place = {str(docno): index for index, docno in enumerate(rows["docno"])}
    ordered = rows.iloc[[place[candidate.docid] for candidate in result.candidates]]
    return ordered.assign(
        score=[candidate.score for candidate in result.candidates],
        rank=range(pt.model.FIRST_RANK, pt.model.FIRST_RANK + len(ordered)),
        **{_STATUS: result.status, _DEFECTS: "; ".join(result.defects)},
    )
