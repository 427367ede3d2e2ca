"""Identities of a run's inputs: hashes of their content, independent of names and dates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rankllm_core.files.manifest import hash_file
from rankllm_train.recipe.recipe import Recipe

_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
_THREADS = 4
"""Files hashed in parallel: a base model has several gigabytes."""
_SMALL_FILES = (".json", ".jinja", ".model", ".txt", ".py")


def source_identities(recipe: Recipe) -> dict[str, str]:
    """Map `section.key` to the identity of every file, folder or hub name that a run of the recipe reads.

    Reads each file once. The weights of a fully fine-tuned model are left out, since a resumed run takes them from its
    checkpoint.
    """
    found = {"data.train": data_identity(recipe.data.train)}
    if recipe.data.eval:
        found["data.eval"] = data_identity(recipe.data.eval)
    found["model.name_or_path"] = model_identity(recipe.model.name_or_path, with_weights=recipe.lora.enabled)
    return found


def data_identity(name_or_path: str) -> str:
    """Return the SHA-256 of a file's bytes or of a folder's files; for a hub data set, its name."""
    path = Path(name_or_path)
    if path.is_file():
        return f"sha256 {hash_file(path).sha256}"
    if path.is_dir():
        return _of_files(path, sorted(item for item in path.rglob("*") if item.is_file()))
    return f"name {name_or_path}"


def model_identity(name_or_path: str, *, with_weights: bool) -> str:
    """Return the SHA-256 of a folder's configuration, tokenizer and optionally weights; for a hub model, its name."""
    path = Path(name_or_path)
    if not path.is_dir():
        return f"name {name_or_path}"
    suffixes = (*_SMALL_FILES, *(_WEIGHTS if with_weights else ()))
    return _of_files(path, sorted(item for item in path.iterdir() if item.is_file() and item.suffix in suffixes))


def _of_files(folder: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, entry in zip(paths, pool.map(hash_file, paths), strict=True):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{entry.sha256}\n".encode())
    return f"sha256 {digest.hexdigest()}"
