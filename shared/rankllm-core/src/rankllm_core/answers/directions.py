"""Phrases in an answer which say that its best passage comes last: `From least to most relevant: [2], [1], [3]`."""

from __future__ import annotations

import re

from rankllm_core.answers.chains import Chain

ASCENDING = "ascending order: the answer says so, read from the last to the first"

_BEFORE, _BEHIND = 200, 100
"""Number of characters around a ranking that are searched."""
_PHRASE = re.compile(
    r"""(?ix)
    \b (?:least|worst|lowest|low) (?:[ -]\w{1,12})? [ -] to [ -] (?:the[ ])? (?:most|best|highest|high) \b
    | \b (?:ascending|increasing|rising) (?:[ ]order)? (?:[ ](?:of|by|in))? (?:[ ]\w{1,15})?
      [ ] (?:relevan|usefulness|importance|score|quality|similarity|helpfulness)
    | \b (?:in|by) [ ] (?:reversed?|ascending|increasing) [ ] order \b (?! [ ](?:of|by)[ ](?:rank|position) )
    | \b (?:least[ ]relevant|worst) [ ] first \b | \b (?:most[ ]relevant|best) [ ] (?:comes[ ]|is[ ])? last \b"""
)


def says_ascending(text: str, ranking: Chain) -> bool:
    """Whether words directly before or after the ranking say that it starts with the worst."""
    start = min(token.start for token in ranking.names)
    end = max(token.end for token in ranking.names)
    before, behind = text[max(start - _BEFORE, 0) : start], text[end : end + _BEHIND].partition("\n\n")[0]
    return any(_PHRASE.search(part) for part in (before, behind))
