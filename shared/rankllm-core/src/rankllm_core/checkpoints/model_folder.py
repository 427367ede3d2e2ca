"""Validation of a model folder before heavy imports: its small files, its JSON, and code that comes with it.

What fails here would make libraries raise long errors, allocate without bound, or run code. For weights, see `weights`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rankllm_core.errors import ConfigError, RankLLMError

MAX_JSON_BYTES = 64 << 20
"""Larger than any published configuration or index (the index of a 671B model has 9 MB)."""
MAX_DEPTH = 64
"""Libraries walk a configuration recursively; published ones are less than ten levels deep."""
LFS_POINTER = b"version https://git-lfs.github.com/"

_JSON_FILES = (
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
)
_MAX_TOKENIZER_BYTES = 256 << 20
"""The largest published tokenizer.json has about 35 MB."""
_MAX_TEMPLATE_BYTES = 1 << 20
_SIZES = {
    "vocab_size": 1 << 26,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 16,
    "max_position_embeddings": 1 << 31,
}
"""Sizes that must be positive integers if a configuration specifies them, with upper bounds."""
_OPTIONAL_SIZES = {
    "intermediate_size": 1 << 22,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "num_experts": 1 << 14,
    "num_local_experts": 1 << 14,
    "n_routed_experts": 1 << 14,
    "n_layer": 1 << 10,
    "n_embd": 1 << 20,
    "n_head": 1 << 16,
    "n_positions": 1 << 31,
    "state_size": 1 << 16,
}
"""Sizes that may also be null, in which case the library uses its default."""
_MAX_LORA_RANK = 1 << 14
_MAX_PATTERN_CHARACTERS = 4000
_NESTED_REPETITION = re.compile(r"[+*}]\??[^()]*\)[+*{]")
"""For example `(a+)+`: matching it against a name may take exponential time."""
_KERNEL_KEYS = re.compile(r"(attn|experts)_implementation(_internal)?$")
_PINNED_NAME = re.compile(r"(?P<name>[^@]+)@(?P<revision>[0-9a-f]{40})")


def check_settings_files(folder: str | Path) -> None:
    """Validate a folder's small files: configuration, tokenizer, adapter settings, chat template. Missing ones pass.

    Raises RankLLMError naming the file.
    """
    folder = Path(folder)
    found = {name: values for name in _JSON_FILES if (values := read_model_json(folder / name)) is not None}
    for name, values in found.items():
        _refuse_hub_kernels(folder / name, values)
    _check_longest(folder / "tokenizer_config.json", found.get("tokenizer_config.json", {}))
    _check_token_ids(folder / "generation_config.json", found.get("generation_config.json", {}))
    if (config := found.get("config.json")) is not None:
        _check_config(folder / "config.json", config)
    if (adapter := found.get("adapter_config.json")) is not None:
        _check_adapter_config(folder / "adapter_config.json", adapter)
    _check_tokenizer_json(folder / "tokenizer.json")
    _check_tokenizer_model(folder / "tokenizer.model")
    template = read_bounded(folder / "chat_template.jinja", limit=_MAX_TEMPLATE_BYTES)
    if template is not None:
        try:
            template.decode("utf-8")
        except UnicodeDecodeError:
            raise RankLLMError(f"{folder / 'chat_template.jinja'}: not UTF-8 text") from None


def _refuse_hub_kernels(path: Path, values: Mapping[str, object]) -> None:
    """Reject an attention named OWNER/KERNEL, which would be downloaded from the hub and executed on loading."""
    for key, value in walk_json(values):
        if not _KERNEL_KEYS.search(key):
            continue
        for text in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(text, str) and "/" in text:
                raise RankLLMError(
                    f"{path}: {key}: {text[:80]!r} names a kernel on the hub, whose code is not run; delete the line"
                )


def _check_config(path: Path, config: Mapping[str, object]) -> None:
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if model_type is not None and not isinstance(model_type, str):
        raise unexpected(path, "model_type", "a name", model_type)
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise unexpected(path, "architectures", "a list of names", architectures)
    _check_token_ids(path, config)
    parts = [("", config), *((f"{key}.", part) for key, part in config.items() if isinstance(part, Mapping))]
    for prefix, part in parts:
        for key, limit in _SIZES.items():
            if key in part:
                _check_size(path, prefix + key, part[key], limit)
        for key, limit in _OPTIONAL_SIZES.items():
            if part.get(key) is not None:
                _check_size(path, prefix + key, part[key], limit)


def _check_longest(path: Path, values: Mapping[str, object]) -> None:
    value = values.get("model_max_length")
    if value is not None and type(value) not in (int, float):
        raise unexpected(path, "model_max_length", "a number", value)


def _check_token_ids(path: Path, values: Mapping[str, object]) -> None:
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = values.get(key)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and type(number) is not int:
                raise unexpected(path, key, "a token id", number)


def _check_size(path: Path, key: str, value: object, limit: int) -> None:
    # Some families specify one number per layer.
    for number in value if isinstance(value, list) and value else [value]:
        if type(number) is not int or not 1 <= number <= limit:
            raise unexpected(path, key, f"an integer from 1 to {limit}", number)


def _check_adapter_config(path: Path, settings: Mapping[str, object]) -> None:
    for key in ("peft_type", "task_type", "base_model_name_or_path"):
        if settings.get(key) is not None and not isinstance(settings[key], str):
            raise unexpected(path, key, "a string", settings[key])
    ranks = settings.get("rank_pattern")
    numbers = {"r": settings.get("r"), **(ranks if isinstance(ranks, Mapping) else {})}
    for key, rank in numbers.items():
        if rank is not None and (type(rank) is not int or not 1 <= rank <= _MAX_LORA_RANK):
            raise unexpected(path, key, f"a rank from 1 to {_MAX_LORA_RANK}", rank)
    patterns = [settings.get(key) for key in ("target_modules", "exclude_modules")]
    patterns += [key for name in ("rank_pattern", "alpha_pattern") for key, _ in walk_json(settings.get(name))]
    for pattern in patterns:
        if isinstance(pattern, str) and (len(pattern) > _MAX_PATTERN_CHARACTERS or _NESTED_REPETITION.search(pattern)):
            raise unexpected(path, "target_modules", "a pattern without repeated repetitions", pattern)
    alpha = settings.get("lora_alpha")
    if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, int | float)):
        raise unexpected(path, "lora_alpha", "a number", alpha)


def _check_tokenizer_json(path: Path) -> None:
    """Check its start and end only: parsing takes up to half a second, and the tokenizer library does it anyway."""
    content = read_bounded(path, limit=_MAX_TOKENIZER_BYTES)
    if content is None:
        return
    refuse_lfs_pointer(path, content[:64])
    if not content[:3].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or not content[-64:].rstrip().endswith(b"}"):
        raise RankLLMError(f"{path}: incomplete JSON object ({len(content)} bytes); copy or download the model again")


def _check_tokenizer_model(path: Path) -> None:
    content = read_bounded(path, limit=_MAX_TOKENIZER_BYTES)
    if content is not None:
        refuse_lfs_pointer(path, content[:64])
        if not content:
            raise RankLLMError(f"{path}: is empty; copy or download the model again")


def own_code(folder: str | Path) -> tuple[str, ...]:
    """Return the files of a folder that request its own code to be run (`auto_map`, `custom_generate`)."""
    folder = Path(folder)
    named = [name for name in _JSON_FILES if "auto_map" in (read_model_json(folder / name) or {})]
    script = folder / "custom_generate" / "generate.py"
    return (*named, *(("custom_generate/generate.py",) if script.exists() else ()))


def check_trusted_source(name: str, *, folder: str | Path, option: str, revision: str | None = None) -> None:
    """Allow remote code only from a local folder or a pinned revision on the hub.

    name: the model as the user named it. folder: where its files are. option: the option that allowed the code, for
    messages. revision: branch, tag or commit given with a hub name. Only a full commit hash pins, since branches and
    tags can move. Raises ConfigError for any other name, and if settings refer to code in another repository.
    """
    shown = name if revision is None else f"{name}@{revision}"
    is_folder = revision is None and Path(name).expanduser().is_dir()
    if not is_folder and split_revision(shown)[1] is None:
        raise ConfigError(
            f"{option}: allowed only for a local folder or a pinned revision, found {shown!r}; "
            "download it and read its code, or name it as OWNER/MODEL@COMMIT (40 hexadecimal digits)"
        )
    for file in _JSON_FILES:
        values = read_model_json(Path(folder) / file) or {}
        for _, reference in walk_json({"auto_map": values.get("auto_map")}):
            for text in reference if isinstance(reference, list) else [reference]:
                if isinstance(text, str) and "--" in text:
                    raise ConfigError(
                        f"{option}: {Path(folder) / file}: auto_map refers to code in another repository "
                        f"({text[:80]!r}), which is not run; copy that code into the folder"
                    )


def split_revision(name: str) -> tuple[str, str | None]:
    """Return a hub name and the commit that it is pinned to (OWNER/MODEL@COMMIT), or None if it is not pinned."""
    found = _PINNED_NAME.fullmatch(name)
    return (found["name"], found["revision"]) if found else (name, None)


def read_model_json(path: str | Path) -> dict[str, object] | None:
    """Return the object in one of a model's JSON files, or None if the file does not exist.

    Raises RankLLMError naming the file if it is not a file, unreadable, larger than MAX_JSON_BYTES, not UTF-8, not
    JSON, nested deeper than MAX_DEPTH or not an object.
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
    """Return a regular file's bytes, or None if there is nothing of that name. Raises RankLLMError."""
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
    """Whether lists and mappings are nested deeper than a limit. Iterative, because it guards against deep
    recursion."""
    level = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def walk_json(value: object) -> Iterator[tuple[str, object]]:
    """Yield (key, value) for every mapping in a JSON value, at any depth."""
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
    """Return the error for an unexpected value of a key."""
    return RankLLMError(f"{path}: {key}: expected {expected}, found {str(found)[:60]!r}")


def refuse_lfs_pointer(path: str | Path, start: bytes) -> None:
    """Raise RankLLMError for a Git LFS pointer, which stands in for a file that was not fetched."""
    if start.startswith(LFS_POINTER):
        raise RankLLMError(f"{path}: is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")
