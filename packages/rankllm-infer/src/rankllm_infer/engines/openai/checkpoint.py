"""A server's model: opened by asking whether the server is there and offers it."""

from __future__ import annotations

from rankllm_infer.engines.base import EngineError, Prompt, Read
from rankllm_infer.engines.openai.engine import OpenAIEngine
from rankllm_infer.engines.openai.http import NoServerError, check_server
from rankllm_infer.engines.openai.settings import OpenAISettings


class ServedModel:
    """A model whose tokenizer, limits and device its server keeps to itself."""

    tokenizer = None
    positions = None
    place = ""

    def __init__(self, settings: OpenAISettings) -> None:
        """Ask the server for its models. Raises NoServerError at once where nobody is there."""
        self._settings = settings
        self.where = f"at {settings.shown_url}"
        self.warnings = _doubts_about(settings)

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> OpenAIEngine:
        """The engine; the server finds out by itself how long prompts are. `read` is checked prompt by prompt."""
        return OpenAIEngine(self._settings)


def _doubts_about(settings: OpenAISettings) -> tuple[str, ...]:
    """What its list of models says against a server."""
    try:
        check_server(settings)
    except NoServerError:
        raise
    except EngineError as error:
        # Not all servers list what they serve, or to every key: the first prompts will tell.
        return (str(error),)
    return ()
