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
from rankllm_train.preparation.split import BadRecords, SplitRule, split_records


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """What a command line of `train split` says."""

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
        """Which records go to dev."""
        return SplitRule(
            dev_fraction=self.dev_fraction,
            link_positives=self.link_positives,
            bad_records=self.bad_records,
            seed=self.seed,
        )

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The two files to write. Raises ConfigError unless they are named in one way."""
        folder, train, dev = self.output_dir, self.train_output, self.dev_output
        if folder is not None and train is None and dev is None:
            return folder / "train.jsonl", folder / "dev.jsonl"
        if folder is None and train is not None and dev is not None:
            return train, dev
        raise ConfigError("give --output-dir, or both --train-output and --dev-output")


@click.command("split", context_settings=SETTINGS)
@click.argument("file", type=PATH)
@click.option("--dev-fraction", type=float, default=0.1, show_default=True, help="Share of the records, about.")
@click.option("--output-dir", type=PATH, help="Write train.jsonl and dev.jsonl in this folder.")
@click.option("--train-output", type=PATH, help="In place of --output-dir: JSON Lines; a .gz name is compressed.")
@click.option("--dev-output", type=PATH, help="The same for dev.")
@click.option(
    "--link-positives/--no-link-positives",
    default=True,
    show_default=True,
    help="Keep records with the same positive passage together.",
)
@click.option(
    "--bad-records",
    type=click.Choice(get_args(BadRecords)),
    default="error",
    show_default=True,
    help="What to do with malformed ones.",
)
@shared("seed", "report", "overwrite")
def command(**given: Any) -> None:
    """Split the records in FILE, pointwise or listwise, into train and dev without a leak.

    The side is a hash of the query, whatever its case and punctuation. Records that share a query or a positive passage
    (of a listwise record: the one ranked first, and its positive_docids), directly or by way of others, are on the same
    side.
    """
    options = SplitOptions(**given)
    train, dev = options.outputs
    rule = options.rule
    check_outputs([train, dev, options.report], [options.file], overwrite=options.overwrite)
    tally = split_records(options.file, rule, train=train, dev=dev, track=counted)
    tell(tally, outputs=[train, dev], report=options.report, given=given)
