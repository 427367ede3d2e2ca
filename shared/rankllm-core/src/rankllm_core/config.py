"""Validated YAML: an unknown key is an error that suggests the likely spelling.

Settings files are plain data: size and depth are limited, and tags that construct objects, dates and repeated keys are
rejected.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rankllm_core.errors import ConfigError, DataError
from rankllm_core.files.reading import read_text

MAX_CHARACTERS = 256 << 10
"""Twenty times the largest card that a training run writes."""
MAX_DEPTH = 50
"""Maximum nesting of lists and mappings."""
MAX_NODES = 4_000
"""Maximum number of keys and values in a file, counting those repeated by aliases."""

_LONGEST_NUMBER = 64
_SHOWN_CHARACTERS = 200
_TOO_MANY_NODES = f"more than {MAX_NODES:,} keys and values, counting those repeated by aliases"
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG_PREFIX = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_TAG_PREFIX + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge"))
_TAG_NAMES = {
    "timestamp": "a date",
    "binary": "binary data",
    "set": "a set",
    "omap": "an ordered map",
    "pairs": "pairs",
}


def load_yaml(path: str | Path) -> dict[str, object]:
    """Read a YAML file with one mapping. Raises ConfigError naming the file and, if known, the line."""
    try:
        text = read_text(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    return mapping(parse_yaml(text, where=str(path)), where=str(path))


def parse_yaml(text: str, *, where: str, is_one_line: bool = False) -> Any:
    """Parse a YAML text: plain data without object-constructing tags or dates, with unique string keys.

    where: the file, or the option of a text `is_one_line`, for which no line is named. Raises ConfigError, also beyond
    MAX_CHARACTERS, MAX_DEPTH or MAX_NODES.
    """
    try:
        return plain_yaml(text)
    except YamlError as error:
        place = where if is_one_line or error.line is None else f"{where}:{error.line}"
        raise ConfigError(f"{place}: {error}") from None


def mapping(value: object, *, where: str) -> dict[str, object]:
    """Return the value as a mapping with string keys. Raises ConfigError if it is not one."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{where}: expected a mapping of names to values, found {type(value).__name__}")
    return dict(value)


def check_keys(found: Iterable[str], allowed: Iterable[str], *, where: str) -> None:
    """Raise ConfigError for the first key that is not allowed, suggesting the closest allowed name."""
    allowed = sorted(allowed)
    for key in found:
        if key not in allowed:
            raise ConfigError(f"{where}: {key}: unknown key{did_you_mean(key, allowed)}")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the list of choices if none is close."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(choices)}"


