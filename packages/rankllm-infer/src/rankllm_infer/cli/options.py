"""Click options generated from the option table, and grouped help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, get_args

import click
from click.decorators import FC

from rankllm_core.command_line import NAME, PATH
from rankllm_core.trec import RunFormat
from rankllm_infer.option_table import ENGINE_GROUPS, GROUPS, Row, option, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadsRuns:
    """Option of every command that reads runs."""

    run_format: str = option("auto", "--run-format", group="Input", effect="content", choices=get_args(RunFormat))
    """Run format. Required for three-column runs whose last column could hold scores (tsv) or ranks (msmarco)."""


class RowOption(click.Option):
    """Click option of a row. A value that is not given is None: the default belongs to the row's owner."""

    def __init__(self, param_decls: list[str], *, row: Row, default: Any = None) -> None:
        self.row = row
        super().__init__(
            param_decls,
            type=None if row.is_switch else _click_type(row),
            multiple=row.is_repeatable,
            # Any default, even None, would satisfy a required option.
            **({"required": True} if row.default is MISSING else {"default": default}),
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return flags and help text, followed by scope, default and bounds in brackets."""
        row = self.row
        # In an engine's own group, repeating the engine for each option would be noise.
        scope = row.methods_text if row.option.group in ENGINE_GROUPS[1:] else row.scope
        default = f"default: {row.default_text}" if row.default_text else ""
        notes = "; ".join(note for note in (scope, default, row.bounds, "required" if self.required else "") if note)
        return row.spelling, f"{row.help}  [{notes}]" if notes else row.help


class GroupedCommand(click.Command):
    """Command whose help lists options under the table's group headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group, in the order of GROUPS; options without a row come last."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in (*GROUPS, "Other")}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                group = parameter.row.option.group if isinstance(parameter, RowOption) else "Other"
                sections[group].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def select(owner: type, *names: str) -> tuple[Row, ...]:
    """Return an owner's rows by field name; by default all rows with an option of their own."""
    rows = rows_of(owner)
    return tuple(rows[name] for name in names or [row.name for row in rows.values() if row.is_on_the_command_line])


def row_options(*rows: Row) -> Callable[[FC], FC]:
    """Decorate a command with the options of these rows, in order."""

    def decorate(command: FC) -> FC:
        for row in reversed(rows):
            flags = [f"{flag}/--no-{flag.removeprefix('--')}" if row.is_switch else flag for flag in row.option.flags]
            command = click.option(*flags, row.name, cls=RowOption, row=row)(command)
        return command

    return decorate


def _click_type(row: Row) -> click.ParamType[Any] | type:
    rule = row.option
    if rule.choices:
        return click.Choice(rule.choices)
    if rule.is_text or str in row.kinds:
        # An empty name, for example from an unset shell variable, would mean the current folder or nothing at all.
        return NAME if any(word in row.metavar for word in ("FILE", "FOLDER", "NAME", "COMMIT")) else str
    (kind,) = row.kinds
    if kind is Path:
        return PATH
    if kind is float:
        lowest = rule.least if rule.above is None else rule.above
        return click.FloatRange(min=lowest, max=rule.most, min_open=rule.above is not None)
    return int if rule.least is None else click.IntRange(min=int(rule.least))


run_format_option = click.option(
    "--run-format", "run_format", cls=RowOption, row=rows_of(ReadsRuns)["run_format"], default="auto"
)
"""--run-format for commands that do not use `row_options`."""


DEFAULT_MEASURES = ("nDCG@10",)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCommand:
    """Base of commands that evaluate runs against relevance judgements."""

    qrels: Path | None
    names: tuple[str, ...]
    """Measures as given on the command line."""
    relevance_level: int
    is_complete: bool
    """True if -c was given, which is the default here."""
    run_format: RunFormat
    run_queries_only: bool

    def measures(self) -> list[str]:
        """Split the measures into single names. Raises UsageError if -c is contradicted, ConfigError for an unknown
        measure."""
        from rankllm_infer.evaluation.measures import split_measures

        if self.is_complete and self.run_queries_only:
            raise click.UsageError("-c and --run-queries-only contradict each other")
        return split_measures(self.names, relevance_level=self.relevance_level)


def judgements_file(asked: Path | None) -> Path:
    """Resolve a path or the name of a test collection to a file of judgements. Raises RankLLMError if there is none."""
    if asked is None:
        raise click.UsageError("--qrels is required")
    if asked.exists():
        return asked
    from rankllm_infer.jobs.known_qrels import find_qrels

    return find_qrels(str(asked))


def judgement_options(
    measures: Sequence[str] = DEFAULT_MEASURES, *, is_required: bool = True
) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """Add --qrels, -m, -l and -c to a command. measures: default of -m. is_required: whether --qrels is."""
    options = [
        click.option(
            "--qrels",
            type=PATH,
            required=is_required,
            help="Relevance judgements (qrels), TREC or BEIR, optionally gzipped, or the name of a test collection.",
        ),
        click.option(
            "-m",
            "--measure",
            "names",
            multiple=True,
            default=measures,
            help="Measure, such as nDCG@10, MRR@10, Recall@100, AP or ndcg_cut.10. Repeat the option or use commas.",
        ),
        click.option(
            "-l",
            "--relevance-level",
            type=click.IntRange(1),
            default=1,
            help="Minimum relevance grade that counts as relevant.",
        ),
        # trec_eval's flag for the default behaviour here.
        click.option("-c", "is_complete", is_flag=True, hidden=True),
    ]

    def decorate(command: click.decorators.FC) -> click.decorators.FC:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate
