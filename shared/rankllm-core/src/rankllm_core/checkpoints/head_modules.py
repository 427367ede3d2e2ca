"""Classification heads that sentence-transformers stores as modules next to a plain encoder, such as Ettin rerankers.

`modules.json` lists them: the encoder, a pooling, and layers with a folder each. Supported are those that make up the
head of transformers' own ModernBertForSequenceClassification.
Source: huggingface/blog@3e4560d ettin-reranker.md; file formats as written by sentence-transformers 6.2.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.checkpoints.model_folder import MAX_JSON_BYTES, read_bounded, read_model_json
from rankllm_core.errors import ContractError, first_line

MODULES_NAME = "modules.json"
_EXPECTED = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dense")
_POOLINGS = ("cls", "mean")
_GELU, _IDENTITY = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleHead:
    """Head of pooling, a dense layer with GELU, a layer norm, and a dense layer that outputs the score."""

    pooling: str
    """`cls` or `mean`."""
    dense: Path
    """Folder with the first dense layer's weights."""
    norm: Path
    score: Path


def module_folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders of the modules after the encoder, in order; empty without a list of modules."""
    return tuple(path for _, path in _modules(folder)[1:])


def module_head(folder: Path) -> ModuleHead | None:
    """Return the head that a checkpoint stores as modules; None if its modules give no score.

    Raises ContractError if they give one in an unsupported way.
    """
    modules = _modules(folder)
    if not modules or modules[-1][0] != "Dense" or _settings(modules[-1][1]).get("out_features") != 1:
        return None
    kinds = tuple(kind for kind, _ in modules)
    where = folder / MODULES_NAME
    if kinds != _EXPECTED:
        raise ContractError(f"{where}: expected a head of {', '.join(_EXPECTED)}; found {', '.join(kinds)}")
    pooling, dense, norm, score = (path for _, path in modules[1:])
    mode = _settings(pooling).get("pooling_mode")
    if mode not in _POOLINGS:
        raise ContractError(f"{pooling}/config.json: pooling_mode: expected one of cls, mean; found {mode!r}")
    for path, expected in ((dense, _GELU), (score, _IDENTITY)):
        settings = _settings(path)
        if (found := settings.get("activation_function")) != expected or settings.get("use_residual"):
            raise ContractError(
                f"{path}/config.json: expected the activation {expected} and no residual, found {found}"
            )
    return ModuleHead(pooling=str(mode), dense=dense, norm=norm, score=score)


def _modules(folder: Path) -> Sequence[tuple[str, Path]]:
    """Return kind and folder of each module. Raises ContractError if the list cannot be read."""
    path = folder / MODULES_NAME
    content = read_bounded(path, limit=MAX_JSON_BYTES)
    if content is None:
        return ()
    try:
        listed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise ContractError(f"{path}: expected a list of modules")
    found = []
    for module in listed:
        kind, name = str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ContractError(f"{path}: path: expected a folder inside the model's, found {name!r}")
        found.append((kind, folder / name))
    return found


def _settings(folder: Path) -> Mapping[str, object]:
    return read_model_json(folder / "config.json") or {}
