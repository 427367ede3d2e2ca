"""`rankllm-infer models`: the models that are known by name, and everything about one."""

from __future__ import annotations

import click

from rankllm_core.command_line import NAME


@click.command("models")
@click.argument("model", type=NAME, required=False, metavar="[NAME]")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object a model.")
def command(*, model: str | None, as_json: bool) -> None:
    """List the models that need no flags, or print everything about one.

    NAME is a model's name on the hub, or of a bundled reranker: its prompt, limits, sources, and what is unconfirmed.
    Any other causal language model or classifier works as well; say how it is prompted (`rerank --help`).
    """
    from rankllm_core.files import dumps
    from rankllm_infer.known_models import find_known_model, known_models, model_table

    models = known_models() if model is None else (find_known_model(model),)
    if as_json:
        for facts in models:
            click.echo(dumps(facts.to_dict()))
        return
    click.echo("\n".join(model_table(models) if model is None else models[0].lines()))
