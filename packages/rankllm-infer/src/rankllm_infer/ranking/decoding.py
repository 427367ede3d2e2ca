"""Whether answers are held to permutations: what is asked for, and whether prompt and tokenizer allow it."""

from __future__ import annotations

from dataclasses import replace

from rankllm_core.card import ListwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.identifiers import identifiers
from rankllm_core.prompts.template import Message, Span
from rankllm_infer.engines.transformers.permutation_ids import permutation_ids
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.listwise import ListwisePlan
from rankllm_infer.ranking.prompts import TokenPromptWriter
from rankllm_infer.ranking.reasoning import reasons_first

_THINKING = ("<think>", "<thinking>")


def decodes_freely(card: ListwiseCard, options: RerankOptions) -> bool:
    """Whether the model writes its answers freely: asked for, by the engine, or because it has to reason first.

    Raises ConfigError where only the top of a window is to be decoded, which free decoding cannot do.
    """
    has_thoughts = reasons_first(card.template, options.system_message)
    if has_thoughts and options.decode_top_k is not None:
        raise ConfigError(
            f"--decode-top-k has no effect with template {card.template.name}, whose answers begin with reasoning; "
            "leave it out"
        )
    return options.free_decoding or options.engine != "transformers" or has_thoughts


def check_decoding(plan: ListwisePlan, writer: TokenPromptWriter) -> tuple[ListwisePlan, tuple[str, ...]]:
    """The plan, and a warning where the chat template makes it one with free decoding after all.

    Raises ContractError where the tokenizer writes no answers that can be held to permutations.
    """
    card = plan.card
    if plan.free_decoding or card.answer != "permutation":
        return plan, ()
    prompt = writer.write((Message("user", (Span("x"),)),)).text
    if prompt.rstrip().endswith(_THINKING):
        if plan.decode_top_k is not None:
            raise ConfigError(
                "--decode-top-k has no effect: the chat template has the model reason first; leave it out"
            )
        note = "the chat template has the model reason first: its answers are decoded freely, and may be cut off"
        return replace(plan, free_decoding=True), (note,)
    labels = identifiers("alpha" if card.identifiers == "alpha" else "numeric", card.window_size)
    permutation_ids(writer.safe, labels, card.template.answer_form, prompt=prompt)
    return plan, ()
