"""Detection of records whose prompts do not show their passages, or make different ones look the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from rankllm_core.prompts.content import find_same, is_blank, may_look_alike, nothing_check
from rankllm_core.prompts.pairs import PairEncoder
from rankllm_train.data.records import ListwiseRecord, PointwiseRecord
from rankllm_train.data.shortening import passage_spans


class Encoded(Protocol):
    """Encoded record, of which the first `n_prompt` ids are the prompt's."""

    token_ids: object
    n_prompt: int


class WindowWatch:
    """Checks records one at a time. Only the first one, and those whose ids occurred before, are encoded a second time.

    encode: encodes a record. Memory: one number per record.
    """

    def __init__(self, encode: Callable[[ListwiseRecord], Encoded]) -> None:
        self._encode = encode
        self._seen: set[int] = set()

    def check(self, record: ListwiseRecord, encoded: Encoded) -> None:
        """Raise DataError if other passages would give the same prompt, which a chat template may cause."""
        ids = _prompt_ids(encoded)
        is_suspect = not self._seen or hash(ids) in self._seen
        self._seen.add(hash(ids))
        if is_suspect and _prompt_ids(self._encode(_with_other_passages(record))) == ids:
            raise record.error(
                "the prompt does not contain the passages; check the tokenizer's chat template, or set chat_layout in "
                "the prompt template"
            )


def n_alike(record: ListwiseRecord, shorter: ListwiseRecord) -> int:
    """Return how many passages of a truncated record look the same as another one that differs in the full record."""
    whole, shown = ([r.prompt[start:end] for start, end in passage_spans(r.prompt)] for r in (record, shorter))
    if len(whole) != len(shown):
        return 0
    return len(find_same(shown, range(len(shown)), lambda position: whole[position]))


def _prompt_ids(encoded: Encoded) -> tuple[int, ...]:
    return tuple(encoded.token_ids[: encoded.n_prompt])  # type: ignore[index]


def _with_other_passages(record: ListwiseRecord) -> ListwiseRecord:
    parts, position = [], 0
    for start, end in passage_spans(record.prompt):
        other = "a" if record.prompt[start:end].startswith("0") else "0"
        parts += [record.prompt[position:start], other if record.prompt[start:end].strip() else ""]
        position = end
    return replace(record, prompt="".join(parts) + record.prompt[position:])


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFindings:
    """Problems with the prompts of one record."""

    problem: str = ""
    """Why its gradient is 0 whichever passages are sampled; empty if it is not."""
    n_alike: int = 0
    """Passages with the same prompt as a different passage; copies of a text do not count."""


def check_pairs(record: PointwiseRecord, encoder: PairEncoder) -> PairFindings:
    """Check the prompts of a record. Only passages that start alike are tokenized, which keeps large files fast.

    A chat template that drops the passage is detected by `drops_passages` instead.
    """
    room = encoder.passage_room(record.query)
    if not room:
        return PairFindings(
            problem="the prompts do not contain the passages: the query fills their token limit, so the gradient is 0; "
            "use a larger --p-max-len (or --q-max-len), or a shorter query"
        )
    passages = [(p.title, p.text) for p in (*record.positives, *record.negatives)]
    suspects = may_look_alike(passages, room)
    ids = {at: encoder.encode(record.query, title=passages[at][0], text=passages[at][1]) for at in suspects}
    keys = [ids.get(at) for at in range(len(passages))]
    same = find_same(keys, suspects, lambda at: "\n".join(passages[at]))
    if same and len(suspects) == len(passages) and len(set(keys)) == 1:
        return PairFindings(
            problem=f"its {len(passages)} passages differ, but share one prompt, so the gradient is 0; "
            "use a larger --p-max-len (or --q-max-len)"
        )
    return PairFindings(n_alike=len(same))


def drops_passages(record: PointwiseRecord, encoder: PairEncoder) -> bool:
    """Whether none of the record's prompts contains its passage, as with a chat template that drops it."""
    shows_nothing = nothing_check(lambda title, text: encoder.encode(record.query, title=title, text=text))
    passages = [(p.title, p.text) for p in (*record.positives, *record.negatives)]
    shown = [passage for passage in passages if not is_blank(passage)]
    return bool(shown) and all(
        shows_nothing(encoder.encode(record.query, title=title, text=text), (title, text)) for title, text in shown
    )
