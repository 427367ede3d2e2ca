"""Load a model the way its checkpoint is made: full, merged or LoRA adapter; and never with a head nobody trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rankllm_core.checkpoints.load_failures import readable_load
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.config import one_of
from rankllm_core.errors import ContractError, RankLLMError
from rankllm_core.files.manifest import check_intact
from rankllm_core.nn.model_parts import quiet_transformers
from rankllm_infer.checkpoints.hub import adapter_config, base_folder, load_tokenizer, locate_model, model_config
from rankllm_infer.engines.transformers.cpu_attention import use_block_attention

ModelKind = Literal["causal", "sequence-classification"]

_HEAD_NAMES = ("score.weight", "classifier.weight")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HALF = (torch.bfloat16, torch.float16)
_FLASH_CAPABILITY = 8
"""Flash-attention 2 runs on NVIDIA's Ampere GPUs and later ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run, with its tokenizer."""

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device


def load_model(
    name_or_path: str,
    kind: ModelKind,
    *,
    base_model: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    num_gpus: int = 1,
    attn_implementation: str = "auto",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a checkpoint, from a folder or the hub.

    kind: with a language-model head or a `score` head. base_model: for an adapter, in place of the one it names.
    dtype: auto, float32, bfloat16 or float16. device: auto, cpu, cuda, cuda:N, mps. num_gpus: spread the layers over so
    many. attn_implementation: see `choose_attention`. trust_remote_code: run code that comes with a full model, or with
    an adapter's base; see `check_remote_code`.
    Raises RankLLMError when it cannot be found or is damaged, ContractError when its head is missing.
    """
    place = pick_device(device, num_gpus=num_gpus)
    number = pick_dtype(dtype, place)
    if attn_implementation == "flash_attention_2":
        _check_flash(place, number)
    name_or_path = str(locate_model(name_or_path))
    adapter = adapter_config(name_or_path)
    source = str(base_folder(name_or_path, base_model))
    if adapter is not None and kind == "causal" and adapter.get("task_type") == "SEQ_CLS":
        raise ContractError(f"{name_or_path}: the adapter was trained with a score head; use --method pointwise")
    placement = _placement(place, num_gpus)
    for folder in dict.fromkeys((source, name_or_path)):
        read_weight_headers(folder)
        check_intact(folder)
    options = {"dtype": number, "trust_remote_code": trust_remote_code, **placement}
    with quiet_transformers():
        model = _load_base(source, kind, options, is_adapter=adapter is not None)
        if adapter is not None:
            model = _attach(model, name_or_path, kind)
        tokenizer = load_tokenizer(name_or_path, base_model, trust_remote_code=trust_remote_code)
    if not placement:
        with readable_load(source):
            model.to(place)
    model.eval()
    model.requires_grad_(False)
    choose_attention(model, attn_implementation)
    return LoadedModel(model=model, tokenizer=tokenizer, dtype=number, device=place)


def choose_attention(model: Any, asked: str = "auto") -> None:
    """Let a model use one of transformers' attention implementations.

    asked: auto is flash-attention on a CUDA device of compute capability 8 or more where it is installed and the model
    takes it, `cpu_attention` on a CPU, and else what transformers chooses. Raises RankLLMError where what is asked for
    is not to be had.
    """
    if asked == "auto":
        use_block_attention(model)
        if not _takes_flash(model):
            return
        asked = "flash_attention_2"
    try:
        with quiet_transformers():
            model.set_attn_implementation(asked)
        reason = "" if model.config._attn_implementation == asked else f"{type(model).__name__} does not take it"
    except (ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
    if reason:
        raise RankLLMError(f"--attn-implementation {asked}: {reason}; use sdpa")


def _takes_flash(model: Any) -> bool:
    """Whether flash-attention 2 itself, and no kernel of the hub in its place, runs this model here."""
    from transformers.utils import is_flash_attn_2_available

    if model.device.type != "cuda" or model.dtype not in _HALF or not is_flash_attn_2_available():
        return False
    if torch.cuda.get_device_capability(model.device)[0] < _FLASH_CAPABILITY:
        return False
    supports = getattr(model, "_supports_flash_attn", False)
    return supports and not getattr(model, "_compatible_flash_implementations", None)


def _check_flash(device: torch.device, dtype: torch.dtype) -> None:
    """Raise RankLLMError where flash-attention 2 was asked for and cannot run."""
    from transformers.utils import is_flash_attn_2_available

    problem = ""
    if device.type != "cuda" or dtype not in _HALF:
        found = f"{device.type} and {str(dtype).removeprefix('torch.')}"
        problem = f"needs a CUDA device and bfloat16 or float16, found {found}"
    elif (capability := torch.cuda.get_device_capability(device)[0]) < _FLASH_CAPABILITY:
        problem = f"needs a GPU of compute capability {_FLASH_CAPABILITY} or more, found {capability}"
    elif not is_flash_attn_2_available():
        problem = "the package flash-attn is not installed (uv add flash-attn)"
    if problem:
        raise RankLLMError(f"--attn-implementation flash_attention_2: {problem}; use auto")


def pick_device(device: str, *, num_gpus: int = 1) -> torch.device:
    """The device asked for, or the best one here. Raises RankLLMError when it is not there."""
    if num_gpus > 1 and torch.cuda.device_count() < num_gpus:
        raise RankLLMError(f"--num-gpus {num_gpus}: found {torch.cuda.device_count()} CUDA devices")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise RankLLMError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RankLLMError(f"--device {device}: found {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise RankLLMError("--device mps: not available on this machine; use --device cpu")
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype asked for; `auto` is bfloat16 where the hardware is fast at it, else float16 on a GPU, else float32."""
    if dtype != "auto":
        return _DTYPES[one_of(dtype, _DTYPES, where="dtype")]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if cpu_is_fast_at_bf16() else torch.float32


def cpu_is_fast_at_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16 on x86, BF16 on Arm)."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    found = [getattr(torch.cpu, name, None) for name in checks]
    return any(check() for check in found if check is not None) or capabilities == "SVE256"


