"""A checkpoint for vLLM: opened by reading its configuration and its tokenizer, and loaded when vLLM is started."""

from __future__ import annotations

from typing import Any

from rankllm_infer.checkpoints.loading import load_tokenizer
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.engines.base import Prompt, Read
from rankllm_infer.engines.vllm.engine import VllmEngine
from rankllm_infer.engines.vllm.loading import start_vllm
from rankllm_infer.engines.vllm.settings import VllmSettings


class VllmCheckpoint:
    """A model whose weights vLLM loads when it knows how long prompts can be."""

    warnings: tuple[str, ...] = ()

    def __init__(self, files: ModelFiles, settings: VllmSettings) -> None:
        self._files, self._settings = files, settings
        self.positions = files.base.positions
        self.tokenizer: Any = load_tokenizer(files.tokenizer_folder, trust_remote_code=settings.trust_remote_code)
        self.place = ""
        """Known once vLLM has been started."""

    @property
    def where(self) -> str:
        """Where the model runs, to follow its name."""
        return f"on {self.place}" + (", running its own code" if self._settings.trust_remote_code else "")

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> VllmEngine:
        """Load the weights. vLLM sets memory aside for a prompt of the longest length; it holds no answer to a form."""
        max_tokens = longest if self.positions is None else min(longest, self.positions)
        kind = "sequence-classification" if read == "head" else "causal"
        engine, self.place = start_vllm(
            self._files, kind, tokenizer=self.tokenizer, max_tokens=max_tokens, settings=self._settings
        )
        return engine
