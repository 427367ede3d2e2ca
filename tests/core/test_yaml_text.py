"""Untrusted YAML: plain data within limits, or a one-line error with file and line."""

from __future__ import annotations

import time
from importlib import resources

import pytest
import yaml

from rankllm_core.config import load_yaml, parse_yaml, typed
from rankllm_core.errors import ConfigError


def bomb(width, levels):
    """Nested aliases, each level repeating the previous one."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2001-99-99", "f.yaml:1: not YAML: '2001-99-99' is read as a date; put it in quotes"),
        ("a: 2001-01-01", "f.yaml:1: not YAML: '2001-01-01' is read as a date; put it in quotes"),
        ("a: 1\nb: 0x_", "f.yaml:2: not YAML: '0x_' is not a valid int"),
        ("a: 0b_", "f.yaml:1: not YAML: '0b_' is not a valid int"),
        ("a: " + "1" * 5000, "f.yaml:1: not YAML: a number with 5,000 characters"),
        ("a: 1." + "1" * 5000, "f.yaml:1: not YAML: a number with 5,002 characters"),
        ('a: !!int "abc"', "f.yaml:1: not YAML: 'abc' is not a valid int"),
        ("a: !!float x", "f.yaml:1: not YAML: 'x' is not a valid float"),
        ("a: !!bool x", "f.yaml:1: not YAML: 'x' is not a valid bool"),
        ("a: !!timestamp x", "f.yaml:1: not YAML: 'x' is read as a date"),
        ("a: !!binary x", "f.yaml:1: not YAML: binary data is not supported"),
        ("a: !!set {b}", "f.yaml:1: not YAML: a set is not supported"),
        ("a: !!omap [b: 1]", "f.yaml:1: not YAML: an ordered map is not supported"),
        ("a: !!python/object/apply:os.getcwd []", "f.yaml:1: not YAML: could not determine a constructor"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "f.yaml:4: not YAML: the key 'b' occurs twice; remove one"),
        ("a:\n  1: x", "f.yaml:2: not YAML: expected the key to be a string, found '1'; put it in quotes"),
        ("on: x", "f.yaml:1: not YAML: expected the key to be a string, found 'on'; put it in quotes"),
        ("? [a]\n: b", "f.yaml:1: not YAML: expected the key to be a string, found a list"),
        ("a: 1\nb: \x00", "f.yaml:2: "),
        ("a: \x1b[31m", "f.yaml:1: not YAML: special characters are not allowed"),
        ('a: "\\ud800"', "f.yaml:1: not YAML: '\\ud800' contains a lone surrogate"),
        ('a: "\\UFFFFFFFF"', "f.yaml: not YAML: "),
        ("a: &x [*x]", "f.yaml:1: not YAML: the alias *x refers to a node that contains it"),
        ("a: &x {b: {c: *x}}", "f.yaml:1: not YAML: the alias *x refers to a node that contains it"),
        ("a: 1\n---\nb: 2", "f.yaml:2: not YAML: but found another document"),
        ("a: " + "[" * 3000 + "]" * 3000, "f.yaml:1: not YAML: nested more than 50 levels deep"),
        ("\n".join(" " * n + "a:" for n in range(60)), "f.yaml:50: not YAML: nested more than 50 levels deep"),
        ("- " * 3000, "f.yaml:1: not YAML: nested more than 50 levels deep"),
        ("a:\n" + "- 1\n" * 20_000, "more than 4,000 keys and values"),
        ("a: " + "x" * 300_000, "f.yaml: more than 262,144 characters"),
        (bomb(9, 9), "f.yaml:5: not YAML: more than 4,000 keys and values, counting those repeated by aliases"),
        (bomb(2, 60), "not YAML: more than 4,000 keys and values"),
    ],
)
def test_what_is_no_plain_data_is_one_line(tmp_path, text, message):
    """Each is rejected quickly."""
    path = tmp_path / "f.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    assert time.monotonic() - began < 10
    assert message in str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_deep_aliases_are_as_deep_as_what_they_stand_for():
    """A chain of aliases nests without brackets."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(ConfigError, match="nested more than 50 levels deep"):
        parse_yaml("\n".join(lines), where="f")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\n".encode("utf-16"), "text in UTF-16, expected UTF-8 text; convert it with: iconv"),
        (b"a: \xff\n", "not UTF-8"),
        (b"\x1f\x8b\x08\x00", "damaged archive"),
        (b"PK\x03\x04", "a ZIP archive"),
    ],
)
def test_what_is_no_text_is_one_line(tmp_path, content, message):
    """The error is the same as for other files."""
    (tmp_path / "f.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"f\.yaml: {message}"):
        load_yaml(tmp_path / "f.yaml")


def test_a_few_aliases_and_merges_are_no_bomb():
    """This is the normal use of these YAML features."""
    text = "base: &base {r: 8, names: [a, b]}\nother: {<<: *base, r: 16}\nagain: [*base, *base]\n"
    base = {"r": 8, "names": ["a", "b"]}
    assert parse_yaml(text, where="f") == {"base": base, "other": {**base, "r": 16}, "again": [base, base]}


def test_ordinary_values_are_what_pyyaml_makes_of_them():
    """Every bundled template and card, and a list of scalars."""
    files = [
        file.read_text(encoding="utf-8")
        for folder in ("templates", "cards")
        for file in (resources.files("rankllm_core") / folder).iterdir()
        if file.name.endswith(".yaml")
    ]
    assert len(files) > 10
    for text in (*files, "- 1\n- 0x1F\n- 0o7\n- 1_000\n- 1e-5\n- 1.5\n- yes\n- ~\n- 'x'\n- |\n  y\n- 1:30\n", "", "x"):
        assert parse_yaml(text, where="f") == yaml.safe_load(text)


def test_a_value_of_an_option_has_no_line():
    """For example `--set a.b=[`."""
    with pytest.raises(ConfigError, match=r"^--set a\.b: not YAML: "):
        parse_yaml("[", where="--set a.b", is_one_line=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_settings_are_finite(value):
    """`.nan` passes every comparison."""
    with pytest.raises(ConfigError, match="w: expected a finite number, found"):
        typed(value, float, where="w")


def test_a_huge_value_is_not_printed_whole():
    """The message stays one line."""
    with pytest.raises(ConfigError) as caught:
        typed(["x" * 1000] * 1000, int, where="w")
    assert len(str(caught.value)) < 300
