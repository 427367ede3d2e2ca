"""Code that comes with a model: never run, unless it is allowed for one folder or one revision of the hub."""

from __future__ import annotations

from rankllm_core.checkpoints.model_folder import check_trusted_source, own_code
from rankllm_core.errors import ConfigError
from rankllm_infer.checkpoints.hub import adapter_config, base_folder, locate_model

_OPTION = "--trust-remote-code"


def check_remote_code(model: str, base_model: str | None = None, *, allowed: bool) -> tuple[str, ...]:
    """What there is to say about code that comes with a model, for the report of the run.

    allowed: whether it may run. Of an adapter, that is its base's code, and the base must be named by `base_model`: the
    one in the adapter's own settings is the choice of whoever wrote them.
    Raises ConfigError where code is allowed from anywhere else, or where there is none to allow.
    """
    if not allowed:
        folders = dict.fromkeys(
            (locate_model(model, weights=False), base_folder(model, base_model, weights=False)),
        )
        return tuple(
            f"{folder}: has code of its own ({', '.join(files)}), which is not run; transformers' own is"
            for folder in folders
            if (files := own_code(folder))
        )
    trusted = model if adapter_config(model) is None else base_model
    if trusted is None:
        raise ConfigError(f"{_OPTION}: {model} is an adapter; name the base whose code may run with --base-model")
    folder = locate_model(trusted, weights=False)
    check_trusted_source(trusted, folder=folder, option=_OPTION)
    files = own_code(folder)
    if not files:
        raise ConfigError(f"{_OPTION} has no effect: {folder} has no code of its own; leave it out")
    return (f"{_OPTION}: code from {folder} runs with your permissions ({', '.join(files)})",)
