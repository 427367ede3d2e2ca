"""Reads the JSON files of a model's folder: bounded in size and depth, errors in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rankllm_core.checkpoints.safetensors_header import refuse_lfs_pointer
from rankllm_core.errors import RankLLMError

MAX_JSON_BYTES = 64 << 20
"""Larger than any published configuration or index (the index of a model of 671B weights has 9 MB)."""
MAX_DEPTH = 64
"""Libraries walk a configuration recursively; published ones are under ten levels deep."""


def read_model_json(path: str | Path) -> dict[str, object] | None:
    """Return the object in one of a model's JSON files, or None where there is no such file.

    Raises RankLLMError in one line that names the file: not a file, not readable, larger than MAX_JSON_BYTES, not
    UTF-8, not JSON, nested deeper than MAX_DEPTH, not an object.
    """
    path = Path(path)
    content = read_bounded(path, limit=MAX_JSON_BYTES)
    if content is None:
        return None
    refuse_lfs_pointer(path, content[:64])
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise RankLLMError(f"{path}: not JSON (not UTF-8 text)") from None
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:
        raise RankLLMError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise RankLLMError(f"{path}: expected a JSON object, found {type(values).__name__}")
    if depth_exceeds(values, MAX_DEPTH):
        raise _too_deep(path)
    return values


def read_bounded(path: Path, *, limit: int) -> bytes | None:
    """Return a regular file's bytes, or None where nothing has this name. Raises RankLLMError."""
    try:
        if not path.exists():
            if path.is_symlink():
                raise RankLLMError(f"{path}: is a link to a file that does not exist; copy or download the model again")
            return None
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise RankLLMError(f"{path}: is {kind}, expected a file")
        if (size := path.stat().st_size) > limit:
            raise RankLLMError(f"{path}: {size} bytes, expected at most {limit}")
        return path.read_bytes()
    except OSError as error:
        raise RankLLMError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None


def depth_exceeds(value: object, limit: int) -> bool:
    """Whether lists and mappings are nested deeper than a limit. Iterative, as it judges what recursion cannot."""
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def walk_json(value: object) -> Iterator[tuple[str, object]]:
    """Yield (key, value) of every mapping in a JSON value, at any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            yield from item.items()
        waiting.extend(_children(item))


def _children(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _too_deep(path: Path) -> RankLLMError:
    return RankLLMError(f"{path}: not usable: JSON nested more than {MAX_DEPTH} levels deep")


def unexpected(path: Path, key: str, expected: str, found: object) -> RankLLMError:
    """Return the error of a value that is not what its key asks for."""
    return RankLLMError(f"{path}: {key}: expected {expected}, found {str(found)[:60]!r}")
