"""Published models known by name: their bundled cards and further facts.

Each file in `cards/` contains a card like a checkpoint's `rankllm.yaml`, the `models` that it applies to, and `about`:
the sources for its facts and how they were verified.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath

from rankllm_core.config import check_keys, load_yaml, mapping, one_of, typed
from rankllm_core.errors import ConfigError

VERIFIED = ("against published weights", "on random weights of this architecture", "from its documentation")
"""Verification levels for a card, strongest first."""
_TEXTS = ("licence", "parameters", "verified", "how", "base", "paper", "source")
_LISTS = ("engines", "notes", "unconfirmed")
_REQUIRED = ("licence", "parameters", "engines", "verified", "how")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """Published model, or a family of models that are prompted and scored in the same way."""

    name: str
    """Name of its file in `cards/`, without the extension."""
    patterns: tuple[str, ...]
    """Hub names; `*` matches any characters."""
    licence: str
    parameters: str
    engines: tuple[str, ...]
    """Engines that provide the output that is read."""
    verified: str
    """One of `VERIFIED`."""
    how: str
    """What was compared with what."""
    base: str | None = None
    """Model that it was fine-tuned from, if the card names none; only adapter cards do."""
    paper: str | None = None
    source: str | None = None
    """Where the prompt, tokens and limits are published, if not only in the paper."""
    notes: tuple[str, ...] = ()
    """Notes for users, in sentences."""
    unconfirmed: tuple[str, ...] = ()
    """Assumptions that no source confirms; they follow a label such as "Unconfirmed:"."""
    card: Mapping[str, object]
    """Values of the card, as read by `rankllm_core.card.card_from_dict`."""

    def __post_init__(self) -> None:
        where = f"{self.name}: about"
        one_of(self.verified, VERIFIED, where=f"{where}: verified")
        if not (self.paper or self.source):
            raise ConfigError(f"{where}: expected a paper or a source, found neither")


def known_models() -> tuple[KnownModel, ...]:
    """Return every model with a bundled card, ordered by file name."""
    return tuple(_load(name) for name in _patterns())


def known_model(model: str) -> KnownModel | None:
    """Return the known model with this hub name, or in a folder of that name; None if there is none.

    Only the last part of the name counts, ignoring case, so that a copy in a folder is recognized. If several patterns
    match, the longest wins.
    """
    name = PurePath(model).name.lower()
    fitting = [
        (len(last), card)
        for card, patterns in _patterns().items()
        for last in (pattern.rsplit("/", 1)[-1].lower() for pattern in patterns)
        if fnmatch.fnmatchcase(name, last)
    ]
    return _load(max(fitting)[1]) if fitting else None


def known_model_from_dict(values: Mapping[str, object], *, name: str) -> KnownModel:
    """Build a known model from the values of a file in `cards/`. `name` prefixes every message. Raises ConfigError."""
    card = dict(values)
    patterns = _strings(card.pop("models", None), where=f"{name}: models")
    about = mapping(card.pop("about", None), where=f"{name}: about")
    check_keys(about, (*_TEXTS, *_LISTS), where=f"{name}: about")
    for key in _REQUIRED:
        if key not in about:
            raise ConfigError(f"{name}: about: {key}: missing")
    texts = {key: str(typed(about[key], str, where=f"{name}: about: {key}")) for key in _TEXTS if key in about}
    lists = {key: _strings(about[key], where=f"{name}: about: {key}") for key in _LISTS if key in about}
    return KnownModel(name=name, patterns=patterns, card=card, **texts, **lists)  # type: ignore[arg-type]


@functools.cache
def _patterns() -> dict[str, tuple[str, ...]]:
    """Map each file in `cards/` to the model names that its card applies to.

    Every run needs this, so no file is parsed: `models` is one line, a list in brackets.
    """
    files = sorted(item for item in _folder().iterdir() if item.suffix == ".yaml")
    return {file.stem: _listed(file.read_text(encoding="utf-8")) for file in files}


def _listed(text: str) -> tuple[str, ...]:
    line = next((line for line in text.splitlines() if line.startswith("models:")), "models:")
    names = line.removeprefix("models:").strip(" []").split(",")
    return tuple(name.strip(" \"'") for name in names)


def _load(name: str) -> KnownModel:
    return known_model_from_dict(load_yaml(_folder() / f"{name}.yaml"), name=name)


def _folder() -> Path:
    return Path(str(resources.files("rankllm_core"))) / "cards"


def _strings(value: object, *, where: str) -> tuple[str, ...]:
    """Return the value as a non-empty list of strings. Raises ConfigError otherwise."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{where}: expected a list of strings, found {value!r}")
    return tuple(value)
