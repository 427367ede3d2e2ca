"""`rankllm-infer doctor`: what works on this machine, and what is missing for the rest."""

from __future__ import annotations

import click


@click.command("doctor")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object.")
def command(*, as_json: bool) -> None:
    """Say which engines, devices and packages work here, and what to install for the others."""
    from rankllm_core.files import dumps
    from rankllm_infer.diagnosis import examine

    found = examine()
    click.echo(dumps(found.to_dict()) if as_json else "\n".join(found.lines()))
