"""Which prompt template training records were made with: inference must write its prompts with the same one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.template import ListwiseTemplate, load_template
from rankllm_train.rankings import identifier_kind
from rankllm_train.records import ListwiseRecord

_LOOKED_AT = 20
_VALUES = {
    **dict.fromkeys(("query", "candidate", "score"), ".*?"),
    "num": r"\d+",
    "psg_ids": r"\[.*?\]",
    "rank": "(?:1|A)",
}
"""What a placeholder may stand for; of identifiers, the first."""
_DEFAULTS = {"numeric": "rank_zephyr", "alpha": "rank_zephyr_alpha"}


def matching_template(records: Sequence[ListwiseRecord], *, given: str) -> tuple[ListwiseTemplate, tuple[str, ...]]:
    """The template for the card, and what a user should know about it.

    given: a template's name or file, or empty for the shipped one of the records' identifiers. Records whose prompts
    the template would not write are trained on as they are, with a note that names the first of them.
    Raises ConfigError for a pointwise template and RankLLMError where no record tells its identifiers.
    """
    template = load_template(given or _DEFAULTS[_kind(records)])
    if not isinstance(template, ListwiseTemplate):
        raise ConfigError(f"prompt.template: {template.name} is a pointwise template; expected a listwise one")
    for record in records[:_LOOKED_AT]:
        if difference := how_it_differs(record, template):
            return template, (
                f"Warning: {record.path}:{record.line}: record {record.id!r}: {difference}. The card says template "
                f"{template.name}, so inference will prompt differently from training; "
                "give the template of the records with --prompt-template-path",
            )
    return template, ()


def _kind(records: Sequence[ListwiseRecord]) -> str:
    for record in records:
        try:
            return identifier_kind(record.prompt)
        except RankLLMError:
            continue
    raise RankLLMError(f"no record to train on: none of {len(records)} has a prompt that names its passages [1] or [A]")


def how_it_differs(record: ListwiseRecord, template: ListwiseTemplate) -> str | None:
    """In which part a record's prompt is not what the template writes; None where it is."""
    if template.method != "singleturn_listwise":
        return None  # the records hold one turn; whether it says the same cannot be told
    if (record.system or "") != (template.system_message or ""):
        return "its system turn is not the template's" if record.system else "it has no system turn, the template has"
    opening = re.match(_as_pattern(template.prefix or ""), record.prompt, re.DOTALL)
    if opening is None:
        return "the beginning of its prompt is not the template's"
    suffix = _as_pattern(template.suffix or "")
    if re.search(f"{suffix}\\Z", record.prompt, re.DOTALL) is None:
        return "the end of its prompt is not the template's"
    if not re.match(_as_pattern(template.body), record.prompt[opening.end() :], re.DOTALL):
        return "its first passage is not written as the template writes one"
    return None


def _as_pattern(text: str) -> str:
    pattern = re.escape(text)
    for name, value in _VALUES.items():
        pattern = pattern.replace(re.escape("{" + name + "}"), value)
    return pattern