def _placement(device: torch.device, num_gpus: int) -> dict[str, object]:
    """Arguments that let accelerate spread the layers over the first `num_gpus` devices."""
    if device.type != "cuda" or num_gpus <= 1:
        return {}
    free = {index: torch.cuda.mem_get_info(index)[0] * 9 // 10 for index in range(num_gpus)}
    return {"device_map": "auto", "max_memory": free}


def _load_base(source: str, kind: ModelKind, options: dict[str, Any], *, is_adapter: bool) -> Any:
    """options: for `from_pretrained`."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if kind == "causal":
        architectures = model_config(source).get("architectures") or []
        if any(str(a).endswith("ForSequenceClassification") for a in architectures):  # type: ignore[attr-defined]
            raise ContractError(f"{source}: has a score head and no language model; use --method pointwise")
        with readable_load(source):
            model, report = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **options)
        _check_complete(report["missing_keys"], source)
        return model
    with (
        readable_load(source),
        _readable_misfits(f"{source}: the weights do not fit a model that gives one score a passage"),
    ):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=1, output_loading_info=True, **options
        )
    if not hasattr(model, "score"):
        raise ContractError(
            f"{source}: its head is not a `score` layer over a causal model ({type(model).__name__}); "
            "rankllm scores with decoder models such as RankLLaMA"
        )
    fresh = [key for key in report["missing_keys"] if key.endswith(_HEAD_NAMES)]
    if fresh and not is_adapter:
        raise ContractError(
            f"{source}: no score head ({fresh[0]}) in the checkpoint; its scores would be random. "
            "Use a trained reranker, or --method pointwise with --prompt-template-path yes_no for a chat model"
        )
    _check_complete((key for key in report["missing_keys"] if not key.endswith(_HEAD_NAMES)), source)
    return model


def _check_complete(missing: Iterable[str], source: str) -> None:
    """transformers draws weights that a checkpoint lacks at random, and only notes it."""
    if names := sorted(missing):
        raise ContractError(
            f"{source}: the checkpoint lacks {len(names)} of the model's weights, such as {names[0]}; "
            "they would be random. Copy or convert it again"
        )


def _attach(model: Any, adapter: str, kind: ModelKind) -> Any:
    """Put the adapter on its base and merge it, score head included."""
    from peft import PeftModel

    head = None
    weights = _adapter_weights(adapter)
    if kind == "sequence-classification":
        names = [name for name in weights if name.endswith(_HEAD_NAMES)]
        if not names:
            raise ContractError(
                f"{adapter}: the adapter holds no score head (score.weight); its scores would be random. "
                "Save it with modules_to_save=['score']"
            )
        head = weights[names[0]]
    _untie(model, weights, adapter=adapter)
    with (
        readable_load(adapter, problem="the adapter cannot be loaded"),
        _readable_misfits(f"{adapter}: the adapter was trained on another base model"),
    ):
        attached = PeftModel.from_pretrained(model, adapter)
    _check_layers(attached, weights, adapter)
    with readable_load(adapter, problem="the adapter cannot be loaded"):
        merged = attached.merge_and_unload()
    if head is not None:
        if head.shape != merged.score.weight.shape:
            raise ContractError(f"{adapter}: its head gives {len(head)} scores a passage, expected one")
        # Adapters of old PEFT versions hold the head without naming it in modules_to_save.
        with torch.no_grad():
            merged.score.weight.copy_(head)
    return merged


def _untie(model: Any, weights: Mapping[str, torch.Tensor], *, adapter: str) -> None:
    """Give the head weights of its own where the adapter changes the head or the embeddings, and they are one matrix.

    Merged into it, the adapter would change both, and the model would compute another function than was trained.
    Trainable tokens do not count: on tied weights PEFT changes head and embeddings alike.
    Raises ContractError where the adapter was trained to keep the two tied.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    changed = {part for name in weights if "trainable_tokens" not in name for part in name.split(".")}
    if head is None or head.weight is not embeddings.weight or not changed & {"lm_head", "embed_tokens"}:
        return
    if (adapter_config(adapter) or {}).get("ensure_weight_tying"):
        raise ContractError(
            f"{adapter}: adapts tied embeddings and head with ensure_weight_tying, which cannot be merged; train it "
            "without ensure_weight_tying"
        )
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False


def _adapter_weights(adapter: str) -> Mapping[str, torch.Tensor]:
    """An adapter's tensors by name. Raises RankLLMError where its file holds anything else."""
    from peft.utils import load_peft_weights

    with readable_load(adapter, problem="the adapter cannot be loaded"):
        weights = load_peft_weights(adapter, device="cpu")
    if not isinstance(weights, Mapping) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise RankLLMError(f"{adapter}: the adapter cannot be loaded (its file holds something other than tensors)")
    return weights


def _check_layers(attached: Any, weights: Mapping[str, torch.Tensor], adapter: str) -> None:
    """PEFT leaves out what the base has no place for, and leaves places empty: both mean another base."""
    from peft import get_peft_model_state_dict

    places = {name for name in get_peft_model_state_dict(attached, save_embedding_layers=False) if ".lora_" in name}
    found = {name for name in weights if ".lora_" in name}
    if odd := sorted(places ^ found):
        side = "the adapter" if odd[0] in found else "the base model"
        raise ContractError(f"{adapter}: the adapter was trained on another base model: only {side} has {odd[0]}")


@contextlib.contextmanager
def _readable_misfits(message: str) -> Iterator[None]:
    """Turn a report on weights of other shapes than the model's into one line."""
    try:
        yield
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        shapes = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), "")
        raise ContractError(f"{message} ({shapes})" if shapes else message) from None
