"""What every engine takes and gives, and how ids become answers. An engine runs a model; it knows no ranking.

An engine is fed prompts one by one (`submit`) and gives answers in whatever order they finish (`collect`), so it is
free to sort, batch and overlap the work, and a slow prompt holds up nobody else's.
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
"""What is read: generated text, the permutation of `identifiers` that greedy decoding finds in the answer's `form`, the
logits of `identifiers` at the last position, or a score head there."""
ModelKind = Literal["causal", "sequence-classification"]
"""Which head a checkpoint is loaded with: a language model's, or one that gives a score."""


def kind_of(read: Read) -> ModelKind:
    """The head that is read."""
    return "sequence-classification" if read == "head" else "causal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question to a model."""

    text: str
    """The prompt as the model sees it, for traces."""
    read: Read
    identifiers: tuple[str, ...] = ()
    """What the prompt calls its passages, in prompt order; with `first-token`, the tokens to read."""
    messages: tuple[Message, ...] = ()
    """The chat turns, for servers that apply the chat template themselves."""
    token_ids: tuple[int, ...] = ()
    """The prompt's ids, for engines that take ids; empty for servers."""
    n_shared: int = 0
    """Leading ids that the prompts yielded with this one begin with too; an engine may compute them once."""
    n_first: int = 0
    """Leading ids of the first token type, the others being of the second; 0 where the tokenizer has no types."""
    max_new_tokens: int = 0
    """With `text`: how many tokens may be generated. With `permutation`: room for the answer."""
    form: AnswerForm = CHAIN
    """With `permutation`: what the answer writes around the identifiers."""
    top_k: int | None = None
    """With `permutation`: decode only so many identifiers; the others follow in prompt order. None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to one prompt."""

    text: str = ""
    """The generated text (`text`), or an answer that names every identifier once (`permutation`); else empty."""
    scores: tuple[float, ...] = ()
    """`first-token`: one logit or log-probability an identifier, in prompt order; -inf where the server did not tell.
    `head`: the one score."""
    is_truncated: bool = False
    """`text`: generation ended at `max_new_tokens`, and not because the model had finished."""
    usage: Usage = field(default_factory=Usage)
    """`permutation`: completion tokens are those of the decoded answer, whether they were chosen or forced."""


class EngineError(RankLLMError):
    """The engine could not answer one prompt, after its retries. The other prompts go on."""


class Engine(Protocol):
    """Runs a model over prompts.

    One thread at a time calls its members, except for `wake` and, with `takes_prompts_at_work`, `submit` and `cancel`.
    """

    name: str
    n_slots: int
    """How many prompts it works on at once; with fewer at hand it is not fully used."""
    takes_prompts_at_work: bool
    """Whether prompts may be submitted and cancelled while another thread collects."""

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt. `ticket` comes back with its answer."""

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Work until a prompt is answered, or for one step; give all answers at hand, each with its ticket.

        An empty list where none is queued, where the step answered none, or after `wake`.

        An engine that batches chooses a batch by the prompts that wait and by their tickets, not by the order in which
        they were submitted: a run that was broken off and goes on submits them in another order, and its batches, which
        show in the scores, must be the same.
        """

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop these prompts: the ones still queued are not run, and no answer need be given to any."""

    def wake(self) -> None:
        """Let a `collect` that waits in another thread return; without effect where one step is short."""

    def close(self) -> None:
        """Give back threads, connections and memory. Queued prompts are dropped."""


class Checkpoint(Protocol):
    """A model that has been opened, and is started as an engine once it is known how it will be prompted."""

    @property
    def tokenizer(self) -> Any:
        """The model's own; None where a server keeps it."""

    @property
    def positions(self) -> int | None:
        """How many tokens the model has positions for; None where it has no limit, or nobody tells."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Settings without effect on this model, and the like."""

    @property
    def place(self) -> str:
        """Device and dtype; empty for a server's model, of which nobody tells."""

    @property
    def where(self) -> str:
        """Where the model runs, to follow its name."""

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> Engine:
        """The engine. Raises RankLLMError where the model cannot be read this way.

        longest: tokens of the longest prompt with its answer. sample: with `permutation`, a prompt such as will come,
        whose answers the tokenizer must be able to write.
        """


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
