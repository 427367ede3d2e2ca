"""`rankllm-infer models`: list the supported models, or describe one."""

from __future__ import annotations

import click

from rankllm_core.command_line import NAME


@click.command("models")
@click.argument("model", type=NAME, required=False, metavar="[NAME]")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object per model.")
def command(*, model: str | None, as_json: bool) -> None:
    """List the models that work without further options, or describe one.

    NAME is a model on the Hugging Face Hub or a bundled reranker. Its description includes the prompt, limits, sources
    and unconfirmed facts. Any other causal language model or classifier works as well once you specify its prompt (see
    `rerank --help`).
    """
    from rankllm_core.files import dumps
    from rankllm_infer.known_models import find_known_model, known_models, model_table

    models = known_models() if model is None else (find_known_model(model),)
    if as_json:
        for facts in models:
            click.echo(dumps(facts.to_dict()))
        return
    click.echo("\n".join(model_table(models) if model is None else models[0].lines()))
