"""Style sheets and scripts as a page holds them: in its own text, each allowed by its hash and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

BASE_STYLE = ("pages", "base.css")
"""The look that all pages share: colours of both schemes, type, lists of passages, badges."""


@dataclass(frozen=True, slots=True)
class Inlined:
    """The text of one `<style>` or `<script>` element."""

    text: str

    @property
    def source(self) -> str:
        """The source expression that allows this element in a content security policy.

        Source: https://www.w3.org/TR/CSP3/, section 2.3.1, `hash-source`.
        """
        digest = base64.b64encode(hashlib.sha256(self.text.encode("utf-8")).digest()).decode("ascii")
        return f"'sha256-{digest}'"


def inlined(*parts: Sequence[str]) -> Inlined:
    """The files of this package in one element, in their order.

    parts: the path of each from `rankllm_infer`, such as `("report", "page.css")`. Raises ValueError where a file would
    end its element early.
    """
    texts = [files("rankllm_infer").joinpath(*part).read_text(encoding="utf-8") for part in parts]
    for part, text in zip(parts, texts, strict=True):
        if "</" in text:
            raise ValueError(f"{'/'.join(part)}: holds '</', which may end the element around it; write '<\\/'")
    return Inlined("\n" + "\n".join(texts))
