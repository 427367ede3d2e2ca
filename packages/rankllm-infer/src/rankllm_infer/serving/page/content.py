"""The page as it is sent: one HTML text, the same for everybody, with the headers that confine it.

It holds no data: what the model is and what it ranks, its script asks of the API, with the caller's key where one is
needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from rankllm_infer.pages.inlined import BASE_STYLE, inlined

_ROOM = ("serving", "page")
_SCRIPTS = ("passages.js", "snippets.js", "results.js", "page.js")
"""In the order in which they stand on the page; each uses those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A page in memory."""

    body: bytes
    headers: Mapping[str, str]

    def is_known(self, if_none_match: str | None) -> bool:
        """Whether a browser has it already. if_none_match: the header of its request."""
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        return self.headers["ETag"] in known or "*" in known


def make_content() -> Content:
    """The page. Its script asks the server at the page's own address, so that it works behind any proxy's path."""
    style = inlined(BASE_STYLE, (*_ROOM, "page.css"))
    script = inlined(*((*_ROOM, name) for name in _SCRIPTS))
    text = files("rankllm_infer").joinpath(*_ROOM, "page.html").read_text(encoding="utf-8")
    body = text.replace("{{ style }}", style.text, 1).replace("{{ script }}", script.text, 1).encode("utf-8")
    return Content(
        body=body,
        headers={
            "Content-Security-Policy": _policy(script=script.source, style=style.source),
            "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            # A browser asks each time, and is told 304 unless the server was updated.
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )


def _policy(*, script: str, style: str) -> str:
    """Our script, our style sheet, requests to this server, and nothing else; in nobody's frame."""
    allowed = {
        "default-src": "'none'",
        "script-src": script,
        "style-src": style,
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {source}" for name, source in allowed.items())
