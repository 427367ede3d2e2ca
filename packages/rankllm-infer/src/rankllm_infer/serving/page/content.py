"""The page as sent to browsers: one HTML text, the same for everyone, with headers that restrict it.

It contains no data: its script requests everything about the model and its rankings from the API, with the user's key
if needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from rankllm_infer.pages.inlined import BASE_STYLE, inlined

_ROOM = ("serving", "page")
_SCRIPTS = ("passages.js", "snippets.js", "results.js", "page.js")
"""In the order in which they appear on the page; each uses those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A page in memory."""

    body: bytes
    headers: Mapping[str, str]

    def is_known(self, if_none_match: str | None) -> bool:
        """Return whether a browser has the page cached. if_none_match: the header of its request."""
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        return self.headers["ETag"] in known or "*" in known


def make_content() -> Content:
    """Build the page. Its script calls the server relative to the page's address, so that it works behind any proxy
    path."""
    style = inlined(BASE_STYLE, (*_ROOM, "page.css"))
    script = inlined(*((*_ROOM, name) for name in _SCRIPTS))
    text = files("rankllm_infer").joinpath(*_ROOM, "page.html").read_text(encoding="utf-8")
    body = text.replace("{{ style }}", style.text, 1).replace("{{ script }}", script.text, 1).encode("utf-8")
    return Content(
        body=body,
        headers={
            "Content-Security-Policy": _policy(script=script.source, style=style.source),
            "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            # Browsers revalidate each time and get 304 unless the server was updated.
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )


def _policy(*, script: str, style: str) -> str:
    """Return the content security policy: own script, own style sheet, requests to this server only, no framing."""
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
