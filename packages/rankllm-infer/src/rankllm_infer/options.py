"""Everything that can be asked of a reranker, checked by itself; the card comes later (`effective_card`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from rankllm_core.config import one_of
from rankllm_core.errors import ConfigError
from rankllm_infer.engines.vllm.settings import engine_arguments
from rankllm_infer.option_types import check_field_types
from rankllm_infer.ranking.strategies import STRATEGIES, TOP_K_STRATEGIES, check_pass_depth

METHODS = ("auto", "listwise", "pointwise")
ENGINES = ("transformers", "vllm", "openai")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "sdpa", "flash_attention_2", "eager")


_AT_LEAST_1 = (
    "concurrency",
    "num_gpus",
    "batch_size",
    "decode_top_k",
    "context_size",
    "max_passage_words",
    "window_size",
    "stride",
    "rank_top_k",
    "permutations",
    "num_passes",
    "q_max_len",
    "p_max_len",
    "top_k_candidates",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Everything that can be asked of a reranker. None: what the model's card says."""

    method: str = "auto"
    engine: str = "transformers"
    base_url: str | None = field(default=None, repr=False)
    """The server of the engine `openai`, ending in /v1."""
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 300.0
    """How long the engine `openai` waits for one answer."""
    concurrency: int = 16
    """Prompts that the engine `openai` has under way at once."""
    dtype: str = "auto"
    device: str = "auto"
    num_gpus: int = 1
    batch_size: int | None = None
    """Prompts that go through the model at once, at the most; None: 32, or what vLLM chooses. Where the engine
    `transformers` reads scores in float32 on a CPU, it is always one."""
    batch_tokens: int = 0
    """Tokens, padding included, that go through the model at once, at the most; 0: what suits the device."""
    compile: bool = False
    """Compile the model's layers, where scores are read: a minute at the start, faster from then on. Compiled layers
    round less often, so scores in bfloat16 differ a little: a run is resumed as it was begun."""
    attn_implementation: str = "auto"
    """One of ATTENTIONS. auto: flash-attention on a GPU where it is installed, else torch's, or on a CPU our own."""
    trust_remote_code: bool = False
    """Run code that comes with the model, a local folder or a revision pinned as OWNER/MODEL@COMMIT."""
    vllm_args: tuple[str, ...] = ()
    """KEY=VALUE of further arguments of the engine `vllm`."""
    base_model: str | None = None
    """For an adapter: its base, in place of the one it names."""
    template: str | Path | None = None
    """A shipped template's name, or a YAML file in the originals' layout."""
    use_logits: bool | None = None
    use_alpha: bool | None = None
    free_decoding: bool = False
    """Generate without holding the answer to a permutation, which the engine `transformers` does by default."""
    decode_top_k: int | None = None
    """Decode the first so many of a window; the others keep their order."""
    context_size: int | None = None
    max_passage_words: int | None = None
    window_size: int | None = None
    stride: int | None = None
    strategy: str = "sliding"
    """Which windows a listwise model is asked: one of STRATEGIES."""
    rank_top_k: int | None = None
    """How many of the best `top-down` and `tournament` look for; None: half a window."""
    permutations: int = 1
    """How often each window is asked, in shuffled orders after the first; their consensus counts."""
    num_passes: int = 1
    pass_depth: int | None = None
    """How many of the first the passes after the first one go over; None: all."""
    shuffle_candidates: bool = False
    seed: int = 0
    variable_passages: bool = True
    system_message: str | None = None
    few_shot_file: str | Path | None = None
    num_few_shot_examples: int = 0
    q_max_len: int | None = None
    p_max_len: int | None = None
    top_k_candidates: int | None = None
    fuse_weight: float | None = None
    """The first stage's share in the final order, from 0 (the model alone) to 1."""
    identifier_prior: tuple[float, ...] | None = None
    """What FIRST takes off the logits of a window's identifiers; (): nothing."""
    with_trace: bool = False

    def __post_init__(self) -> None:
        check_field_types(self)
        one_of(self.method, METHODS, where="method")
        one_of(self.engine, ENGINES, where="engine")
        one_of(self.dtype, DTYPES, where="dtype")
        one_of(self.attn_implementation, ATTENTIONS, where="attn_implementation")
        one_of(self.strategy, STRATEGIES, where="strategy")
        for name in _AT_LEAST_1:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, found {value}")
        for name in ("batch_tokens", "num_few_shot_examples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected at least 0, found {getattr(self, name)}")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s: expected more than 0 seconds, found {self.timeout_s}")
        if (self.engine == "openai") != (self.base_url is not None):
            raise ConfigError("engine openai and base_url go together: --engine openai --base-url http://HOST:PORT/v1")
        names = tuple(name for name, engines in _ENGINES_OF.items() if self.engine not in engines)
        refuse(self, names, why=f"with --engine {self.engine}")
        engine_arguments(self.vllm_args)
        if self.free_decoding:
            refuse(self, ("decode_top_k",), why="with --free-decoding")
        if self.strategy != "sliding":
            refuse(self, ("stride", "variable_passages"), why=f"with --strategy {self.strategy}")
        if self.strategy not in TOP_K_STRATEGIES:
            refuse(self, ("rank_top_k",), why=f"with --strategy {self.strategy}")
        check_pass_depth(self.pass_depth, num_passes=self.num_passes, top_k_candidates=self.top_k_candidates)
        if not self.shuffle_candidates and self.permutations == 1:
            refuse(self, ("seed",), why="without --shuffle-candidates or --permutations")
        if bool(self.few_shot_file) != bool(self.num_few_shot_examples):
            raise ConfigError("few_shot_file and num_few_shot_examples go together; one was given without the other")


