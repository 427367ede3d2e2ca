"""Tiny checkpoints whose cards hold a probe, in every form in which a reranker is published."""

from __future__ import annotations

from dataclasses import replace

from rankllm_core.card import ListwiseCard, PairwiseCard, PointwiseCard, load_card, save_card
from rankllm_core.probe import new_requests
from rankllm_core.prompts.template import load_template
from rankllm_infer.api import load_reranker
from rankllm_infer.options import RerankOptions

CARDS = {
    "head": PointwiseCard(template=load_template("rankllama")),
    "adapter": PointwiseCard(template=load_template("rankllama")),
    "yes-no": PointwiseCard(template=load_template("yes_no"), head="yes-no", query_tokens=64, passage_tokens=256),
    "FIRST": ListwiseCard(template=load_template("rank_zephyr_alpha"), identifiers="alpha", answer="first-token"),
    "generation": ListwiseCard(template=load_template("rank_zephyr")),
    "pairwise": PairwiseCard(template=load_template("pairwise")),
}
"""How each kind of model is prompted and read."""


def load(folder, dtype="float32", **options):
    """The model of a folder, on the CPU."""
    return load_reranker(folder, RerankOptions(dtype=dtype, device="cpu", **options))


def keep_probe(folder, dtype="float32", **options):
    """Record a probe of a folder's model in its card."""
    with load(folder, dtype, **options) as reranker:
        save_card(replace(load_card(folder), probe=reranker.record_probe()), folder)


def change_weights(folder, change, *, file="model.safetensors"):
    """Put other tensors into a file of weights. change: (name, tensor) -> tensor."""
    from safetensors.torch import load_file, save_file

    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(folder / file).items()}
    save_file(tensors, folder / file, metadata={"format": "pt"})


def rounded(bits):
    """What rounds the layers' weights to integers of so many bits, one scale a row; for `change_weights`."""
    largest = 2 ** (bits - 1) - 1

    def change(name, tensor):
        if not name.endswith("_proj.weight"):
            return tensor
        scale = tensor.abs().amax(1, keepdim=True) / largest
        return (tensor / scale).round() * scale

    return change


CHAT = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}<|assistant|>\n"
"""A chat template that writes BOS, as Mistral's does."""


def small_tokenizer():
    """Byte-level BPE of a thousand tokens with a BOS, learnt from what probes show: it loads in no time."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for request in new_requests() for text in [request.query.text, *_texts(request)]]
    texts += [
        str(load_template(name).to_dict()) for name in ("rank_zephyr", "rank_zephyr_alpha", "yes_no", "rankllama")
    ]
    built.train_from_iterator([*texts, *["yes no Yes No"] * 50], trainer)
    built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=built, chat_template=CHAT, **names)


def _texts(request):
    return [str(candidate.doc["text"]) for candidate in request.candidates]
