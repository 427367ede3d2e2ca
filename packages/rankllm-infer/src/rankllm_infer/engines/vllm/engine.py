"""vLLM engine, running in this process: prompts join the running batch as soon as they arrive.

FIRST and yes/no are exact for every identifier. vLLM normally reports only the most likely tokens, at most
`max_logprobs`. But `SamplingParams.logprob_token_ids` selects the tokens to report, and with
`logprobs_mode="raw_logits"` their values are logits before any processing: the same numbers that the transformers
engine reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from rankllm_core.prompts.tokens import SafeTokenizer
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError, IdentifierIds, Prompt, text_answer

_FINISHED_WELL = ("stop", "length")
_TURN_BITS = 32
"""Negative tickets with equal higher bits belong to the same turn and are processed in submission order."""


class VllmEngine:
    """One vLLM model behind the Engine protocol, created by `loading.start_vllm`.

    core: vLLM's LLMEngine, or an object with its `add_request`, `step`, `abort_request` and `has_unfinished_requests`.
    ends: tokens that end an answer. max_tokens: positions for a prompt with its answer. has_types: True if the model
    takes token types. n_slots: number of prompts in flight. shut_down: releases the core's resources.
    """

    name = "vllm"
    takes_prompts_at_work = False

    def __init__(
        self,
        core: Any,
        *,
        tokenizer: Any,
        ends: Sequence[int],
        max_tokens: int,
        lora: Any = None,
        has_types: bool = False,
        n_slots: int = 256,
        shut_down: Callable[[], None] = lambda: None,
    ) -> None:
        self._core = core
        self._tokenizer = tokenizer
        self._ends = list(ends)
        self._max_tokens = max_tokens
        self._lora = lora
        self._has_types = has_types
        self.n_slots = n_slots
        self.dtype: str | None = None
        """Dtype of weights and activations; set by the function that starts vLLM."""
        self._shut_down: Callable[[], None] | None = shut_down
        self._identifier_ids = IdentifierIds(SafeTokenizer(tokenizer))
        self._running: dict[int, Prompt] = {}
        self._refused: list[tuple[int, Answer | EngineError]] = []

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Pass a prompt to vLLM, which runs it in the next step that has room."""
        try:
            self._check_length(prompt)
            # The type `token` marks ids to be used as they are: vLLM tokenizes nothing.
            self._core.add_request(
                str(ticket),
                {"type": "token", "prompt_token_ids": list(prompt.token_ids)},
                self._parameters(prompt),
                lora_request=self._lora,
                priority=min(0, ticket >> _TURN_BITS),
            )
        except EngineError as error:
            self._refused.append((ticket, error))
        except ValueError as error:
            self._refused.append((ticket, EngineError(f"vLLM refused the prompt: {_one_line(error)}")))
        else:
            self._running[ticket] = prompt

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Run one step, after which prompts may be submitted and cancelled. The list is empty if it answers no
        prompt."""
        answers, self._refused = self._refused, []
        if self._running and not answers:
            if not self._core.has_unfinished_requests():
                raise RuntimeError(f"vLLM lost {len(self._running)} prompts")
            for output in self._core.step():
                ticket = int(output.request_id)
                if output.finished and ticket in self._running:
                    answers.append((ticket, self._read(self._running.pop(ticket), output)))
        return answers

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop prompts, including those in flight."""
        dropped = set(tickets)
        self._refused = [item for item in self._refused if item[0] not in dropped]
        if here := sorted(dropped & self._running.keys()):
            self._core.abort_request([str(ticket) for ticket in here])
        for ticket in here:
            del self._running[ticket]

    def wake(self) -> None:
        """No effect: steps are short."""

    def close(self) -> None:
        """Drop queued prompts and release the model's memory."""
        self.cancel(list(self._running))
        self._refused.clear()
        if self._shut_down is not None:
            self._shut_down()
        self._core = self._shut_down = None

    def _check_length(self, prompt: Prompt) -> None:
        needed = len(prompt.token_ids) + _new_tokens(prompt)
        if needed > self._max_tokens:
            raise EngineError(
                f"the prompt and its answer take {needed} tokens, but vLLM was started for {self._max_tokens}; "
                "use a smaller --context-size or --window-size (listwise), or --q-max-len and --p-max-len (otherwise)"
            )

    def _parameters(self, prompt: Prompt) -> Any:
        from vllm import PoolingParams, SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if prompt.read == "head":
            # By default, vLLM applies a sigmoid to a single score: same order, but different numbers, and ties near 0
            # and 1.
            types = {"compressed_token_type_ids": prompt.n_first} if self._has_types and prompt.n_first else None
            return PoolingParams(task="classify", use_activation=False, extra_kwargs=types)
        identifiers = self._identifier_ids.of(prompt) if prompt.read == "first-token" else None
        return SamplingParams(
            temperature=0.0,
            max_tokens=_new_tokens(prompt),
            stop_token_ids=self._ends,
            logprob_token_ids=identifiers,
            # The model's own tokenizer decodes the ids, as in the transformers engine.
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _read(self, prompt: Prompt, output: Any) -> Answer | EngineError:
        if prompt.read == "head":
            usage = Usage(calls=1, prompt_tokens=len(prompt.token_ids))
            return Answer(scores=(float(output.outputs.data.item()),), usage=usage)
        generated = output.outputs[0]
        if generated.finish_reason not in _FINISHED_WELL:
            return EngineError(f"vLLM aborted the answer ({generated.finish_reason})")
        if prompt.read == "first-token":
            return self._first_token(prompt, generated.logprobs[0])
        answer = text_answer(prompt, generated.token_ids, ends=self._ends, tokenizer=self._tokenizer)
        return replace(answer, is_truncated=generated.finish_reason == "length")

    def _first_token(self, prompt: Prompt, reported: Any) -> Answer | EngineError:
        """Read the identifiers' logits. reported: id -> vLLM's report, for the sampled token and all requested
        tokens."""
        ids = self._identifier_ids.of(prompt)
        if any(i not in reported for i in ids):
            return EngineError(f"vLLM reported {len(reported)} tokens, but not all {len(ids)} requested identifiers")
        usage = Usage(calls=1, prompt_tokens=len(prompt.token_ids))
        return Answer(scores=tuple(float(reported[i].logprob) for i in ids), usage=usage)


def _new_tokens(prompt: Prompt) -> int:
    """Return the number of tokens to generate. vLLM must generate one token to report its alternatives."""
    return {"head": 0, "first-token": 1}.get(prompt.read, prompt.max_new_tokens)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
