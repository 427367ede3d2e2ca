"""What engines that take ids share: the ids of identifiers, the ids that end an answer, the answer in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankllm_core.errors import ContractError
from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, Prompt


class IdentifierIds:
    """The token of each identifier of a prompt where the prompt ends; looked up once a set of identifiers."""

    def __init__(self, safe: SafeTokenizer) -> None:
        self._safe = safe
        self._known: dict[tuple[tuple[str, ...], str], list[int]] = {}

    def of(self, prompt: Prompt) -> list[int]:
        """One id an identifier, in prompt order. Raises ContractError where one is more than a token."""
        key = (prompt.identifiers, prompt.text[-1:])
        if key not in self._known:
            self._known[key] = single_ids(self._safe, prompt.identifiers, after=prompt.text[-1:])
        return self._known[key]


def end_ids(declared: int | Sequence[int] | None, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those that the model's generation settings declare, or the tokenizer's."""
    if declared is None:
        declared = tokenizer.eos_token_id
    if declared is None:
        raise ContractError("neither the model nor its tokenizer names an end-of-text token")
    return [declared] if isinstance(declared, int) else list(declared)


def text_answer(prompt: Prompt, ids: Sequence[int], *, ends: Sequence[int], tokenizer: Any) -> Answer:
    """The answer in newly generated ids. The end token is counted but not shown; nothing is read behind it."""
    ids = list(ids[: prompt.max_new_tokens])
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    completion_tokens = len(ids) if end is None else end + 1
    usage = Usage(calls=1, prompt_tokens=len(prompt.token_ids), completion_tokens=completion_tokens)
    return Answer(text=text, is_truncated=end is None, usage=usage)
