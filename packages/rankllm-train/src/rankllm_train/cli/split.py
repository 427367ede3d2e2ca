"""`train split`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import ConfigError
from rankllm_core.files import check_outputs
from rankllm_train.cli import SETTINGS
from rankllm_train.cli.data_options import counted, shared, tell
from rankllm_train.cli.grouped_help import GroupedCommand
from rankllm_train.preparation.split import BadRecords, SplitRule, split_records

_GROUPS = {
    "Output": ("output_dir", "train_output", "dev_output", "report", "overwrite"),
    "Split": ("dev_fraction", "link_positives", "bad_records", "seed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """Parsed options of `train split`."""

    file: Path
    dev_fraction: float
    output_dir: Path | None
    train_output: Path | None
    dev_output: Path | None
    link_positives: bool
    bad_records: BadRecords
    seed: int
    report: Path | None
    overwrite: bool

    @property
    def rule(self) -> SplitRule:
        """Which records go to the dev set."""
        return SplitRule(
            dev_fraction=self.dev_fraction,
            link_positives=self.link_positives,
            bad_records=self.bad_records,
            seed=self.seed,
        )

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The two output files. Raises ConfigError unless they are named in exactly one way."""
        folder, train, dev = self.output_dir, self.train_output, self.dev_output
        if folder is not None and train is None and dev is None:
            return folder / "train.jsonl", folder / "dev.jsonl"
        if folder is None and train is not None and dev is not None:
            return train, dev
        raise ConfigError("give either --output-dir, or both --train-output and --dev-output")


@click.command("split", cls=GroupedCommand, groups=_GROUPS, context_settings=SETTINGS)
@click.argument("file", type=PATH)
@click.option(
    "--dev-fraction",
    type=float,
    default=0.1,
    show_default=True,
    help="Approximate fraction of records for the dev set.",
)
@click.option("--output-dir", type=PATH, help="Folder for train.jsonl and dev.jsonl.")
@click.option(
    "--train-output",
    type=PATH,
    help="Training file (JSON Lines, gzipped if the name ends in .gz). Alternative to --output-dir.",
)
@click.option("--dev-output", type=PATH, help="Dev file. Alternative to --output-dir.")
@click.option(
    "--link-positives/--no-link-positives",
    default=True,
    show_default=True,
    help="Keep records that share a positive passage in the same set.",
)
@click.option(
    "--bad-records",
    type=click.Choice(get_args(BadRecords)),
    default="error",
    show_default=True,
    help="How to handle malformed records: fail, or skip and count them.",
)
@shared("seed", "report", "overwrite")
def command(**given: Any) -> None:
    """Split the pointwise or listwise records in FILE into training and dev sets without leakage.

    Records are assigned by a hash of the query, ignoring case and punctuation. Records that share a query or a positive
    passage, directly or through other records, stay in the same set. The positives of a listwise record are its
    top-ranked passage and its positive_docids.
    """
    options = SplitOptions(**given)
    train, dev = options.outputs
    rule = options.rule
    check_outputs([train, dev, options.report], [options.file], overwrite=options.overwrite)
    tally = split_records(options.file, rule, train=train, dev=dev, track=counted)
    tell(tally, outputs=[train, dev], report=options.report, given=given)
