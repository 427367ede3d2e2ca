"""Load what is trained, and make its forward pass compute only what a loss reads.

The lean forward is bound to the innermost model, so whatever wraps it (PEFT, data parallel, DeepSpeed) stays in charge.
Shapes: B rows, T tokens, D hidden, V vocabulary, N read ids, L label positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from rankllm_core.checkpoints.load_failures import readable_load
from rankllm_core.checkpoints.model_folder import check_settings_files, check_trusted_source, own_code
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.files.manifest import check_intact
from rankllm_core.nn.model_parts import backbone_of, fast_tokenizer_options, quiet_transformers
from rankllm_train.models.adapters import ADAPTER_NAME, start_from_adapter
from rankllm_train.models.attention import loading_attention, use_attention
from rankllm_train.models.base_names import findable_base, split_revision
from rankllm_train.models.lora_targets import ALL_LINEAR, check_targets
from rankllm_train.recipe.sections import LoraSection, ModelSection
from rankllm_train.training.losses import IGNORED_LABEL

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PROBE_TOKENS = 5
_PROBE_TOLERANCE = 1e-3


def load_tokenizer(section: ModelSection) -> Any:
    """The model's tokenizer. Raises RankLLMError where there is none, or where its code may not be run."""
    from transformers import AutoTokenizer

    _check_trust(section)
    name, revision = split_revision(section.name_or_path)
    if Path(name).is_dir():
        check_settings_files(name)
    options = {"trust_remote_code": section.trust_remote_code, "revision": revision, **fast_tokenizer_options()}
    with quiet_transformers(), readable_failures(section.name_or_path):
        return AutoTokenizer.from_pretrained(name, **options)


def _check_trust(section: ModelSection) -> None:
    """Raise ConfigError where code of the model's own is allowed from anywhere but a folder or a pinned revision."""
    if section.trust_remote_code:
        check_trusted_source(section.name_or_path, folder=_small_files(section), option="model.trust_remote_code")


def _small_files(section: ModelSection) -> Path:
    """The folder of a model's settings and code; of a hub name it is fetched where it is pinned to a revision."""
    name, revision = split_revision(section.name_or_path)
    if Path(name).is_dir() or revision is None:
        return Path(name)
    from huggingface_hub import snapshot_download

    with readable_failures(section.name_or_path):
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.py"]))


def code_notes(section: ModelSection) -> tuple[str, ...]:
    """What there is to say about code that comes with the model, before any of it runs.

    Raises ConfigError where it may not be run from there.
    """
    _check_trust(section)
    folder = _small_files(section)
    if not folder.is_dir():
        return ()
    files, option = ", ".join(own_code(folder)), "--trust-remote-code"
    if not section.trust_remote_code:
        return (f"{folder}: has code of its own ({files}), which is not run; transformers' own is",) if files else ()
    if not files:
        return (f"Warning: {option} has no effect: {folder} has no code of its own",)
    return (f"{option}: code from {folder} runs with your permissions ({files})",)


def load_model(section: ModelSection, *, kind: str, lora: LoraSection, seed: int, deepspeed: bool = False) -> Any:
    """The model to train, adapters and lean forward in place.

    kind: `causal`, or `sequence-classification` with one new score a row. seed: of new layers.
    Weights that are trained are float32 (DeepSpeed keeps its own copy); frozen ones have the recipe's precision.
    Raises RankLLMError where there is no such model, ContractError where its head cannot be read leanly.
    """
    from transformers import set_seed

    half = _HALF.get(section.precision, torch.float32)
    dtype = half if lora.enabled or deepspeed else torch.float32
    set_seed(seed)
    with quiet_transformers(), readable_failures(section.name_or_path):
        model = _load(section, kind, dtype)
    model.config.use_cache = False
    make_lean(model)
    with _head_alone(model) if is_shared_out(model) else contextlib.nullcontext():
        check_lean(model)
    with quiet_transformers():
        use_attention(model, section)
    if kind != "causal" and not deepspeed:  # which wants all weights of one dtype
        model.score.float()  # one row: its product is worth full precision, as in inference
    # Again: under ZeRO-3 the first process alone has drawn the new score layer, and adapters must be the same in all.
    set_seed(seed)
    return add_lora(model, lora, kind=kind, deepspeed=deepspeed) if lora.enabled else model


