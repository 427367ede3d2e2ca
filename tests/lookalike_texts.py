"""Texts that try to pose as identifiers of a prompt, and what the answer reader makes of a text."""

from __future__ import annotations

from hypothesis import strategies as st

from rankllm_core.answers.tokens import normalise, tokenize

PIECES = (
    *"[]()<>&;,.:#>=\n 0123456789AB",
    *(
        "[3]",
        "[ 3",
        "3 ]",
        "［",
        "］",
        "【",
        "】",
        "①",
        "Ⓐ",
        "３",
        "Ａ",
        "٣",
        "\u200b",
        "\u2060",
        "\u00ad",
        "\u0301",
        "\ufe0f",
    ),
    *("&#91;", "&#93;", "&amp;", "&lbrack;", "&#51;", "amp;", "#91;", "&#", "91;", "lbrack;", "\x1b[0m", "\x00"),
    *("ï¼»", "ï¼½", "<b>", "word", "see page", "answer>", "<answer>", "[rankstart]", "P3", "[1, 2", ", 3]", "\uf8e4"),
    *("\\", "\r", "(3", "3)", "[3)", "[(3)", "passage_3", "Passage ", "P3]", "(\r", "\n]]"),
)
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=30)


def marked(text, kind):
    """What the answer reader takes for a bracketed identifier. Lower-case letters and words before it do not count."""
    tokens = tokenize(normalise(text), kind)
    return [token.name for token in tokens if token.is_bracketed and not token.is_lower]
