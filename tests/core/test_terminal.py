"""Untrusted text is displayed on a terminal without executing its control sequences."""

from __future__ import annotations

import pytest

from rankllm_core.errors import for_terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("over\rwritten\b", r"over\x0dwritten\x08"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("\ud800", r"\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        (
            "caf\u00e9 \u4f60\u597d \U0001f469\u200d\U0001f52c\u00a0",
            "caf\u00e9 \u4f60\u597d \U0001f469\u200d\U0001f52c\u00a0",
        ),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    """Escape sequences, their 8-bit forms, carriage returns, direction marks; letters of all scripts stay."""
    assert for_terminal(text) == shown


def test_a_text_for_one_line_has_no_line_breaks():
    """A qid cannot add a line to the output."""
    assert for_terminal("q\nError: fake\t", one_line=True) == r"q\nError: fake\t"
