"""Detection of the prompt template that training records were written with, which inference must use too."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rankllm_core.errors import DataError
from rankllm_core.prompts.template import ListwiseTemplate, default_listwise_template, listwise_template
from rankllm_core.types import IdentifierKind
from rankllm_train.data.passage_ends import as_pattern
from rankllm_train.data.rankings import identifier_kind
from rankllm_train.data.record_checks import check_texts, checked_ranks
from rankllm_train.data.records import ListwiseRecord


def template_for(records: Sequence[ListwiseRecord], *, given: str) -> ListwiseTemplate:
    """Return the given template, or the bundled one for the identifiers of the first usable record.

    Raises ConfigError for a template of another kind. If no record is usable, which encoding reports in detail, returns
    the template for numbers.
    """
    if given:
        return listwise_template(given, where="prompt.template: ")
    return default_listwise_template(_kind(records))


def mismatch_notes(records: Sequence[ListwiseRecord], template: ListwiseTemplate) -> tuple[str, ...]:
    """Return a warning naming the first record whose prompt the template would not produce. records: those trained
    on."""
    for record in records:
        if difference := how_it_differs(record, template):
            return (
                f"Warning: {record.path}:{record.line}: record {record.id!r}: {difference}. The card records template "
                f"{template.name}, so prompts at inference will differ from training; "
                "give the template of the records with --prompt-template-path",
            )
    return ()


def _kind(records: Sequence[ListwiseRecord]) -> IdentifierKind:
    for record in records:
        try:
            checked_ranks(record)
            check_texts(record)
        except DataError:
            continue
        return identifier_kind(record.prompt)
    return "numeric"


def how_it_differs(record: ListwiseRecord, template: ListwiseTemplate) -> str | None:
    """Return the part in which a record's prompt differs from the template's output, or None if it does not."""
    if template.method != "singleturn_listwise":
        return None  # records have a single turn, which cannot be compared
    if (record.system or "") != (template.system_message or ""):
        return "its system turn differs from the template's" if record.system else "it lacks the template's system turn"
    opening = re.match(as_pattern(template.prefix or ""), record.prompt, re.DOTALL)
    if opening is None:
        return "the beginning of its prompt differs from the template's"
    suffix = as_pattern(template.suffix or "")
    if re.search(f"{suffix}\\Z", record.prompt, re.DOTALL) is None:
        return "the end of its prompt differs from the template's"
    if not re.match(as_pattern(template.body), record.prompt[opening.end() :], re.DOTALL):
        return "its first passage is not formatted as the template does"
    return None
