"""Prevent untrusted text from posing as control tokens of an unknown tokenizer.

A server applies the chat template and tokenizes by itself, and treats `<|im_end|>` as the end of a turn wherever it
occurs. Anything that looks like a control token in a query or a passage is therefore broken by a space after its first
character: `< |im_end|>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rankllm_core.prompts.template import Span

_BAR = r"[|\uff5c]"
_NAME = r"[^\s<>\[|\uff5c]{1,64}"
# # All quantifiers are bounded and no name contains an opening character: the search is linear and matches cannot nest.
_CONTROL_TOKEN = re.compile(
    "|".join(
        (
            # <|im_end|> <|eot_id|> <|user|> (most models; DeepSeek with full-width bars), <|turn> <turn|> (Gemma 4)
            rf"<(?:{_BAR}{_NAME}{_BAR}?|{_NAME}{_BAR})>",
            # [|user|] (EXAONE)
            r"\[\|[^\s\[\]<|]{1,64}\|\]",
            # <<SYS>> (Llama 2)
            r"<</?SYS>>",
            # <s> </s> <bos> <eos> <unk> <pad> <mask> (SentencePiece models)
            r"</?(?:s|(?i:bos|eos|unk|pad|mask|sep|cls))>",
            # reasoning and tool calls (Qwen3, DeepSeek, GLM, MiniMax), single tokens in many tokenizers
            r"</?(?:think|tools?|tool_calls?|tool_responses?|arg_key|arg_value)>",
            # <start_of_turn> <end_of_image> (Gemma), <sop> <eop> (GLM), <AI> (MiniCPM), <endoftext>, fill-in-the-middle
            r"</?(?:(?:start|end)_of_(?:turn|image|audio)|image_soft_token|sop|eop|AI|用户|endoftext|im_start|im_end"
            r"|fim_(?:prefix|middle|suffix|pad)|seed:[a-z_]{1,32})>",
            # spare tokens: <extra_id_0> (T5), <unused7> (Gemma), <SPECIAL_10> (Nemotron), <reserved_106> (Baichuan)
            r"<(?:extra_id_|unused|SPECIAL_|reserved_|reserved_token_)\d{1,6}>",
            # [INST] [SYSTEM_PROMPT] [TOOL_CALLS] ... (Mistral)
            r"\[/?(?:INST|SYSTEM_PROMPT|MODEL_SETTINGS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID"
            r"|THINK|IMG|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX)\]",
            # [CLS] [SEP] ... (BERT), [gMASK] (GLM), [UNUSED_TOKEN_145] (InternLM), [control_8] (Mistral)
            r"\[(?:CLS|SEP|MASK|gMASK|sMASK|PAD|UNK|BOS|EOS|(?:UNUSED_TOKEN_|control_)\d{1,6})\]",
        )
    )
)


def safe_content(spans: Sequence[Span]) -> str:
    """Return the text of a turn, breaking each control token that untrusted text forms, entirely or in part.

    A space is inserted after the token's first character. Tokens that span several spans are found too, such as `<|im_`
    in a title and `end|>` in the text after it. Takes time linear in the length of the text.
    """
    text = "".join(span.text for span in spans)
    pieces, done = [], 0
    for start in _foreign_tokens(text, _untrusted_ranges(spans)):
        pieces += [text[done : start + 1], " "]
        done = start + 1
    return "".join([*pieces, text[done:]])


def _foreign_tokens(text: str, untrusted: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Yield the start of each control token that overlaps an untrusted range; both are in order."""
    ranges = iter(untrusted)
    current = next(ranges, None)
    for match in _CONTROL_TOKEN.finditer(text):
        while current is not None and current[1] <= match.start():
            current = next(ranges, None)
        if current is None:
            return
        if current[0] < match.end():
            yield match.start()


def _untrusted_ranges(spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each non-empty untrusted span in the joined text."""
    start = 0
    for span in spans:
        end = start + len(span.text)
        if span.untrusted and end > start:
            yield start, end
        start = end