def _load(section: ModelSection, kind: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    name, revision = section.name_or_path, None
    if Path(name).is_dir():
        _check_folder(Path(name), kind)
    else:
        name, revision = split_revision(name)
    options = {
        "dtype": dtype,
        "revision": revision,
        "attn_implementation": loading_attention(section.attn_implementation),
        "trust_remote_code": section.trust_remote_code,
        "output_loading_info": True,
    }
    if kind == "causal":
        model, report = AutoModelForCausalLM.from_pretrained(name, **options)
    else:
        model, report = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, **options)
    missing = sorted(key for key in report["missing_keys"] if kind == "causal" or not key.startswith("score."))
    if missing:
        raise ContractError(f"{name}: the checkpoint lacks {len(missing)} of the model's weights, such as {missing[0]}")
    return model


def _check_folder(folder: Path, kind: str) -> None:
    """Judge a folder by its small files and the headers of its weights. Raises RankLLMError in one line."""
    if (folder / ADAPTER_NAME).exists():
        raise ConfigError(
            f"{folder}: is an adapter; name its base, and the adapter by --start-from-adapter, or merge it first "
            f"(train merge {folder} OUT) and train on the result"
        )
    check_settings_files(folder)
    if not (folder / "config.json").exists():
        raise RankLLMError(f"{folder}: no model there (config.json is missing); give another --model-name-or-path")
    score = read_weight_headers(folder).get("score.weight")
    check_intact(folder)
    if kind != "causal" and score is not None and score.shape[:1] != (1,):
        raise ContractError(
            f"{folder}: has a score layer of {score.shape[0]} labels, expected 1 score a pair; "
            "start from the model that it was made from"
        )


def add_lora(model: Any, section: LoraSection, *, kind: str, deepspeed: bool = False) -> Any:
    """The model with LoRA adapters, the score layer trained in full.

    Adapters are float32, like everything that is trained; under DeepSpeed they keep the model's precision, since it
    flattens all trainable weights into one buffer (ZeRO-3 asserts that they share a dtype) and updates a float32 copy.
    Raises ConfigError where no layer has a name.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    targets = section.target_modules
    check_targets(model, targets)
    is_classifier = kind != "causal"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if is_classifier else TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=ALL_LINEAR if targets == (ALL_LINEAR,) else list(targets),
        modules_to_save=["score"] if is_classifier else None,
        bias="none",
    )
    try:
        with quiet_transformers():
            adapted = get_peft_model(model, config, autocast_adapter_dtype=not deepspeed)
    except ValueError as error:
        raise ConfigError(f"lora.target_modules: {str(error).splitlines()[0][:200]}") from None
    adapted.peft_config["default"].base_model_name_or_path = findable_base(model.config.name_or_path)
    if section.start_from:
        start_from_adapter(adapted, section.start_from)
    return adapted


def make_lean(model: Any) -> None:
    """Bind a forward pass that computes logits at label positions and at one position a row only, or scores.

    The forward takes `input_ids` padded on the right and, where wanted, `labels` (shifted), `read_positions` and
    `read_ids`; it gives `token_logits` (L, V), `read_logits` (B, N) in float32, or `scores` (B,) in float32.
    """
    is_classifier = hasattr(model, "score")
    if not is_classifier and model.get_output_embeddings() is None:
        raise ContractError(f"{type(model).__name__} has no language-model head that can be read by position")
    model.forward = MethodType(_score_rows if is_classifier else _read_logits, model)


def check_lean(model: Any) -> None:
    """Compare the lean forward with the model's own on a few tokens.

    Raises ContractError where they differ (the model changes its logits after the head, by softcapping or scaling),
    and where the model's own are not numbers.
    """
    ids = torch.arange(1, _PROBE_TOKENS + 1, device=model.device)[None] % model.config.vocab_size
    last = torch.tensor([_PROBE_TOKENS - 1], device=model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        if hasattr(model, "score"):
            lean = model(input_ids=ids, read_positions=last)["scores"]
            own = type(model).forward(model, input_ids=ids, use_cache=False).logits[0].float()
        else:
            wanted = torch.tensor([[0, 1]], device=model.device)
            lean = model(input_ids=ids, read_positions=last, read_ids=wanted)["read_logits"][0]
            own = type(model).forward(model, input_ids=ids, use_cache=False).logits[0, -1, :2].float()
    model.train(was_training)
    if not bool(own.isfinite().all()):
        raise ContractError(
            f"{model.config.name_or_path}: the weights give logits that are not numbers; copy them again"
        )
    scale = own.abs().max().clamp(min=1)
    tolerance = _PROBE_TOLERANCE if model.dtype == torch.float32 else 0.05
    if not bool(((lean - own).abs() <= tolerance * scale).all()):
        raise ContractError(
            f"{type(model).__name__} changes its logits after the head (softcapping or scaling); "
            "rankllm cannot train it yet"
        )


def is_shared_out(model: Any) -> bool:
    """Whether the weights are spread over the processes (ZeRO-3): here only while their module is called."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextlib.contextmanager
