"""Reranker options, validated by themselves; `effective_card` combines them with the model's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError
from rankllm_infer.option_table import ENGINES, LISTWISE, LOCAL, Group, option, rows_of
from rankllm_infer.option_values import card_value, check_bounds, check_combinations, check_field_types
from rankllm_infer.ranking import pairwise_strategies
from rankllm_infer.ranking.strategies import STRATEGIES

METHODS = ("auto", "listwise", "pointwise", "pairwise")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "sdpa", "flash_attention_2", "eager")

_TRANSFORMERS, _VLLM, _SERVER = (("transformers",), ("vllm",), ("openai",))
_SCORING = ("pointwise", "pairwise")
_OPENAI: Group = "Engine (OpenAI-compatible server)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Reranker options. None means the value in the model's card, or the default stated in the field's docstring.

    Each field is a row of the option table (`rankllm_infer.option_table`); docs/rerank-options.md lists them all.
    """

    method: str = option("auto", "--method", group="Model", choices=METHODS, card="kind")
    """Ranking method. auto uses the card's method; without a card, pointwise for models with a score head and
    encoder-decoders, else listwise."""
    engine: str = option("transformers", "--engine", group="Engine", choices=ENGINES)
    """Inference engine: transformers or vLLM in this process, or an OpenAI-compatible server (openai)."""
    base_url: str | None = option(
        None, "--base-url", group=_OPENAI, effect="content", engines=_SERVER, metavar="URL", is_secret=True
    )
    """Base URL of the server's API, ending in /v1. The API key is read from OPENAI_API_KEY."""
    api_key: str | None = option(
        None, group=_OPENAI, effect="none", engines=_SERVER, set_by="OPENAI_API_KEY", is_secret=True
    )
    """API key, sent as a bearer token. Most local servers need none."""
    timeout_s: float = option(
        300.0, "--timeout", group=_OPENAI, effect="none", engines=_SERVER, above=0, unit="seconds", metavar="SECONDS"
    )
    """Number of seconds to wait for a response before retrying the request."""
    concurrency: int = option(16, "--concurrency", group=_OPENAI, effect="none", engines=_SERVER, least=1)
    """Maximum number of requests in flight."""
    dtype: str = option("auto", "--dtype", group="Engine", effect="loaded", engines=LOCAL, choices=DTYPES)
    """Dtype for weights and activations. auto selects bfloat16 on hardware that is fast at it, otherwise float16 on a
    GPU and float32 on a CPU."""
    device: str = option(
        "auto", "--device", group="Engine (transformers)", effect="loaded", engines=_TRANSFORMERS, metavar="DEVICE"
    )
    """Device to run on: auto, cpu, cuda, cuda:N or mps."""
    num_gpus: int = option(1, "--num-gpus", group="Engine", engines=LOCAL, least=1)
    """Number of GPUs to shard the model across: by layers (transformers) or by tensor parallelism (vLLM)."""
    batch_size: int | None = option(
        None,
        "--batch-size",
        "--per-device-eval-batch-size",
        group="Engine",
        engines=LOCAL,
        least=1,
        default_text="32, or vLLM's own default",
    )
    """Maximum number of prompts per batch. In float32 on a CPU, scores are always computed one prompt at a time."""
    batch_tokens: int = option(0, "--batch-tokens", group="Engine", engines=LOCAL, least=0)
    """Maximum number of tokens per batch, including padding. 0 selects a limit suitable for the device."""
    compile: bool = option(
        False, "--compile", group="Engine (transformers)", engines=_TRANSFORMERS, methods=("FIRST", *_SCORING)
    )
    """Compile the model's layers: startup takes about a minute longer, then scoring is faster. bfloat16 scores change
    slightly, because compiled layers round less often."""
    attn_implementation: str = option(
        "auto",
        "--attn-implementation",
        group="Engine (transformers)",
        engines=_TRANSFORMERS,
        choices=ATTENTIONS,
    )
    """Attention implementation. auto selects flash-attention 2 on a GPU if installed, rankllm's own kernel on a CPU for
    supported architectures, else sdpa."""
    revision: str | None = option(
        None,
        "--revision",
        group="Model",
        effect="content",
        engines=LOCAL,
        metavar="BRANCH|TAG|COMMIT",
        default_text="main",
    )
    """Model revision on the Hugging Face Hub: a branch, tag or commit. For an adapter, this is the adapter's revision;
    pin the base model with --base-model OWNER/MODEL@COMMIT."""
    trust_remote_code: bool = option(False, "--trust-remote-code", group="Model", engines=LOCAL)
    """Run remote code: custom Python code that comes with the model. Only allowed for a local folder or a model pinned
    to a full 40-digit commit hash: --revision COMMIT or OWNER/MODEL@COMMIT. For an adapter, this is the base model's
    code, and --base-model is required."""
    vllm_args: tuple[str, ...] = option((), "--vllm-arg", group="Engine (vLLM)", engines=_VLLM, metavar="KEY=VALUE")
    """Additional vLLM engine argument, such as gpu_memory_utilization=0.8. Repeat the option to pass several."""
    base_model: str | None = option(
        None, "--base-model", group="Model", effect="content", engines=LOCAL, metavar="FOLDER|NAME"
    )
    """Base model for an adapter, if different from the one named in adapter_config.json."""
    verify: bool | None = option(
        None,
        "--verify",
        group="Model",
        effect="none",
        engines=LOCAL,
        default_text="on for models up to 1B parameters whose card contains a probe",
    )
    """Verify the loaded model: rescore the probe in its card (a few prompts with recorded scores) and warn if the
    scores differ. This detects a wrong base model, adapter, template, BOS rule, quantization or score head."""
    template: str | Path | None = option(
        None, "--prompt-template-path", group="Prompt", card="template", metavar="NAME|FILE"
    )
    """Prompt template: the name of a bundled template (see `rankllm-infer prompts list`) or a YAML file."""
    instruction: str | None = option(
        None, "--instruction", group="Prompt", methods=("pointwise",), default_text="the template's"
    )
    """Instruction that defines relevance, for models that support one, such as Qwen3-Reranker. An "instruction" in a
    request takes precedence."""
    use_alpha: bool | None = option(
        None, "--use-alpha", group="Prompt", card="identifiers", card_values=("alpha", "numeric"), methods=LISTWISE
    )
    """Label passages A, B, C, ... instead of 1, 2, 3, ... This limits the window size to 26."""
    use_logits: bool | None = option(
        None,
        "--use-logits",
        group="Ranking",
        card="answer",
        card_values=("first-token", "permutation"),
        methods=LISTWISE,
    )
    """FIRST: rank by the logits of the first identifier instead of generating a permutation."""
    free_decoding: bool = option(
        False, "--free-decoding", group="Ranking", methods=("generation",), engines=_TRANSFORMERS
    )
    """Generate answers without constraints. By default, decoding is constrained to permutations of the window's
    identifiers."""
    decode_top_k: int | None = option(
        None, "--decode-top-k", group="Ranking", methods=("generation",), engines=_TRANSFORMERS, least=1
    )
    """Number of identifiers to generate per window; the remaining passages keep their order. Smaller numbers are
    faster."""
    context_size: int | None = option(
        None, "--context-size", group="Prompt", card="context_tokens", methods=LISTWISE, least=1
    )
    """Maximum number of tokens for prompt and answer together. Passages are truncated to fit."""
    max_passage_words: int | None = option(
        None, "--max-passage-words", group="Prompt", card="max_passage_words", methods=LISTWISE, least=1
    )
    """Maximum number of words per passage."""
    window_size: int | None = option(
        None, "--window-size", group="Ranking", card="window_size", methods=LISTWISE, least=1
    )
    """Number of passages per prompt."""
    stride: int | None = option(None, "--stride", group="Ranking", card="stride", methods=LISTWISE, least=1)
    """Number of ranks that the sliding window moves per step, at most the window size."""
    strategy: str | None = option(
        None,
        "--strategy",
        group="Ranking",
        methods=(*LISTWISE, "pairwise"),
        choices=(*STRATEGIES, *pairwise_strategies.STRATEGIES),
        default_text="sliding, or all-pairs for a pairwise model",
    )
    """How passages are grouped into prompts. Listwise models: sliding (windows from bottom to top), full (all
    candidates in one window), top-down (partition around a pivot) or tournament (rounds of window winners). Pairwise
    models: all-pairs, heapsort or bubble (passes from bottom to top)."""
    rank_top_k: int | None = option(
        None,
        "--rank-top-k",
        group="Ranking",
        methods=(*LISTWISE, "pairwise"),
        least=1,
        default_text=f"half a window; {pairwise_strategies.DEFAULT_TOP_K} for a pairwise model",
    )
    """Number of top passages to find with --strategy top-down, tournament, heapsort or bubble."""
    permutations: int = option(1, "--permutations", group="Ranking", methods=LISTWISE, least=1)
    """Permutation self-consistency: query each window N times, with shuffled passages after the first, and aggregate
    the rankings."""
    num_passes: int = option(1, "--num-passes", group="Ranking", methods=LISTWISE, least=1)
    """Number of passes over the list. One pass settles the top (window size - stride) ranks; each further pass settles
    more."""
    pass_depth: int | None = option(
        None, "--pass-depth", group="Ranking", methods=LISTWISE, least=2, default_text="the whole list"
    )
    """Number of top ranks covered by passes after the first; the rest keep their order."""
    shuffle_candidates: bool = option(False, "--shuffle-candidates", group="Ranking", methods=LISTWISE)
    """Shuffle each query's candidates before reranking, to measure the influence of the first-stage order."""
    seed: int = option(0, "--seed", group="Ranking", methods=LISTWISE)
    """Random seed for --shuffle-candidates and --permutations."""
    variable_passages: bool = option(True, "--variable-passages", group="Ranking", methods=LISTWISE)
    """Allow windows with fewer passages than the window size. With --no-variable-passages, such a window is an
    error."""
    system_message: str | None = option(
        None, "--system-message", group="Prompt", methods=LISTWISE, default_text="the template's"
    )
    """System message, replacing the template's."""
    few_shot_file: str | Path | None = option(
        None, "--few-shot-file", group="Prompt", effect="content", methods=LISTWISE, metavar="FILE"
    )
    """File with few-shot examples: a JSON array of {"conversations": [{"role", "value"}, ...]}."""
    num_few_shot_examples: int = option(0, "--num-few-shot-examples", group="Prompt", methods=LISTWISE, least=0)
    """Number of few-shot examples to use, from the start of --few-shot-file."""
    q_max_len: int | None = option(None, "--q-max-len", group="Prompt", card="query_tokens", methods=_SCORING, least=1)
    """Maximum number of query tokens."""
    p_max_len: int | None = option(
        None, "--p-max-len", group="Prompt", card="passage_tokens", methods=_SCORING, least=1
    )
    """Maximum number of tokens per passage."""
    top_k_candidates: int | None = option(
        None, "--top-k-candidates", group="Input", least=1, default_text="all, or 100 with --dataset"
    )
    """Number of candidates to rerank per query. The remaining candidates follow in first-stage order or, with --run and
    --dataset, are dropped."""
    identifier_prior: tuple[float, ...] | None = option(
        None,
        "--identifier-prior",
        group="Ranking",
        card="identifier_prior",
        methods=("FIRST",),
        metavar="FILE|none",
        is_text=True,
    )
    """File with the positional bias to subtract from the identifier logits, as measured by `rankllm-infer calibrate`.
    Use none (in Python: an empty tuple) to subtract nothing."""
    fuse_weight: float | None = option(
        None, "--fuse-weight", group="Ranking", card="fuse_weight", least=0, most=1, metavar="WEIGHT"
    )
    """Weight of the first-stage score in the final order, from 0 (model only) to 1 (first stage only)."""
    with_trace: bool = option(False, "--trace", group="Output", set_by="--trace")
    """Record every prompt and answer with the results."""

    def __post_init__(self) -> None:
        check_field_types(self)
        check_bounds(self)
        if (self.engine == "openai") != (self.base_url is not None):
            raise ConfigError("engine openai and base_url go together: --engine openai --base-url http://HOST:PORT/v1")
        rows = rows_of(RerankOptions).values()
        elsewhere = tuple(row.name for row in rows if self.engine not in row.option.engines)
        self.refuse(elsewhere, why=f"with --engine {self.engine}")
        check_combinations(self)

    def refuse(self, names: tuple[str, ...], *, why: str) -> None:
        """Raise ConfigError if one of the named options is set, because an option without effect is an error."""
        rows = rows_of(RerankOptions)
        for name in names:
            if (value := getattr(self, name)) != rows[name].default:
                spelled = rows[name].off if value is False else rows[name].spelled
                raise ConfigError(f"{spelled} has no effect {why}; leave it out")

    def card_overrides(self, *methods: str) -> Mapping[str, object]:
        """Return the card's fields overridden by options of these methods, with the requested values; None: keep the
        card's value.

        The caller handles the template, which is a name here, and the kind.
        """
        return {
            str(row.option.card): card_value(row.option, getattr(self, row.name))
            for row in rows_of(RerankOptions).values()
            if row.option.card not in (None, "template", "kind") and set(methods) & set(row.option.methods)
        }

    def settings(self) -> dict[str, object]:
        """Return the options that affect results by their own values, for a run's fingerprint.

        Other options are covered by the card, by the contents of the model or files, or by the loaded model, or have no
        effect on results: see `Option.effect`.
        """
        return {
            row.spelled: list(value) if isinstance(value, tuple) else value
            for row in rows_of(RerankOptions).values()
            if row.option.effect == "option"
            for value in [getattr(self, row.name)]
        }


def option_of(name: str) -> str:
    """Return the command-line option for a `RerankOptions` field."""
    return rows_of(RerankOptions)[name].spelled


def card_option(name: str, value: object) -> str:
    """Return the command-line option that sets a card field to this value."""
    row = next(row for row in rows_of(RerankOptions).values() if row.option.card == name)
    return row.off if row.option.card_values and value == row.option.card_values[1] else row.spelled


def inapplicable(*methods: str) -> tuple[str, ...]:
    """Return the options that apply to none of these methods."""
    rows = rows_of(RerankOptions).values()
    return tuple(row.name for row in rows if not set(methods) & set(row.option.methods))
