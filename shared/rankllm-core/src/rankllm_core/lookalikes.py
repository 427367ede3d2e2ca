"""Files that are often given in place of a run, told by their first line."""

from __future__ import annotations


def mistaken_for_run(line: str) -> str | None:
    """What a line that is not one of a run belongs to, and what to give instead; None where it is not known."""
    fields = line.split("\t")
    if line.lstrip().startswith(("{", "[")):
        return "looks like JSON; requests and results are no run"
    if line.lstrip().startswith("<"):
        return "looks like TREC or XML markup; give the run itself"
    if len(fields) == 4 and all(fields) and not _is_number(fields[3]) and " " in f"{fields[2]} {fields[3]}".strip():
        return (
            "looks like a top1000 file of MS MARCO (qid, pid, query, passage), which holds texts and no ranking; "
            "give the run that it was made from"
        )
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
