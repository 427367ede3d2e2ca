"""Finds pointwise records whose prompts do not tell their passages apart: nothing can be learnt from them."""

from __future__ import annotations

from dataclasses import dataclass

from rankllm_core.prompts.content import find_same, is_blank, may_look_alike, nothing_check
from rankllm_core.prompts.pairs import PairEncoder
from rankllm_train.data.records import PointwiseRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFindings:
    """What is wrong with the prompts of one record."""

    problem: str = ""
    """Why its gradient is 0, whichever of its passages are drawn; empty where it is not."""
    n_alike: int = 0
    """Passages with the prompt of another, different one; copies of a text do not count."""


def check_pairs(record: PointwiseRecord, encoder: PairEncoder) -> PairFindings:
    """Look at the prompts of a record. Only passages that begin alike are tokenised, so that a large file costs little.

    The check does not see a chat template that drops the passage; `drops_passages` does.
    """
    room = encoder.passage_room(record.query)
    if not room:
        return PairFindings(
            problem="prompts hold nothing of the passages: the query takes all their room, the gradient is 0; "
            "use a larger --p-max-len (or --q-max-len), or a shorter query"
        )
    passages = [(p.title, p.text) for p in (*record.positives, *record.negatives)]
    suspects = may_look_alike(passages, room)
    ids = {at: encoder.encode(record.query, title=passages[at][0], text=passages[at][1]) for at in suspects}
    keys = [ids.get(at) for at in range(len(passages))]
    same = find_same(keys, suspects, lambda at: "\n".join(passages[at]))
    if same and len(suspects) == len(passages) and len(set(keys)) == 1:
        return PairFindings(
            problem=f"its {len(passages)} passages differ, but have one and the same prompt, so the gradient is 0; "
            "use a larger --p-max-len (or --q-max-len)"
        )
    return PairFindings(n_alike=len(same))


def drops_passages(record: PointwiseRecord, encoder: PairEncoder) -> bool:
    """Whether none of the record's prompts holds anything of its passage, as with a chat template that drops it."""
    shows_nothing = nothing_check(lambda title, text: encoder.encode(record.query, title=title, text=text))
    passages = [(p.title, p.text) for p in (*record.positives, *record.negatives)]
    shown = [passage for passage in passages if not is_blank(passage)]
    return bool(shown) and all(
        shows_nothing(encoder.encode(record.query, title=title, text=text), (title, text)) for title, text in shown
    )
