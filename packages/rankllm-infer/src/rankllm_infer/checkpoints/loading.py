"""What a checkpoint's loaders share: its tokenizer, and silence while transformers loads."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankllm_core.checkpoints.load_failures import readable_load


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a folder; see `ModelFiles.tokenizer_folder`.

    trust_remote_code: run code that comes with it, unless the folder is an adapter's; see `check_remote_code`.
    Raises RankLLMError in one line where none can be loaded.
    """
    from transformers import AutoTokenizer

    options = {"trust_remote_code": trust_remote_code and not (folder / "adapter_config.json").exists()}
    # With mistral_common installed, transformers prefers a tekken.json and gives a tokenizer of another interface.
    if importlib.util.find_spec("transformers.integrations.mistral.tokenizer") is not None:
        options["mistral_format"] = False
    with readable_load(folder, problem="no tokenizer can be loaded from it"):
        return AutoTokenizer.from_pretrained(folder, **options)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' notes about loading off the user's screen; errors stay."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks for an attribute that transformers has renamed; nobody else can do anything about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            # What is wrong with a checkpoint is said in one line of our own.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|peft|transformers)\.")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
