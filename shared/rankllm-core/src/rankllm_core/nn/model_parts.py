"""transformers models: quiet loading with readable errors, backbones, tied weights and attention functions.

Imports torch and transformers when used, not when imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankllm_core.errors import ContractError, RankLLMError, first_line

if TYPE_CHECKING:
    from torch import Tensor

_TIED_LAYERS = {"lm_head", "embed_tokens"}
"""Layers that share one weight matrix in many models."""
_ATTENTION_EXTRAS = ("softcap", "s_aux", "position_bias", "cache", "is_causal")
"""Options for unusual attention, which is left to torch's implementation."""
_SHOWN_CHARACTERS = 240


@contextlib.contextmanager
def quiet_transformers(*, hide_warnings: bool = False) -> Iterator[None]:
    """Hide transformers' notes about loading; errors are still shown.

    hide_warnings: also hide warnings of torch, PEFT and transformers, where the checkpoint is validated here.
    """
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT uses an attribute that transformers has renamed; users cannot do anything about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            if hide_warnings:
                warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|peft|transformers)\.")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def readable_load(source: object, *, problem: str = "the model cannot be loaded") -> Iterator[None]:
    """Turn any error of the libraries that load a model into a RankLLMError that names the folder and the cause.

    Only calls into such libraries belong inside: for damaged files they raise KeyError, TypeError, RuntimeError, errors
    of their own and, from Rust, panics. RankLLMErrors pass unchanged. The cause stays attached.
    source: the folder. problem: what cannot be done, for the message.
    """
    try:
        yield
    except RankLLMError:
        raise
    except Exception as error:
        raise _load_error(source, error, problem) from error
    except BaseException as error:
        # A Rust panic derives from BaseException, so that it is not caught by accident.
        if type(error).__name__ != "PanicException":
            raise
        raise _load_error(source, error, problem) from error


def _load_error(source: object, error: BaseException, problem: str) -> RankLLMError:
    text = str(error)
    if "size mismatch" in text or "ignore_mismatched_sizes" in text:
        shapes = next(
            (f" ({line.strip()[:_SHOWN_CHARACTERS]})" for line in text.splitlines() if "size mismatch" in line), ""
        )
        return ContractError(f"{source}: {problem}: the sizes of the weights do not match its settings{shapes}")
    if "Weights only load failed" in text:
        return RankLLMError(
            f"{source}: {problem}: its pickled weights are damaged or contain more than tensors, and are not "
            "unpickled; use weights in safetensors format"
        )
    if "trust_remote_code" in text:
        return RankLLMError(
            f"{source}: {problem} without its own code (auto_map), which is not run; allow it with "
            "--trust-remote-code, "
            "for a local folder or a pinned revision"
        )
    if "Unrecognized configuration class" in text:
        kind = re.search(r"\.(\w+)Config'", text)
        what = "score head over a decoder" if "SequenceClassification" in text else "causal language model"
        return ContractError(f"{source}: {problem}: transformers has no {what} for {kind[1] if kind else 'its kind'}")
    if isinstance(error, ImportError):
        return RankLLMError(f"{source}: {problem}: it needs a package that is not installed ({first_line(error)})")
    if isinstance(error, MemoryError):
        return RankLLMError(f"{source}: {problem}: not enough memory")
    return RankLLMError(f"{source}: {problem} ({first_line(error)})")


def fast_tokenizer_options() -> dict[str, Any]:
    """Return options for AutoTokenizer that restrict it to tokenizer.json.

    If mistral_common is installed, it would prefer a tekken.json and return a tokenizer without text chat templates and
    without the interface that prompts are checked with.
    """
    has_option = importlib.util.find_spec("transformers.integrations.mistral.tokenizer") is not None
    return {"mistral_format": False} if has_option else {}


def backbone_of(model: Any) -> Any:
    """Return the model without its head, usually at `base_model_prefix`, but not in every family (Llama 4).

    Raises ContractError if there is none.
    """
    import torch

    for name in (model.base_model_prefix, "model", "transformer", "backbone"):
        if name and isinstance(backbone := getattr(model, name, None), torch.nn.Module):
            return backbone
    if isinstance(decoder := getattr(model, "get_decoder", lambda: None)(), torch.nn.Module) and decoder is not model:
        return decoder
    raise ContractError(f"{type(model).__name__} has no backbone separate from its head, which is not supported")


def untie_changed(model: Any, changed: Iterable[str], *, adapter: str | Path, is_kept_tied: bool) -> None:
    """Untie the head if an adapter changes the head or the embeddings, and they share one matrix.

    Merged into the shared matrix, the adapter would change both, and the model would differ from the trained one.
    changed: names of the adapter's tensors or layers. Trainable tokens do not count: for tied weights, PEFT changes
    head and embeddings alike. adapter: its folder, for messages.
    is_kept_tied: whether it was trained with `ensure_weight_tying`, which raises ContractError: merging cannot preserve
    that.
    """
    head = model.get_output_embeddings()
    parts = {part for name in changed if "trainable_tokens" not in name for part in name.split(".")}
    if head is None or head.weight is not model.get_input_embeddings().weight or not parts & _TIED_LAYERS:
        return
    if is_kept_tied:
        raise ContractError(
            f"{adapter}: adapts tied embeddings and head with ensure_weight_tying, which cannot be merged; train it "
            "without ensure_weight_tying"
        )
    import torch

    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False


def use_attention_function(model: Any, name: str, attend: Callable[..., Any], *, keep_registered: bool = False) -> None:
    """Make a model that uses torch's attention (`sdpa`) use this function, under this name.

    keep_registered: keep a function already registered under the name, such as one hidden from a compiler.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa":
        return
    if not keep_registered or name not in AttentionInterface().valid_keys():
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def changes_attention(options: Mapping[str, Any]) -> bool:
    """Whether a layer requests unusual attention (softcapping, sinks, position biases)."""
    return any(options.get(name) is not None for name in _ATTENTION_EXTRAS)


def causal_shares(rows_NQD: Tensor, key_NKD: Tensor, *, n_queries: int, scale: float) -> Tensor:
    """Return the attention probabilities of the last n_queries tokens over the K tokens up to each (NQK, sums of 1).

    N: batch and shared keys. Q: the heads that share keys, stacked, with n_queries rows each.
    """
    import torch

    Q, K = rows_NQD.shape[1], key_NKD.shape[1]
    is_later = torch.ones(n_queries, K, dtype=torch.bool).triu_(K - n_queries + 1)
    hidden = rows_NQD.new_zeros(n_queries, K).masked_fill_(is_later, float("-inf")).repeat(Q // n_queries, 1)
    return torch.baddbmm(hidden, rows_NQD, key_NKD.transpose(1, 2), alpha=scale).softmax(-1)
