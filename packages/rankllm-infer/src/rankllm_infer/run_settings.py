"""What a run's results depend on, as plain values: two runs with the same values give the same results.

What only changes how fast or how patiently a run is done is left out: API key, timeout, concurrency, output files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from rankllm_core.card import Card, ListwiseCard
from rankllm_core.files import dumps
from rankllm_core.records import request_to_dict
from rankllm_core.types import Request
from rankllm_infer import __version__
from rankllm_infer.engines.hub import adapter_config, base_folder, locate_model
from rankllm_infer.settings import RerankOptions, option_of

_NOT_RESULTS = ("api_key", "timeout_s", "concurrency")
_IN_THE_CARD = (
    "method",
    "template",
    "use_logits",
    "use_alpha",
    "context_size",
    "max_passage_words",
    "window_size",
    "stride",
    "q_max_len",
    "p_max_len",
    "fuse_weight",
    "identifier_prior",
)
"""The card is compared by itself, with these options over it."""
_FOUND_WHEN_LOADED = ("dtype", "device")
_OF_THE_MODEL = ("base_url", "base_model", "few_shot_file")
"""Compared as the server's address, and by their contents, not their names."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SMALL_FILES = (".json", ".py", ".model", ".jinja", "vocab.txt", "merges.txt")
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
_SHOWN_DIFFERENCES, _SHOWN_CHARACTERS = 3, 60


class InputDigest:
    """A hash of requests as they are read: queries and candidates, texts, scores and order, whatever file they are in.

    One request at a time is held.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._n_queries = 0

    def add(self, request: Request) -> None:
        """The next request."""
        self._n_queries += 1
        self._hash.update(dumps(request_to_dict(request)).encode("utf-8") + b"\n")

    def __str__(self) -> str:
        return f"{self._n_queries} queries, sha256 {self._hash.hexdigest()[:32]}"


def run_settings(model: str, options: RerankOptions, *, card: Card, requests: str) -> dict[str, object]:
    """Everything that decides results and is known before the model is loaded, by the names a user knows it by.

    model: as the user names it. card: the one in force. requests: an `InputDigest`, as text.
    Raises RankLLMError where the model's files cannot be found.
    """
    settings: dict[str, object] = {"rankllm-infer": __version__, "input": requests}
    settings["model"] = f"{model} at {_server(options)}" if options.engine == "openai" else model_identity(model)
    if options.engine != "openai" and adapter_config(model) is not None:
        settings["base model"] = folder_identity(base_folder(model, options.base_model, weights=False))
    settings |= {f"card {name}": value for name, value in _flat(card.to_dict(), prefix="")}
    # What is not there is said too: a run that was begun with it must not go on without.
    settings["card fuse_weight"] = card.fuse_weight
    settings["card identifier_prior"] = list(card.identifier_prior) if isinstance(card, ListwiseCard) else []
    file = options.few_shot_file
    settings["--few-shot-file"] = None if file is None else _file_hash(Path(file))
    elsewhere = {*_NOT_RESULTS, *_IN_THE_CARD, *_FOUND_WHEN_LOADED, *_OF_THE_MODEL}
    for field in fields(RerankOptions):
        if field.name not in elsewhere:
            value = getattr(options, field.name)
            settings["--trace" if field.name == "with_trace" else option_of(field.name)] = (
                list(value) if isinstance(value, tuple) else value
            )
    return settings


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """What differs, in one line with the old and the new values; empty where nothing does."""
    # As they come back from a file.
    new = json.loads(dumps(new))
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    shown = [f"{name} was {was}, is {now}" for name in changed for was, now in [_shown(old.get(name), new.get(name))]]
    more = len(shown) - _SHOWN_DIFFERENCES
    return "; ".join([*shown[:_SHOWN_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])


def model_identity(model: str) -> str:
    """A model's name and what tells its files from those of another one.

    Of a model of the hub, the revision. Of a folder, a hash of the bytes: of small files all, of weights a few
    megabytes spread over each file. Unlike dates, that survives a copy, and it notices a model that was trained on in
    the same folder; unlike a hash of all weights, it takes no minute.
    """
    folder = locate_model(model, weights=False)
    return f"{Path(model).expanduser().absolute().name} {folder_identity(folder)}"


def folder_identity(folder: Path) -> str:
    """What tells a model's files from others: a revision of the hub, or a hash."""
    if folder.parent.name == "snapshots":
        return f"revision {folder.name}"
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.iterdir() if item.name.endswith((*_WEIGHTS, *_SMALL_FILES))):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(_sample(path) if path.suffix in _WEIGHTS else path.read_bytes())
    return f"sha256 {digest.hexdigest()[:32]}"


def _sample(path: Path) -> bytes:
    size = path.stat().st_size
    step = max(_SAMPLE_BYTES, size // _SAMPLES)
    with path.open("rb") as stream:
        blocks = []
        for place in range(0, size, step):
            stream.seek(place)
            blocks.append(stream.read(_SAMPLE_BYTES))
    return b"".join(blocks)


def _file_hash(path: Path) -> str:
    # A file that is missing is the loader's to complain of.
    return f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:32]}" if path.is_file() else str(path)


def _server(options: RerankOptions) -> str:
    from rankllm_infer.engines.openai_options import OpenAIOptions

    return OpenAIOptions(base_url=options.base_url or "", model="any").shown_url


def _flat(values: Mapping[str, object], *, prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(old: object, new: object) -> tuple[str, str]:
    """Both values on one line; of long texts, where they begin to differ."""
    texts = [dumps(value) if value is not None else "not set" for value in (old, new)]
    if max(map(len, texts)) <= _SHOWN_CHARACTERS:
        return texts[0], texts[1]
    same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, same - 10)
    cut = [text[start : start + _SHOWN_CHARACTERS] for text in texts]
    return tuple("..." * (start > 0) + part for part in cut)  # type: ignore[return-value]
