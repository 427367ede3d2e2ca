"""Model cards: how a checkpoint was trained and must be prompted, so that inference needs no options.

A checkpoint's card is stored next to its weights as `rankllm.yaml`. Cards for well-known published models that have
none are bundled in `cards/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import yaml

from rankllm_core.card_kinds import HEADS as HEADS
from rankllm_core.card_kinds import ListwiseCard as ListwiseCard
from rankllm_core.card_kinds import PairwiseCard as PairwiseCard
from rankllm_core.card_kinds import PointwiseCard as PointwiseCard
from rankllm_core.config import check_keys, load_yaml, mapping, numbers, one_of, typed
from rankllm_core.errors import ConfigError
from rankllm_core.files import write_text
from rankllm_core.known_models import known_model
from rankllm_core.probe import probe_from_dict
from rankllm_core.prompts.template import Template, load_template, template_from_dict

CARD_NAME = "rankllm.yaml"
CARD_FORMAT = 3
"""Newest format. 2: templates may declare identifiers, answer and reasoning. 3: single-token heads, layouts `chat`,
`raw` and `pair`, probabilities, bidirectional attention, pairwise cards, probes. A card is written in the oldest format
that can represent it, so that older releases can read it."""

Card = ListwiseCard | PointwiseCard | PairwiseCard
CARDS: Mapping[str, type[Card]] = {owner.kind: owner for owner in (ListwiseCard, PointwiseCard, PairwiseCard)}
"""Kind -> card class."""


def load_card(folder: str | Path) -> Card | None:
    """Return the card in a checkpoint's folder, or None if it has none. Raises ConfigError if it is invalid."""
    path = Path(folder) / CARD_NAME
    return card_from_dict(load_yaml(path), where=str(path)) if path.exists() else None


def save_card(card: Card, folder: str | Path) -> None:
    """Write the card into a checkpoint's folder."""
    write_card_file(card, Path(folder) / CARD_NAME)


def write_card_file(card: Card, path: str | Path) -> None:
    """Write the card to a file of any name."""
    with write_text(path) as stream:
        yaml.safe_dump(card.to_dict(), stream, sort_keys=False, allow_unicode=True, width=120)


def published_card(model: str) -> Card | None:
    """Return the bundled card for a published model, given its hub name or a folder with that name, or None."""
    known = known_model(model)
    return card_from_dict(known.card, where=f"{known.name}.yaml") if known else None


def card_from_dict(values: Mapping[str, object], *, where: str) -> Card:
    """Build a card from YAML values. `where` prefixes every message. Raises ConfigError."""
    try:
        return _card(dict(values), where)
    except ConfigError as error:
        # Templates and card classes validate their values without knowing the file.
        message = str(error)
        raise ConfigError(message if message.startswith(f"{where}:") else f"{where}: {message}") from None


def _card(values: dict[str, object], where: str) -> Card:
    version = values.pop("format", None)
    if isinstance(version, int) and not isinstance(version, bool) and version > CARD_FORMAT:
        raise ConfigError(
            f"{where}: format {version}: written by a newer rankllm-train; this rankllm-core reads formats up to "
            f"{CARD_FORMAT}; upgrade rankllm-core"
        )
    if isinstance(version, bool) or version not in range(1, CARD_FORMAT + 1):
        raise ConfigError(f"{where}: format: expected a number from 1 to {CARD_FORMAT}, found {version!r}")
    kind = one_of(values.pop("kind", None), CARDS, where=f"{where}: kind")
    template = _template(values.pop("template", None), where=f"{where}: template")
    if kind == "listwise":
        window = mapping(values.pop("window", {}), where=f"{where}: window")
        check_keys(window, ("size", "stride"), where=f"{where}: window")
        values |= {{"size": "window_size"}.get(key, key): value for key, value in window.items()}
    probe = probe_from_dict(values.pop("probe"), where=f"{where}: probe") if "probe" in values else None
    owner = CARDS[kind]
    kinds = {f.name: _FIELD_TYPES[str(f.type)] for f in fields(owner) if f.name not in ("template", "probe")}
    check_keys(values, kinds, where=where)
    checked = {
        key: numbers(value, where=f"{where}: {key}")
        if kinds[key] is tuple
        else typed(value, kinds[key], where=f"{where}: {key}")
        for key, value in values.items()
    }
    if template.kind != kind:
        raise ConfigError(f"{where}: a {kind} card cannot hold the {template.method} template {template.name!r}")
    return owner(template=template, probe=probe, **checked)  # type: ignore[arg-type]


_FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "str | None": str,
    "int": int,
    "float": (int, float),
    "float | None": (int, float),
    "bool": bool,
    "tuple[float, ...]": tuple,
}


def _template(value: object, *, where: str) -> Template:
    if isinstance(value, str):
        return load_template(value)
    values = mapping(value, where=where)
    name = str(values.pop("name", "of the card"))
    return template_from_dict(values, name=name)
