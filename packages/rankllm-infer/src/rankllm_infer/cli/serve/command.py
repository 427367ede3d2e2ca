"""`rankllm-infer serve`: serve a reranker over widely used rerank APIs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rankllm_core.errors import ConfigError, MissingPackageError
from rankllm_infer.cli import SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank.command import given_options
from rankllm_infer.cli.rerank.options import DtypeSwitches, ModelArguments
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions
from rankllm_infer.serving.settings import ServerOptions

_OF_A_RUN = ("top_k_candidates",)
"""Options that only apply to request files; a client sends exactly the documents to be ranked."""


@click.command("serve", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(
    *select(ModelArguments),
    *(row for row in select(RerankOptions) if row.name not in _OF_A_RUN),
    *select(DtypeSwitches),
    *select(ServerOptions),
)
def command(**given: Any) -> None:
    """Serve a reranker over HTTP.

    POST /rerank, /v1/rerank and /v2/rerank implement the APIs of Cohere, Jina, vLLM and text-embeddings-inference, so
    existing clients only need a new base URL. Open / in a browser to try the model. The first SIGTERM or Ctrl-C lets
    requests in flight finish; the second stops the server immediately.
    """
    try:
        server = from_given(ServerOptions, given)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    options = given_options(given)
    if options.fuse_weight is None:
        # A card's fuse weight applies to first-stage scores. A request has none, and its documents are in arbitrary
        # order.
        options = replace(options, fuse_weight=0.0)
    try:
        from rankllm_infer.serving.server import serve
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"serve needs {error.name}, which is not installed. Install it with: uv add 'rankllm-infer[serve]'"
        ) from None
    from rankllm_infer.api import start_reranker
    from rankllm_infer.plan import plan_reranking

    model = given["model_path"]
    say(f"Loading {model} ...")
    # The full path of a folder would reveal more about this machine than a client needs.
    name = Path(model).resolve().name if Path(model).is_dir() else model
    serve(lambda: start_reranker(plan_reranking(model, options)), server, model=name, say=say)
