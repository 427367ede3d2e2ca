"""Prompt templates: YAML in the originals' format, rendered to chat messages in which untrusted text is marked.

Formats and placeholders: castorini/rank_llm@1b3cabb src/rank_llm/rerank/prompt_templates,
texttron/tevatron@0545746 examples/rankllama/data.py.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from rankllm_core.config import check_keys, did_you_mean, load_yaml, one_of, typed
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.pairwise_template import PairwiseTemplate as PairwiseTemplate
from rankllm_core.prompts.pairwise_template import pairwise_template_from_dict
from rankllm_core.prompts.pointwise_template import PointwiseTemplate as PointwiseTemplate
from rankllm_core.prompts.pointwise_template import pointwise_template_from_dict
from rankllm_core.prompts.template_text import (
    ANSWER_FORMS,
    check_placeholders,
    fill,
    given_fields,
    guess_answer,
    guess_identifiers,
    guess_reasoning,
    placeholders,
)
from rankllm_core.prompts.template_text import Message as Message
from rankllm_core.prompts.template_text import Span as Span
from rankllm_core.text import defuse
from rankllm_core.types import AnswerForm, IdentifierKind, Names

CHAT_LAYOUTS = ("vicuna", "chatml", "plain")
"""Chat layouts that a template may specify; without one, the tokenizer's chat template is used."""
LISTWISE_DEFAULTS: Mapping[IdentifierKind, str] = {"numeric": "rank_zephyr", "alpha": "rank_zephyr_alpha"}
"""Kind of identifiers -> RankZephyr prompt for them."""
POINTWISE_DEFAULTS: Mapping[str, str] = {
    "sequence-classification": "rankllama",
    "yes-no": "yes_no",
    "single-token": "yes_no",
}
"""Head -> default prompt for it."""
PAIRWISE_DEFAULTS = {True: "pairwise", False: "pairwise_raw"}
"""Whether the model is prompted in chat turns -> prompt that compares two passages."""

