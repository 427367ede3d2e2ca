"""Reading YAML into validated values."""

from __future__ import annotations

import pytest

from rankllm_core.config import check_keys, did_you_mean, load_yaml, mapping, one_of, typed
from rankllm_core.errors import ConfigError, RankLLMError


def test_a_yaml_mapping_is_read(tmp_path):
    """Comments and block scalars are supported."""
    path = tmp_path / "a.yaml"
    path.write_text("# why\nname: x\nbody: |\n  line\nn: 3\n", encoding="utf-8")
    assert load_yaml(path) == {"name": "x", "body": "line\n", "n": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1\nc: 2\n", r"a\.yaml:3: not YAML: "),
        (b"- a\n- b\n", r"a\.yaml: expected a mapping of names to values, found list"),
        (b"", r"a\.yaml: expected a mapping of names to values, found NoneType"),
        (b"a: \xff\xfe\n", r"a\.yaml.*: not (YAML|UTF-8)"),
        (b"a: !!python/object/apply:os.getcwd []\n", r"a\.yaml:1: not YAML: .*could not determine a constructor"),
    ],
)
def test_what_is_no_mapping_is_an_error_that_names_the_file(tmp_path, content, message):
    """The error gives the line if the parser knows it; YAML tags never create Python objects."""
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_yaml(path)


def test_a_missing_file_is_one_line(tmp_path):
    """A missing path is a user error, not a traceback."""
    with pytest.raises(RankLLMError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")


def test_an_unknown_key_is_an_error_that_guesses_what_was_meant():
    """A misspelled key is not ignored."""
    check_keys(["stride", "size"], ["size", "stride"], where="card")
    with pytest.raises(ConfigError, match=r"card: strid: unknown key; did you mean 'stride'\?"):
        check_keys(["strid"], ["size", "stride"], where="card")
    with pytest.raises(ConfigError, match="card: zzz: unknown key; known: size, stride"):
        check_keys(["zzz"], ["size", "stride"], where="card")


def test_the_nearest_word_is_suggested_or_all_are_listed():
    """The message is short if there is a close match."""
    assert did_you_mean("rank_zefyr", ["rank_gpt", "rank_zephyr"]) == "; did you mean 'rank_zephyr'?"
    assert did_you_mean("x", ["aa", "bb"]) == "; known: aa, bb"


def test_a_boolean_is_not_a_number():
    """`context_tokens: yes` is a mistake, although Python counts True as 1."""
    assert typed(3, int, where="n") == 3
    assert typed(True, bool, where="b") is True
    with pytest.raises(ConfigError, match="n: expected int, found bool True"):
        typed(True, int, where="n")
    with pytest.raises(ConfigError, match=r"n: expected int or str, found float 1.5"):
        typed(1.5, (int, str), where="n")


def test_keys_must_be_names():
    """`1: x` in a mapping of options is rejected."""
    assert mapping({"a": 1}, where="w") == {"a": 1}
    with pytest.raises(ConfigError, match="w: expected a mapping of names to values"):
        mapping({1: "x"}, where="w")


def test_a_choice_must_be_one_of_those_offered():
    """The message lists the choices and the value found."""
    assert one_of("a", ("a", "b"), where="w") == "a"
    with pytest.raises(ConfigError, match=r"w: expected one of a, b; found None"):
        one_of(None, ("a", "b"), where="w")