def _head_alone(model: Any) -> Iterator[None]:
    """Under ZeRO-3, before DeepSpeed wraps the model: the head's weights gathered, hidden states made up."""
    import deepspeed
    from transformers.modeling_outputs import BaseModelOutputWithPast

    backbone = backbone_of(model)
    head = model.score if hasattr(model, "score") else model.get_output_embeddings()
    shape = (1, _PROBE_TOKENS, model.config.get_text_config().hidden_size)
    hidden_BTD = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    backbone.forward = lambda *arguments, **options: BaseModelOutputWithPast(last_hidden_state=hidden_BTD)
    try:
        with deepspeed.zero.GatheredParameters(list(head.parameters())):
            yield
    finally:
        del backbone.forward


def _backbone(model: Any, input_ids: Tensor) -> Tensor:
    backbone = backbone_of(model)
    hidden_BTD: Tensor = backbone(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden_BTD


def _read_logits(
    self: Any,
    input_ids: Tensor,
    labels: Tensor | None = None,
    read_positions: Tensor | None = None,
    read_ids: Tensor | None = None,
    **ignored: object,  # what PEFT passes along: no mask, no embeddings
) -> dict[str, Tensor]:
    hidden_BTD = _backbone(self, input_ids)
    head = self.get_output_embeddings()
    out: dict[str, Tensor] = {}
    if labels is not None:
        out["token_logits"] = head(hidden_BTD[labels != IGNORED_LABEL])
    if read_positions is not None and read_ids is not None:
        hidden_BD = hidden_BTD[torch.arange(len(input_ids), device=input_ids.device), read_positions]
        out["read_logits"] = _rows_of_head(head, hidden_BD, read_ids)
    return out


def _rows_of_head(head: Any, hidden_BD: Tensor, ids_BN: Tensor) -> Tensor:
    """logits_BN of the ids alone, in float32: in bf16 close identifiers would tie."""
    if type(head) is not nn.Linear or hasattr(head.weight, "ds_id"):
        # Adapted, or its weight is elsewhere until the module is called (ZeRO-3).
        logits_BN: Tensor = head(hidden_BD).gather(1, ids_BN).float()
        return logits_BN
    with torch.autocast(hidden_BD.device.type, enabled=False):
        logits_BN = torch.einsum("bd,bnd->bn", hidden_BD.float(), head.weight[ids_BN].float())
        return logits_BN if head.bias is None else logits_BN + head.bias[ids_BN].float()


def _score_rows(self: Any, input_ids: Tensor, read_positions: Tensor, **ignored: object) -> dict[str, Tensor]:
    hidden_BTD = _backbone(self, input_ids)
    hidden_BD = hidden_BTD[torch.arange(len(input_ids), device=input_ids.device), read_positions]
    with torch.autocast(hidden_BD.device.type, enabled=False):
        head_dtype = next(self.score.parameters()).dtype
        scores_B: Tensor = self.score(hidden_BD.to(head_dtype))[:, 0].float()
    return {"scores": scores_B}


@contextlib.contextmanager
def readable_failures(source: str) -> Iterator[None]:
    """Turn whatever transformers, tokenizers and the hub raise for a missing or damaged model into one line."""
    try:
        with readable_load(source):
            yield
    except RankLLMError as error:
        cause = error.__cause__
        if Path(source).is_dir() or not isinstance(cause, OSError | ValueError):
            raise
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise RankLLMError(
            f"model {source!r} cannot be loaded: no complete model in a folder of that name, and none to be had from "
            f"the hub ({reason[:200]}); give another --model-name-or-path"
        ) from None