_LOCAL = ("transformers", "vllm")
_ENGINES_OF = {
    "api_key": ("openai",),
    "timeout_s": ("openai",),
    "concurrency": ("openai",),
    "device": ("transformers",),
    "compile": ("transformers",),
    "attn_implementation": ("transformers",),
    "free_decoding": ("transformers",),
    "decode_top_k": ("transformers",),
    "vllm_args": ("vllm",),
    **dict.fromkeys(("dtype", "num_gpus", "batch_size", "batch_tokens", "base_model", "trust_remote_code"), _LOCAL),
}
"""Options that only some engines know, and which those are."""


_SPELLED = {"timeout_s": "timeout", "vllm_args": "vllm_arg"}
"""Options whose name on the command line is not that of their field."""


def option_of(name: str) -> str:
    """What a field of `RerankOptions` is called on the command line."""
    return "--" + _SPELLED.get(name, name).replace("_", "-")


def refuse(options: RerankOptions, names: tuple[str, ...], *, why: str) -> None:
    """An option without effect is an error, not a silence."""
    defaults = {f.name: f.default for f in fields(RerankOptions)}
    for name in names:
        if (value := getattr(options, name)) != defaults[name]:
            option = option_of(name)
            option = option.replace("--", "--no-") if value is False else option
            raise ConfigError(f"{option} has no effect {why}; leave it out")


_NOT_RESULTS = ("api_key", "timeout_s", "concurrency")
_IN_THE_CARD = (
    "method",
    "template",
    "use_logits",
    "use_alpha",
    "context_size",
    "max_passage_words",
    "window_size",
    "stride",
    "q_max_len",
    "p_max_len",
    "fuse_weight",
    "identifier_prior",
)
"""The card has them: it is compared by itself, with these options over it."""
_FOUND_WHEN_LOADED = ("dtype", "device")
_OF_THE_MODEL = ("base_url", "base_model", "few_shot_file")
"""Compared as the server's address, and by their contents, not their names."""


def result_options(options: RerankOptions) -> dict[str, object]:
    """The options that decide results, by the names a user knows them by; the card and the files have others."""
    elsewhere = {*_NOT_RESULTS, *_IN_THE_CARD, *_FOUND_WHEN_LOADED, *_OF_THE_MODEL}
    asked: dict[str, object] = {}
    for option in fields(RerankOptions):
        if option.name not in elsewhere:
            value = getattr(options, option.name)
            name = "--trace" if option.name == "with_trace" else option_of(option.name)
            asked[name] = list(value) if isinstance(value, tuple) else value
    return asked