_MULTITURN_NAMES = {"prefix": "prefix_user", "body": "body_user", "suffix": "suffix_user"}
_IGNORED_KEYS = ("output_validation_regex", "output_extraction_regex", "output_patterns")
"""Keys of the originals' files that describe the answer. Here a grammar reads answers (`rankllm_core.answers`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseTemplate:
    """Prompt that shows several passages and asks for their order."""

    name: str
    method: str
    """`singleturn_listwise`, or `multiturn_listwise` with one chat turn per passage."""
    body: str
    prefix: str | None = None
    suffix: str | None = None
    prefix_assistant: str | None = None
    body_assistant: str | None = None
    system_message: str | None = None
    chat_layout: str | None = None
    identifiers: str | None = None
    """Kind of identifiers in its text, `numeric` or `alpha`; guessed if a file does not declare it, and None if the
    text names none."""
    answer: str | None = None
    """Answer format that it asks for, one of `ANSWER_FORMS`; guessed if a file does not declare it."""
    reasoning: bool | None = None
    """Whether the model reasons before it gives the ranking; guessed if a file does not declare it."""

    kind: ClassVar[str] = "listwise"
    METHODS: ClassVar[tuple[str, ...]] = ("singleturn_listwise", "multiturn_listwise")

    def __post_init__(self) -> None:
        where = f"template {self.name}"
        self._fill_in(where)
        check_placeholders(self.body, {"rank", "candidate"}, optional={"score", "query"}, where=f"{where}: body")
        for part in ("prefix", "suffix", "prefix_assistant"):
            check_placeholders(
                getattr(self, part), set(), optional={"query", "num", "psg_ids"}, where=f"{where}: {part}"
            )
        check_placeholders(self.body_assistant, set(), optional={"rank"}, where=f"{where}: body_assistant")
        if not any("query" in placeholders(part) for part in (self.prefix, self.suffix, self.prefix_assistant) if part):
            raise ConfigError(f"{where}: expected {{query}} in the prefix or the suffix, found it in neither")
        if self.method == "multiturn_listwise":
            self._check_turns(where)

    def _fill_in(self, where: str) -> None:
        """Check what is declared about the answer, and guess what is not."""
        if self.identifiers is not None:
            one_of(self.identifiers, get_args(IdentifierKind), where=f"{where}: identifiers")
        if self.answer is not None:
            one_of(self.answer, tuple(ANSWER_FORMS), where=f"{where}: answer")
        for name, guess in self._guesses().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, guess)

    def _guesses(self) -> dict[str, object]:
        return {
            "identifiers": guess_identifiers(self.prefix, self.suffix),
            "answer": guess_answer(self.body, self.system_message, self.suffix),
            "reasoning": guess_reasoning(self.system_message, self.suffix),
        }

    def _check_turns(self, where: str) -> None:
        if not self.prefix_assistant and not self.body_assistant:
            raise ConfigError(f"{where}: multiturn_listwise needs prefix_assistant or body_assistant")
        if self.prefix_assistant and not self.prefix:
            raise ConfigError(f"{where}: prefix_assistant needs prefix_user")
        if self.body_assistant and self.prefix and not self.prefix_assistant:
            raise ConfigError(f"{where}: body_assistant with prefix_user needs prefix_assistant")

    def render(
        self,
        query: str,
        passages: Sequence[str],
        *,
        labels: Sequence[str],
        scores: Sequence[float] = (),
        system_message: str | None = None,
        few_shot: Sequence[Message] = (),
    ) -> tuple[Message, ...]:
        """Return the chat messages of one window.

        passages: texts in window order, already truncated. labels: their identifiers. scores: first-stage scores, for
        templates that show them. system_message: replaces the template's own. few_shot: turns before the question.
        Anything in query and passages that looks like a label is defused here, as the last step.
        """
        system = self.system_message if system_message is None else system_message
        names = Names("alpha" if labels and labels[0].isalpha() else "numeric", word=self._word)
        shared: dict[str, str | float | Span] = {
            "query": _untrusted(query, names),
            "num": str(len(passages)),
            "psg_ids": _passage_ids(labels),
        }
        bodies = []
        for position, (passage, label) in enumerate(zip(passages, labels, strict=True)):
            shown: dict[str, str | float | Span] = {"rank": label, "candidate": _untrusted(passage, names, position)}
            shown["score"] = scores[position] if scores else ""
            bodies.append(fill(self.body, shared | shown))
        opening = (Message("system", (Span(system),)),) if system else ()
        prefix, suffix = fill(self.prefix, shared), fill(self.suffix, shared)
        if self.method == "singleturn_listwise":
            turns: tuple[Message, ...] = (Message("user", prefix + tuple(s for body in bodies for s in body) + suffix),)
        else:
            turns = self._turns(prefix, bodies, suffix, shared, labels)
        return opening + tuple(few_shot) + turns

    def _turns(
        self,
        prefix: tuple[Span, ...],
        bodies: Sequence[tuple[Span, ...]],
        suffix: tuple[Span, ...],
        shared: Mapping[str, str | float | Span],
        labels: Sequence[str],
    ) -> tuple[Message, ...]:
        turns: list[Message] = []
        if prefix:
            turns.append(Message("user", prefix))
        if self.prefix_assistant:
            turns.append(Message("assistant", fill(self.prefix_assistant, shared)))
        if self.body_assistant is None:
            turns.append(Message("user", tuple(s for body in bodies for s in body) + suffix))
            return tuple(turns)
        for body, label in zip(bodies, labels, strict=True):
            turns.append(Message("user", body))
            turns.append(Message("assistant", fill(self.body_assistant, {"rank": label})))
        if suffix:
            turns.append(Message("user", suffix))
        return tuple(turns)

    @property
    def _word(self) -> str:
        """Word directly before each identifier: `PASSAGE` for `PASSAGE{rank}`."""
        before = self.body.partition("{rank")[0]
        return before[len(before.rstrip(string.ascii_letters + "_")) :]

    @property
    def is_chain(self) -> bool:
        """Whether it asks for only `[2] > [1]`, so that the first token after `[` is an identifier."""
        return "[{rank}]" in self.body and self.answer == "chain" and not self.reasoning

    @property
    def answer_form(self) -> AnswerForm:
        """Format of the answer around the identifiers."""
        return ANSWER_FORMS[self.answer or "chain"]

    def write_answer(self, labels: Sequence[str]) -> str:
        """Return a complete answer in the template's format."""
        return self.answer_form.write(labels)

    def to_dict(self) -> dict[str, object]:
        """Return the template in the originals' format, plus declarations that its text does not imply."""
        rename = _MULTITURN_NAMES if self.method == "multiturn_listwise" else {}
        guessed = {name for name, guess in self._guesses().items() if getattr(self, name) == guess}
        return {rename.get(k, k): v for k, v in given_fields(self).items() if k not in guessed | {"name"}}

    @property
    def has_declarations(self) -> bool:
        """Whether it declares something about the answer that its text does not imply, which needs card format 2."""
        return any(getattr(self, name) != guess for name, guess in self._guesses().items())


