"""Inlined style sheets and scripts, each allowed by its hash in the content security policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

BASE_STYLE = ("pages", "base.css")
"""Style common to all pages: colours of both schemes, typography, lists of passages, badges."""


@dataclass(frozen=True, slots=True)
class Inlined:
    """Text of one `<style>` or `<script>` element."""

    text: str

    @property
    def source(self) -> str:
        """Source expression that allows this element in a content security policy.

        Source: https://www.w3.org/TR/CSP3/, section 2.3.1, `hash-source`.
        """
        digest = base64.b64encode(hashlib.sha256(self.text.encode("utf-8")).digest()).decode("ascii")
        return f"'sha256-{digest}'"


def inlined(*parts: Sequence[str]) -> Inlined:
    """Concatenate files of this package into one element, in order.

    parts: path of each file relative to `rankllm_infer`, such as `("report", "page.css")`. Raises ValueError if a file
    would end its element early.
    """
    texts = [files("rankllm_infer").joinpath(*part).read_text(encoding="utf-8") for part in parts]
    for part, text in zip(parts, texts, strict=True):
        if "</" in text:
            raise ValueError(f"{'/'.join(part)}: contains '</', which may end the surrounding element; write '<\\/'")
    return Inlined("\n" + "\n".join(texts))
