"""The identifiers of passages in a prompt."""

from __future__ import annotations

import pytest

from rankllm_core.errors import ConfigError
from rankllm_core.types import MAX_ALPHA, identifiers


@pytest.mark.parametrize(
    ("kind", "n", "expected"),
    [
        ("numeric", 0, ()),
        ("numeric", 3, ("1", "2", "3")),
        ("alpha", 0, ()),
        ("alpha", 3, ("A", "B", "C")),
        ("alpha", 26, tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
    ],
)
def test_identifiers_count_from_one_or_from_a(kind, n, expected):
    """Numeric identifiers start at 1, alphabetic ones at A, one per passage."""
    assert identifiers(kind, n) == expected


def test_numeric_identifiers_do_not_end():
    """Numbers work for windows of any size."""
    assert identifiers("numeric", 200)[-1] == "200"


def test_past_z_is_an_error_that_says_what_to_do():
    """The originals continue with `[` and a backslash; here the error suggests a smaller window or numbers."""
    assert MAX_ALPHA == 26
    with pytest.raises(
        ConfigError, match=r"27 passages .* only go up to Z; use a window of at most 26, or numeric identifiers"
    ):
        identifiers("alpha", 27)


@pytest.mark.parametrize(("kind", "n", "found"), [("roman", 3, "'roman'"), ("numeric", -1, "-1 passages")])
def test_what_cannot_be_named_is_an_error(kind, n, found):
    """An unknown kind or a negative number of passages is rejected with the value found."""
    with pytest.raises(ConfigError, match=found):
        identifiers(kind, n)
