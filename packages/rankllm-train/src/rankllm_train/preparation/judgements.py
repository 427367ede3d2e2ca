"""Relevance judgements: which passages are relevant to a query, and which are known not to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rankllm_core.data.collections import read_queries
from rankllm_core.errors import RankLLMError
from rankllm_core.trec.qrels import Qrels, read_qrels
from rankllm_train.data.sameness import digest, exact_form
from rankllm_train.preparation.ranked_queries import RunFile
from rankllm_train.preparation.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSources:
    """Files of a judged collection."""

    run: str | Path | RunFile
    """First-stage run: the candidates and their order."""
    qrels: str | Path
    queries: str | Path
    corpus: str | Path
    teacher_run: str | Path | RunFile | None = None
    """Run of a stronger model on the same queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Queries of a file, in file order, with their texts and grades."""

    texts: Mapping[str, str]
    """qid -> text."""
    grades: Qrels
    """qid -> docid -> grade."""
    question_grades: Qrels
    """qid -> docid -> best grade under any qid of the same question (`exact_form`)."""
    questions: Mapping[str, int]
    """qid -> number shared by all qids of one question."""
    min_relevance: int
    """Lowest grade that counts as relevant."""

    def relevant(self, qid: str) -> list[str]:
        """Return the docids relevant to a query, best grade first; ties in the order of the judgements."""
        return self._relevant(self.grades.get(qid, {}))

    def relevant_to_question(self, qid: str) -> list[str]:
        """Return the docids relevant under any qid of the query's question, ordered likewise."""
        return self._relevant(self.question_grades.get(qid, {}))

    def maybe_relevant(self, qid: str) -> list[str]:
        """Return the docids judged relevant, or with a grade above 0, under any qid of the question."""
        least = min(1, self.min_relevance)
        return [docid for docid, grade in self.question_grades.get(qid, {}).items() if grade >= least]

    def of_questions(self) -> Judgements:
        """Return the same queries with the judgements of a question applied to all of its qids."""
        return replace(self, grades=self.question_grades)

    def _relevant(self, grades: Mapping[str, int]) -> list[str]:
        judged = [(docid, grade) for docid, grade in grades.items() if grade >= self.min_relevance]
        return [docid for docid, _ in sorted(judged, key=lambda entry: -entry[1])]

    def answered(self, tally: Tally) -> dict[str, list[str]]:
        """Map each qid with relevant docids to them, in file order; count the other queries as skipped."""
        found = {}
        tally.see("queries", len(self.texts))
        for qid in self.texts:
            if relevant := self.relevant(qid):
                found[qid] = relevant
            else:
                tally.leave_out("queries", "no passage is judged relevant", qid)
        return found


def read_judgements(queries: str | Path, qrels: str | Path, *, min_relevance: int) -> Judgements:
    """Read queries and judgements. Raises RankLLMError if there are no judgements, or none of these queries."""
    texts, grades = read_queries(queries), read_qrels(qrels)
    if not grades:
        raise RankLLMError(f"{qrels}: contains no judgements")
    if texts and not texts.keys() & grades.keys():
        raise RankLLMError(
            f"{qrels}: judges none of the {len(texts):,} queries of {queries} (it has {next(iter(grades))!r}, "
            f"they have {next(iter(texts))!r}); use matching files"
        )
    questions = {qid: digest(exact_form(text)) for qid, text in texts.items()}
    return Judgements(
        texts=texts,
        grades=grades,
        question_grades=_by_question(questions, grades),
        questions=questions,
        min_relevance=min_relevance,
    )


def _by_question(questions: Mapping[str, int], grades: Qrels) -> Qrels:
    """Merge the grades of all qids of a question; where they differ, the best one applies."""
    qids: defaultdict[int, list[str]] = defaultdict(list)
    for qid, question in questions.items():
        qids[question].append(qid)
    found = dict(grades)
    for same in qids.values():
        if len(same) > 1:
            shared: dict[str, int] = {}
            for qid in same:
                for docid, grade in grades.get(qid, {}).items():
                    shared[docid] = max(grade, shared.get(docid, grade))
            found.update(dict.fromkeys(same, shared))
    return found
