"""Which prompt template training records were made with: inference must write its prompts with the same one."""

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
    """The template that is given, or the shipped one for the identifiers of the first record that can be learnt from.

    Raises ConfigError for a template of another kind. Where no record can be learnt from, which encoding them says in
    full, it is the one for numbers.
    """
    if given:
        return listwise_template(given, where="prompt.template: ")
    return default_listwise_template(_kind(records))


def mismatch_notes(records: Sequence[ListwiseRecord], template: ListwiseTemplate) -> tuple[str, ...]:
    """A warning that names the first record whose prompt the template would not write. records: that are trained on."""
    for record in records:
        if difference := how_it_differs(record, template):
            return (
                f"Warning: {record.path}:{record.line}: record {record.id!r}: {difference}. The card says template "
                f"{template.name}, so inference will prompt differently from training; "
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
    """In which part a record's prompt is not what the template writes; None where it is."""
    if template.method != "singleturn_listwise":
        return None  # the records hold one turn; whether it says the same cannot be told
    if (record.system or "") != (template.system_message or ""):
        return "its system turn is not the template's" if record.system else "it has no system turn, the template has"
    opening = re.match(as_pattern(template.prefix or ""), record.prompt, re.DOTALL)
    if opening is None:
        return "the beginning of its prompt is not the template's"
    suffix = as_pattern(template.suffix or "")
    if re.search(f"{suffix}\\Z", record.prompt, re.DOTALL) is None:
        return "the end of its prompt is not the template's"
    if not re.match(as_pattern(template.body), record.prompt[opening.end() :], re.DOTALL):
        return "its first passage is not written as the template writes one"
    return None