def _untrusted(text: str, names: Names, position: int | None = None) -> Span:
    return Span(defuse(text, names), untrusted=True, names=names, position=position)


def _passage_ids(labels: Sequence[str]) -> str:
    return ANSWER_FORMS["passages"].write(labels)


Template = ListwiseTemplate | PointwiseTemplate | PairwiseTemplate
_Kind = TypeVar("_Kind", ListwiseTemplate, PointwiseTemplate, PairwiseTemplate)


def template_names() -> tuple[str, ...]:
    """Names of the bundled templates."""
    folder = resources.files("rankllm_core") / "templates"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_template(name_or_path: str | Path) -> Template:
    """Load a bundled template by name, or a YAML file in the originals' format. Raises ConfigError."""
    name = str(name_or_path)
    shipped = name.removesuffix(".yaml").removesuffix("_template")
    if shipped in template_names() and not Path(name).is_file():
        with resources.as_file(resources.files("rankllm_core") / "templates" / f"{shipped}.yaml") as path:
            return template_from_dict(load_yaml(path), name=shipped)
    if not Path(name).exists():
        hint = did_you_mean(shipped, template_names())
        raise ConfigError(f"{name}: no such template; expected a file or the name of a bundled template{hint}")
    return template_from_dict(load_yaml(name), name=name)


def template_from_dict(values: Mapping[str, object], *, name: str) -> Template:
    """Build a template from the originals' YAML format. `name` is used in messages. Raises ConfigError."""
    where = f"template {name}"
    values = {k: v for k, v in values.items() if k not in _IGNORED_KEYS}
    known = (*ListwiseTemplate.METHODS, PointwiseTemplate.method, PairwiseTemplate.method)
    method = values.get("method")
    if method == "rankfid":
        raise ConfigError(f"{where}: method: {method!r} is not supported; expected one of {', '.join(known)}")
    one_of(method, known, where=f"{where}: method")
    if "chat_layout" in values:
        one_of(values["chat_layout"], CHAT_LAYOUTS, where=f"{where}: chat_layout")
    if method == PointwiseTemplate.method:
        return pointwise_template_from_dict(values, name=name)
    if method == PairwiseTemplate.method:
        return pairwise_template_from_dict(values, name=name)
    renamed = {v: k for k, v in _MULTITURN_NAMES.items()} if method == "multiturn_listwise" else {}
    allowed = {f.name for f in fields(ListwiseTemplate)} - {"name"} - set(renamed.values()) | set(renamed)
    if method == "singleturn_listwise":
        allowed -= {"prefix_assistant", "body_assistant"}
    check_keys(values, allowed, where=where)
    kinds = {"reasoning": bool}
    checked: dict[str, Any] = {
        renamed.get(k, k): typed(v, kinds.get(k, str), where=f"{where}: {k}") for k, v in values.items()
    }
    if "body" not in checked:
        raise ConfigError(f"{where}: {'body_user' if renamed else 'body'}: missing, expected the format of one passage")
    return ListwiseTemplate(name=name, **checked)


def default_listwise_template(identifiers: IdentifierKind = "numeric") -> ListwiseTemplate:
    """Return the default template for listwise cards with these identifiers."""
    return listwise_template(LISTWISE_DEFAULTS[identifiers])


def default_pointwise_template(head: str) -> PointwiseTemplate:
    """Return the default template for pointwise cards with this head."""
    return pointwise_template(POINTWISE_DEFAULTS[head])


def default_pairwise_template(*, is_chat: bool = True) -> PairwiseTemplate:
    """Return the default template for comparing two passages. is_chat: in chat turns."""
    return _template_of(PairwiseTemplate, PAIRWISE_DEFAULTS[is_chat], "")


def listwise_template(name_or_path: str, *, where: str = "") -> ListwiseTemplate:
    """Load a listwise template. where: prefix of the error for another kind. Raises ConfigError."""
    return _template_of(ListwiseTemplate, name_or_path, where)


def pointwise_template(name_or_path: str, *, where: str = "") -> PointwiseTemplate:
    """Load a pointwise template. where: prefix of the error for another kind. Raises ConfigError."""
    return _template_of(PointwiseTemplate, name_or_path, where)


def _template_of(owner: type[_Kind], name_or_path: str, where: str) -> _Kind:
    template = load_template(name_or_path)
    if not isinstance(template, owner):
        raise ConfigError(f"{where}{template.name} is a {template.kind} template; expected a {owner.kind} one")
    return template
