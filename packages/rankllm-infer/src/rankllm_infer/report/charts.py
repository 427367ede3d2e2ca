"""Charts of the page as inline SVG. Colours come from the style sheet, by class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from rankllm_infer.evaluation.compare import TIE

_BAR, _GAP = 8, 2
_CELL, _CELL_STEP = 9, 11


def sign(gain: float) -> str:
    """Return the CSS class of a change: `better`, `worse` or `same`."""
    return "better" if gain > TIE else "worse" if gain < -TIE else "same"


def grade_class(grade: int | None, max_grade: int) -> str:
    """Return the CSS class of a grade: `gu` not judged, `g0` not relevant, `g1` to `g3` by its fraction of the maximum
    grade."""
    if grade is None:
        return "gu"
    return "g0" if grade <= 0 else f"g{math.ceil(3 * grade / max(grade, max_grade))}"


def heads_chart(before: Sequence[int | None], after: Sequence[int | None], *, max_grade: int) -> Markup:
    """Draw two rows of cells, one per rank: grades of the top ranks before (above) and after."""
    width = _CELL_STEP * max(1, len(before), len(after))
    cells = Markup("").join(
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
            grade_class(grade, max_grade), 1 + _CELL_STEP * place, 1 + _CELL_STEP * row, _CELL, _CELL
        )
        for row, grades in enumerate((before, after))
        for place, grade in enumerate(grades)
    )
    label = f"Grades of the top ranks, before: {_grades(before)}; after: {_grades(after)}"
    return Markup(
        '<svg class="heads" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">{}</svg>'
    ).format(width + 1, 2 * _CELL_STEP + 1, width + 1, 2 * _CELL_STEP + 1, label, cells)


def _grades(grades: Sequence[int | None]) -> str:
    return " ".join("-" if grade is None else str(grade) for grade in grades) or "none"


def interval_chart(mean: float, interval: tuple[float, float]) -> Markup:
    """Draw a mean with its interval on an axis from 0 to 1."""
    low, high = (100 * min(1.0, max(0.0, value)) for value in interval)
    return Markup(
        '<svg class="interval" viewBox="-2 0 104 10" aria-hidden="true">'
        '<line class="axis" x1="0" y1="5" x2="100" y2="5"/>'
        '<line class="span" x1="{:.1f}" y1="5" x2="{:.1f}" y2="5"/><circle cx="{:.1f}" cy="5" r="3"/></svg>'
    ).format(low, high, 100 * mean)


def gains_chart(bars: Sequence[tuple[str, float, str]]) -> Markup:
    """Draw one bar per query, upwards for a gain. bars: link, gain, tooltip."""
    top, bottom = max([0.0, *(gain for _, gain, _ in bars)]), min([0.0, *(gain for _, gain, _ in bars)])
    top, bottom = (top, bottom) if top > bottom else (1.0, -1.0)
    span = top - bottom
    zero = 100 * top / span
    drawn = Markup("").join(
        Markup(
            '<a href="{}" tabindex="-1">'
            '<rect class="{}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"><title>{}</title></rect></a>'
        ).format(
            address,
            sign(gain),
            (_BAR + _GAP) * place,
            min(zero - 100 * max(gain, 0.0) / span, 99.0),
            _BAR,
            max(1.0, 100 * abs(gain) / span),
            label,
        )
        for place, (address, gain, label) in enumerate(bars)
    )
    width = (_BAR + _GAP) * len(bars)
    return Markup(
        '<svg class="gains" viewBox="0 -1 {} 102" preserveAspectRatio="none" role="img" '
        'aria-label="Change of each query">'
        '<line class="axis" x1="0" y1="{:.1f}" x2="{}" y2="{:.1f}"/>{}</svg>'
    ).format(width, zero, width, zero, drawn)


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 360, 200, 38, 34, 14, 10
_LABEL_CHARACTERS = 28


def cost_chart(runs: Sequence[tuple[str, float, float | None]], *, measure: str) -> Markup:
    """Plot quality against tokens per query. runs: name, quality, tokens; None: unknown, drawn as a horizontal line."""
    most = 1.15 * max([1.0, *(tokens for _, _, tokens in runs if tokens is not None)])
    values = [mean for _, mean, _ in runs]
    margin = max(0.02, 0.25 * (max(values) - min(values)))
    low, high = max(0.0, min(values) - margin), min(1.0, max(values) + margin)

    def across(tokens: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * tokens / most

    def down(mean: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - mean) / (high - low)

    return Markup('<svg class="cost" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        _WIDTH,
        _HEIGHT,
        f"{measure} against tokens per query; the table next to it contains the values",
        _axes(measure, low=low, high=high, most=most),
        Markup("").join(_cost_mark(name, down(mean), None if n is None else across(n)) for name, mean, n in runs),
    )


def _axes(measure: str, *, low: float, high: float, most: float) -> Markup:
    floor = _HEIGHT - _BOTTOM
    return Markup(
        '<path class="axis" d="M{0} {1}V{2}H{3}"/>'
        '<text x="{4}" y="{5}" text-anchor="end">{6:.2f}</text><text x="{4}" y="{2}" text-anchor="end">{7:.2f}</text>'
        '<text x="{0}" y="{8}">0</text><text x="{3}" y="{8}" text-anchor="end">{9:,.0f}</text>'
        '<text x="{10}" y="{11}" text-anchor="middle">tokens per query</text><text x="{0}" y="{12}">{13}</text>'
    ).format(
        _LEFT,
        _TOP,
        floor,
        _WIDTH - _RIGHT,
        _LEFT - 4,
        _TOP + 10,
        high,
        low,
        floor + 14,
        most,
        (_LEFT + _WIDTH - _RIGHT) / 2,
        _HEIGHT - 6,
        _TOP - 4,
        measure,
    )


def _cost_mark(name: str, y: float, x: float | None) -> Markup:
    label = name if len(name) <= _LABEL_CHARACTERS else name[: _LABEL_CHARACTERS - 1] + "…"
    if x is None:
        mark = '<line class="level" x1="{0}" y1="{1:.1f}" x2="{2}" y2="{1:.1f}"/><text x="{3}" y="{4:.1f}">{5}</text>'
        return Markup(mark).format(_LEFT, y, _WIDTH - _RIGHT, _LEFT + 6, y - 5, label)
    is_right = x > _WIDTH / 2
    mark = '<circle cx="{0:.1f}" cy="{1:.1f}" r="5"/><text x="{2:.1f}" y="{3:.1f}" text-anchor="{4}">{5}</text>'
    return Markup(mark).format(x, y, x - 8 if is_right else x + 8, y - 7, "end" if is_right else "start", label)
