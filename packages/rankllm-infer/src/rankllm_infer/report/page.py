"""Write the page: one HTML file that needs no other files or network, and is readable without its script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from rankllm_core.files import write_text
from rankllm_infer import __version__
from rankllm_infer.pages.inlined import BASE_STYLE, inlined
from rankllm_infer.report import charts
from rankllm_infer.report.content import HEAD, MAX_COMPARISONS, MAX_FURTHER, Outline, Sources, run_costs, shown_queries
from rankllm_infer.report.passages import Texts

if TYPE_CHECKING:
    import jinja2

_SNIPPET_CHARACTERS = 220
"""Length of a passage's snippet before it is expanded."""
_FEW_DEFECTS = 6
"""Number of defects of an answer shown before they are expanded."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that HTML cannot contain: control characters and lone UTF-16 surrogates."""
_BUFFERED_PIECES = 512


def write_page(
    path: Path, sources: Sources, plan: Outline, texts: Texts, *, title: str, notes: Sequence[str] = ()
) -> None:
    """Write the page of `plan`. notes: shown at the top.

    The page is generated query by query, and written completely or not at all. All texts are escaped, and a content
    security policy only allows the page's own script, by its hash. Raises RankLLMError if it cannot be written.
    """
    costs = run_costs(sources, plan)
    max_grade = max([1, *(grade for grades in sources.qrels.values() for grade in grades.values())])
    plotted = [(displayable(cost.name), cost.mean, cost.tokens if cost.n_recorded else None) for cost in costs]
    stream = (
        _environment()
        .get_template("page.html")
        .stream(
            title=title,
            notes=notes,
            explained=sources.explained,
            baseline=sources.baseline,
            comparison=plan.comparison,
            outline=plan,
            costs=costs,
            queries=shown_queries(sources, plan, texts),
            max_grade=max_grade,
            legend=_legend(sources, max_grade),
            score_name="model score" if sources.files[sources.explained].has_texts else "score",
            gains_chart=charts.gains_chart(_bars(sources, plan, texts)),
            cost_chart=charts.cost_chart(plotted, measure=plan.measure),
        )
    )
    stream.enable_buffering(_BUFFERED_PIECES)
    with write_text(path) as out:
        out.writelines(stream)


def _environment() -> jinja2.Environment:
    """Create the template environment with everything common to all pages. Texts are made displayable and escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rankllm_infer", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: displayable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "version": __version__,
        "head": HEAD,
        "max_comparisons": MAX_COMPARISONS,
        "max_further": MAX_FURTHER,
        "few": _FEW_DEFECTS,
        "split": split_snippet,
        "sign": charts.sign,
        "grade_class": charts.grade_class,
        "heads_chart": charts.heads_chart,
        "interval_chart": charts.interval_chart,
        **_inlined(),
    }
    return environment


def displayable(text: str) -> str:
    """Replace characters that HTML or UTF-8 cannot contain with U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def split_snippet(text: str) -> tuple[str, str]:
    """Split a text into its start, up to a space, and the rest; the rest is empty if little would remain."""
    if len(text) <= _SNIPPET_CHARACTERS * 5 // 4:
        return text, ""
    end = text.rfind(" ", _SNIPPET_CHARACTERS // 2, _SNIPPET_CHARACTERS)
    end = _SNIPPET_CHARACTERS if end < 0 else end
    return text[:end], text[end:].lstrip()


def _bars(sources: Sources, plan: Outline, texts: Texts) -> list[tuple[str, float, str]]:
    gains = plan.gains(sources.explained)
    return [
        (f"#q{number}", gains[qid], displayable(f"{gains[qid]:+.3f} {texts.queries.get(qid, qid)}"))
        for number, qid in enumerate(plan.docids, start=1)
    ]


def _legend(sources: Sources, max_grade: int) -> list[tuple[str, str]]:
    """Return CSS class and meaning of each kind of cell."""
    grades = sorted({max(0, grade) for of_query in sources.qrels.values() for grade in of_query.values()} | {0})
    by_class: dict[str, list[int]] = {}
    for grade in grades:
        by_class.setdefault(charts.grade_class(grade, max_grade), []).append(grade)
    words = {name: f"grade {of[0]}" if len(of) == 1 else f"grades {of[0]}–{of[-1]}" for name, of in by_class.items()}
    return [*words.items(), ("gu", "not judged")]


def _inlined() -> dict[str, object]:
    """Return style sheet and script, with the hashes by which the page's policy allows them."""
    style, script = inlined(BASE_STYLE, ("report", "page.css")), inlined(("report", "page.js"))
    return {
        "style": Markup(style.text),
        "style_source": Markup(style.source),
        "script": Markup(script.text),
        "script_source": Markup(script.source),
    }
