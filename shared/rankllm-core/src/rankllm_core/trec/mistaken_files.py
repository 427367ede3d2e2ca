"""Files that are often given in place of a run, told by their first line."""

from __future__ import annotations


def mistaken_for_run(line: str) -> str | None:
    """What a line that is not one of a run belongs to, and what to give instead; None where it is not known."""
    fields = line.split("\t")
    if line.lstrip().startswith(("{", "[")):
        return "looks like JSON; requests and results are not runs"
    if line.lstrip().startswith("<"):
        return "looks like TREC or XML markup, not a run"
    if len(fields) == 4 and all(fields) and not _is_number(fields[3]) and " " in f"{fields[2]} {fields[3]}".strip():
        return (
            "looks like a top1000 file of MS MARCO (qid, pid, query, passage), which contains texts but no ranking; "
            "give the run it was made from"
        )
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
