"""The tokenizer of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankllm_core.checkpoints.load_failures import readable_load


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer in a folder; see `ModelFiles.tokenizer_folder`.

    trust_remote_code: run code that comes with it, unless the folder is an adapter's; see `check_remote_code`.
    Raises RankLLMError in one line where none can be loaded.
    """
    from transformers import AutoTokenizer

    from rankllm_core.nn.model_parts import fast_tokenizer_options

    trusted = trust_remote_code and not (folder / "adapter_config.json").exists()
    with readable_load(folder, problem="no tokenizer can be loaded from it"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted, **fast_tokenizer_options())
