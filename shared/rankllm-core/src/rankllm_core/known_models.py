"""Published models that are known by name: the card that ships for each, and what is known about it.

A file of `cards/` holds a card as a checkpoint's `rankllm.yaml` does, the names of its `models`, and `about`: where its
facts come from and how far they were checked.
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
"""How far a card was checked, the furthest first."""
_TEXTS = ("licence", "parameters", "verified", "how", "base", "paper", "source")
_LISTS = ("engines", "notes", "unconfirmed")
_REQUIRED = ("licence", "parameters", "engines", "verified", "how")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A published model, or a family of them that is prompted and read in one way."""

    name: str
    """The name of its file in `cards/`, without the ending."""
    patterns: tuple[str, ...]
    """Names on the hub; `*` stands for any characters."""
    licence: str
    parameters: str
    engines: tuple[str, ...]
    """The engines that can read its answer."""
    verified: str
    """One of `VERIFIED`."""
    how: str
    """What was compared with what."""
    base: str | None = None
    """The model that it was trained from, where the card names none: cards do for adapters alone."""
    paper: str | None = None
    source: str | None = None
    """Where prompt, tokens and limits are published, if not in the paper alone."""
    notes: tuple[str, ...] = ()
    """What a user should know, in sentences."""
    unconfirmed: tuple[str, ...] = ()
    """What no source confirms, in sentences."""
    card: Mapping[str, object]
    """The values of its card, as `rankllm_core.card.card_from_dict` reads them."""

    def __post_init__(self) -> None:
        where = f"{self.name}: about"
        one_of(self.verified, VERIFIED, where=f"{where}: verified")
        if not (self.paper or self.source):
            raise ConfigError(f"{where}: expected a paper or a source, found neither")


def known_models() -> tuple[KnownModel, ...]:
    """Every model whose card ships with the core, by the name of its file."""
    return tuple(_load(name) for name in _patterns())


def known_model(model: str) -> KnownModel | None:
    """The known model of this hub name, or of a folder of that name; None where there is none.

    The last part of the name counts, in any case: a copy in a folder is the same model. Where several patterns fit, the
    longest one does.
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
    """Build a known model from the values of a file in `cards/`. `name` opens every message. Raises ConfigError."""
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
    """File in `cards/` -> the names that its card goes with.

    Every run asks, so no file is parsed: `models` is one line, a list in brackets.
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
    """The value as a list of texts, at least one, or a ConfigError."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{where}: expected a list of texts, found {value!r}")
    return tuple(value)
