"""Engine interface: prompts, answers, and conversion of generated ids. An engine runs a model and knows nothing of
ranking.

Prompts are submitted one at a time (`submit`), and answers are returned in the order in which they finish (`collect`),
so an engine is free to sort, batch and overlap work, and a slow prompt delays no other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rankllm_core.errors import ContractError, RankLLMError
from rankllm_core.prompts.template import Message
from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
from rankllm_core.types import CHAIN, AnswerForm, Usage

Read = Literal["text", "permutation", "first-token", "head"]
"""What is read from the model: generated text; the permutation of `identifiers` that greedy decoding finds, written in
the answer's `form`; the logits of `identifiers` at the last position; or a score head at that position."""
ModelKind = Literal["causal", "sequence-classification"]
"""Head a checkpoint is loaded with: a language-model head or a score head."""


def kind_of(read: Read) -> ModelKind:
    """Return the head that is read."""
    return "sequence-classification" if read == "head" else "causal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt for a model."""

    text: str
    """Prompt as the model sees it, for traces."""
    read: Read
    identifiers: tuple[str, ...] = ()
    """Identifiers of the passages, in prompt order; with `first-token`, the tokens to read."""
    messages: tuple[Message, ...] = ()
    """Chat turns, for servers that apply the chat template themselves."""
    token_ids: tuple[int, ...] = ()
    """Token ids of the prompt, for engines that take ids; empty for servers."""
    n_shared: int = 0
    """Number of leading ids shared with the prompts yielded together with this one; an engine may compute them once."""
    n_first: int = 0
    """Number of leading ids with the first token type, the rest having the second; 0 if the tokenizer has no token
    types."""
    max_new_tokens: int = 0
    """With `text`: maximum number of generated tokens. With `permutation`: room for the answer."""
    form: AnswerForm = CHAIN
    """With `permutation`: text that the answer writes around the identifiers."""
    top_k: int | None = None
    """With `permutation`: decode only this many identifiers; the rest follow in prompt order. None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Model's answer to one prompt."""

    text: str = ""
    """Generated text (`text`), or an answer that names every identifier once (`permutation`); else empty."""
    scores: tuple[float, ...] = ()
    """`first-token`: one logit or log-probability per identifier, in prompt order; -inf if the server did not report
    it. `head`: a single score."""
    is_truncated: bool = False
    """`text`: generation stopped at `max_new_tokens` before the model had finished."""
    usage: Usage = field(default_factory=Usage)
    """`permutation`: completion tokens are those of the decoded answer, whether chosen or forced."""


class EngineError(RankLLMError):
    """The engine could not answer a prompt after its retries. Other prompts continue."""


class Engine(Protocol):
    """Runs a model over prompts.

    Not thread-safe, except for `wake` and, with `takes_prompts_at_work`, `submit` and `cancel`.
    """

    name: str
    n_slots: int
    """Number of prompts processed concurrently; with fewer prompts, the engine is not fully used."""
    takes_prompts_at_work: bool
    """True if prompts may be submitted and cancelled while another thread collects."""

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt. Its answer is returned with `ticket`."""

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Work until a prompt is answered, or for one step; return all available answers with their tickets.

        The list is empty if no prompt is queued, if the step answered none, or after `wake`.

        An engine that batches must choose batches by the queued prompts and their tickets, not by submission order: a
        resumed run submits prompts in another order, but its batches, which affect scores, must be the same.
        """

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop these prompts: queued ones are not run, and answers of the others may be discarded."""

    def wake(self) -> None:
        """Make a `collect` waiting in another thread return; no effect if steps are short."""

    def close(self) -> None:
        """Release threads, connections and memory. Queued prompts are dropped."""


class Checkpoint(Protocol):
    """An opened model, to be started as an engine once it is known how it will be prompted."""

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the model; None if only a server has it."""

    @property
    def positions(self) -> int | None:
        """Number of positions of the model; None if it has no limit or the limit is unknown."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings, such as settings that have no effect on this model."""

    @property
    def place(self) -> str:
        """Device and dtype; empty for a server's model, where they are unknown."""

    @property
    def where(self) -> str:
        """Where the model runs, as a phrase that follows its name."""

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> Engine:
        """Start the engine. Raises RankLLMError if the model cannot be read this way.

        longest: number of tokens of the longest prompt with its answer. sample: with `permutation`, a representative
        prompt, whose answers the tokenizer must be able to express.
        """


class IdentifierIds:
    """Token id of each identifier at the end of a prompt, cached per set of identifiers."""

    def __init__(self, safe: SafeTokenizer) -> None:
        self._safe = safe
        self._known: dict[tuple[tuple[str, ...], str], list[int]] = {}

    def of(self, prompt: Prompt) -> list[int]:
        """Return one id per identifier, in prompt order. Raises ContractError if an identifier is more than one
        token."""
        key = (prompt.identifiers, prompt.text[-1:])
        if key not in self._known:
            self._known[key] = single_ids(self._safe, prompt.identifiers, after=prompt.text[-1:])
        return self._known[key]


def end_ids(declared: int | Sequence[int] | None, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: those declared by the model's generation settings, else the tokenizer's."""
    if declared is None:
        declared = tokenizer.eos_token_id
    if declared is None:
        raise ContractError("neither the model nor its tokenizer names an end-of-text token")
    return [declared] if isinstance(declared, int) else list(declared)


def text_answer(prompt: Prompt, ids: Sequence[int], *, ends: Sequence[int], tokenizer: Any) -> Answer:
    """Decode newly generated ids into an answer. The end token is counted but not shown; anything after it is
    ignored."""
    ids = list(ids[: prompt.max_new_tokens])
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    completion_tokens = len(ids) if end is None else end + 1
    usage = Usage(calls=1, prompt_tokens=len(prompt.token_ids), completion_tokens=completion_tokens)
    return Answer(text=text, is_truncated=end is None, usage=usage)