def typed(value: object, kind: type | tuple[type, ...], *, where: str) -> object:
    """Return the value. Raises ConfigError if its type is wrong or it is not finite. A boolean is not a number."""
    _of_type(value, kind if isinstance(kind, tuple) else (kind,), where=where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, found {value}")
    return value


def numbers(value: object, *, where: str) -> tuple[float, ...]:
    """Return the value as numbers, possibly infinite or NaN. Raises ConfigError if it is not a list of numbers."""
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of numbers, found {type(value).__name__} {_brief(value)}")
    return tuple(float(_of_type(number, (int, float), where=where)) for number in value)  # type: ignore[arg-type]


def _of_type(value: object, kinds: tuple[type, ...], *, where: str) -> object:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise ConfigError(f"{where}: expected {names}, found {type(value).__name__} {_brief(value)}")
    return value


def at_least(least: float, *, data: object, names: tuple[str, ...], section: str) -> None:
    """Raise ConfigError if one of these values of a section is below the minimum, infinite or NaN."""
    for name in names:
        if not least <= getattr(data, name) < math.inf:
            raise ConfigError(f"{section}.{name}: expected {least} or more, found {getattr(data, name)}")


def one_of(value: object, choices: Iterable[str], *, where: str) -> str:
    """Return the value if it is one of the choices. Raises ConfigError otherwise."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(f"{where}: expected one of {', '.join(choices)}; found {_brief(value)}")
    return str(value)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


class YamlError(Exception):
    """Text that cannot be read as YAML. line: 1-based, or None if unknown."""

    def __init__(self, problem: str, *, line: int | None = None) -> None:
        self.line = line
        super().__init__(problem)


def plain_yaml(text: str) -> Any:
    """Parse a YAML text into dict, list, str, int, float, bool and None. Raises YamlError for anything else."""
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"more than {MAX_CHARACTERS:,} characters, which is too long for a settings file")
    try:
        loader = _PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"not YAML: {error.reason} (character {error.character!r})", line=line) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
        raise YamlError(f"not YAML: {problem[:_SHOWN_CHARACTERS]}", line=mark.line + 1 if mark else None) from None
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF" is not a character
        raise YamlError(f"not YAML: {error}") from None
    except RecursionError:
        raise YamlError(f"nested more than {MAX_DEPTH} levels deep") from None


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader in pure Python, so that messages and limits are the same on every machine."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._size: dict[int, tuple[int, int]] = {}
        """id of a completed node -> (nodes in it, its depth)."""
        self._nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a node like PyYAML, within the limits."""
        self._depth += 1
        self._nodes += 1
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if self._depth > MAX_DEPTH:
            raise _refused(f"nested more than {MAX_DEPTH} levels deep", mark)
        if self._nodes > MAX_NODES:
            raise _refused(_TOO_MANY_NODES, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._size:
            raise _refused(f"the alias *{event.anchor} refers to a node that contains it", mark)
        size, depth = self._measure(node)
        if self._depth + depth > MAX_DEPTH:
            raise _refused(f"nested more than {MAX_DEPTH} levels deep", mark)
        if size > MAX_NODES:
            raise _refused(_TOO_MANY_NODES, mark)
        return node

    def _measure(self, node: Node) -> tuple[int, int]:
        if (known := self._size.get(id(node))) is not None:
            return known
        children: list[Node] = []
        if isinstance(node, MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, SequenceNode):
            children = list(node.value)
        sizes = [self._size[id(child)] for child in children]
        measured = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        self._size[id(node)] = measured
        return measured

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Construct a value like PyYAML; invalid values are errors with their line."""
        if isinstance(node, ScalarNode):
            _check_scalar(node)
        if node.tag not in _PLAIN_TAGS and node.tag.removeprefix(_TAG_PREFIX) in _TAG_NAMES:
            raise _refused(_not_plain(node), node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            raise _refused(
                f"{_shown_node(node)} is not a valid {node.tag.removeprefix(_TAG_PREFIX)}", node.start_mark
            ) from None

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping like PyYAML; keys must be unique strings."""
        if isinstance(node, MappingNode):
            self._check_keys(node)
        return super().construct_mapping(node, deep)

    def _check_keys(self, node: MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _TAG_PREFIX + "merge":
                continue
            if key.tag != _TAG_PREFIX + "str" or not isinstance(key, ScalarNode):
                problem = f"expected the key to be a string, found {_shown_node(key)}; put it in quotes"
                raise _refused(problem, key.start_mark)
            if key.value in seen:
                raise _refused(f"the key {_shown_node(key)} occurs twice; remove one", key.start_mark)
            seen.add(key.value)


def _check_scalar(node: ScalarNode) -> None:
    if node.tag in (_TAG_PREFIX + "int", _TAG_PREFIX + "float") and len(node.value) > _LONGEST_NUMBER:
        raise _refused(
            f"a number with {len(node.value):,} characters, expected at most {_LONGEST_NUMBER}", node.start_mark
        )
    if _SURROGATE.search(node.value):
        raise _refused(f"{_shown_node(node)} contains a lone surrogate, which is not a character", node.start_mark)


def _not_plain(node: Node) -> str:
    name = _TAG_NAMES[node.tag.removeprefix(_TAG_PREFIX)]
    return (
        f"{_shown_node(node)} is read as {name}; put it in quotes" if name == "a date" else f"{name} is not supported"
    )


def _shown_node(node: Node) -> str:
    if not isinstance(node, ScalarNode):
        return "a mapping" if isinstance(node, MappingNode) else "a list"
    return repr(node.value if len(node.value) <= 60 else node.value[:60] + "...")


def _refused(problem: str, mark: Any) -> ConstructorError:
    return ConstructorError(None, None, problem, mark)
