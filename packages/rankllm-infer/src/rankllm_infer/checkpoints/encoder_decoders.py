"""Encoder-decoders (T5 and its family), recognized by their configuration.

They are read at the decoder's first step, like monoT5 (arXiv:2003.06713): the prompt is the encoder's input.
"""

from __future__ import annotations

from rankllm_core.card import Card
from rankllm_core.checkpoints.model_folder import read_model_json
from rankllm_core.errors import ConfigError, ContractError
from rankllm_infer.checkpoints.model_files import ModelFiles, ModelFolder
from rankllm_infer.checkpoints.sentencepiece_model import SENTENCEPIECE_MODEL


def check_encoder_decoder(own: ModelFolder, *, engine: str, method: str, compiles: bool, dtype: str) -> None:
    """Raise ConfigError or ContractError, before weights are read, if the model does not support what is requested."""
    what = f"{own.name} is an encoder-decoder ({own.config['model_type']})"
    if own.has_score_head:
        raise ContractError(f"{what} with a classification head, which is not supported; use its language model")
    if engine == "vllm":
        raise ConfigError(f"--engine vllm: {what}, which only the transformers engine supports; leave it out")
    if method == "listwise":
        raise ConfigError(f"--method listwise: {what}, which is read at a single token; use pointwise or pairwise")
    if compiles:
        raise ConfigError(f"--compile: {what}, which cannot be compiled; leave it out")
    if dtype == "float16":
        # T5 was trained in bfloat16, and its activations overflow float16: huggingface/transformers#9295,
        # google-research/text-to-text-transfer-transformer#539.
        raise ConfigError(f"--dtype float16: {what}, whose activations overflow float16; use bfloat16 or float32")
    if own.is_quantized:
        raise ContractError(f"{what} with quantized weights; encoder-decoders need unquantized weights")


def check_encoder_decoder_tokenizer(own: ModelFolder) -> None:
    """Raise ContractError if there is no tokenizer: transformers would make up a vocabulary of a hundred tokens."""
    if not any((own.path / name).exists() for name in ("tokenizer.json", SENTENCEPIECE_MODEL)):
        raise ContractError(
            f"{own.name}: contains no tokenizer (neither tokenizer.json nor {SENTENCEPIECE_MODEL}); save the model's "
            "own tokenizer in this folder"
        )


def encoder_decoder_adapter_error(files: ModelFiles) -> ContractError:
    """Return the error for an adapter whose base is an encoder-decoder."""
    return ContractError(
        f"{files.own.name}: is an adapter of an encoder-decoder ({files.base.name}), which is not supported; merge "
        "it with PEFT's merge_and_unload and load the result"
    )


def check_encoder_decoder_card(own: ModelFolder, card: Card) -> None:
    """Raise ConfigError if a card does not read the model at the decoder's first step with one plain text as prompt."""
    what = f"{own.name} is an encoder-decoder, which is read at the decoder's first step"
    if card.kind == "listwise":
        raise ConfigError(f"{what}, but its card is listwise; use --method pointwise or pairwise")
    if card.kind == "pointwise" and not card.tokens_read:
        raise ConfigError(f"{what}, but its card reads a score head; use a card with head yes-no or single-token")
    if card.template.answer_prefix:
        raise ConfigError(
            f"template {card.template.name}: starts the answer with {card.template.answer_prefix!r}, but {what}; use a "
            f"template without an answer_prefix (--prompt-template-path {_PLAIN[card.kind]})"
        )
    if card.template.is_chat and not (card.template.chat_layout or _has_chat_template(own)):
        raise ConfigError(
            f"template {card.template.name}: is written as a chat, but {own.name} is an encoder-decoder without a "
            f"chat template; use --prompt-template-path {_PLAIN[card.kind]}"
        )


def _has_chat_template(folder: ModelFolder) -> bool:
    settings = read_model_json(folder.path / "tokenizer_config.json") or {}
    return (folder.path / "chat_template.jinja").exists() or bool(settings.get("chat_template"))


_PLAIN = {"pointwise": "monot5", "pairwise": "pairwise_raw"}
"""Kind -> template without chat turns."""
