"""Tiny random cross-encoders of each architecture, with tokenizers of their families made here."""

from __future__ import annotations

import json

from tiny_models import change_json
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

TEXTS = (
    "what is the capital of the country in the north",
    "The llama is a domesticated South American camelid, widely used as a meat and pack animal.",
    "How long do llamas live? They live for fifteen to twenty-five years; some reach thirty (30) years.",
    "Größe, naïve café: prices from $1,000.50 to €2,000 — that is what they say.",
    "Encoders read a query and a passage together, and give one score.",
)
POSITIONS = 96
"""Tokens that each of these models has positions for."""

_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "num_labels": 1,
}
_BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_OFFSET = POSITIONS + 2
"""RoBERTa's families begin to count behind the padding token, whose id is 1."""

# Model class -> family of its tokenizer, settings of its configuration.
MODELS = {
    "Bert": ("wordpiece", {"max_position_embeddings": POSITIONS}),
    "Roberta": ("bytes", {"max_position_embeddings": _OFFSET, "type_vocab_size": 1}),
    "XLMRoberta": ("unigram", {"max_position_embeddings": _OFFSET, "type_vocab_size": 1}),
    "ModernBert": (
        "modern",
        {
            "max_position_embeddings": POSITIONS,
            "local_attention": 8,
            "global_attn_every_n_layers": 3,
            "classifier_pooling": "mean",
        },
    ),
    "DebertaV2": (
        "deberta",
        {
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "pooler_hidden_size": 32,
        },
    ),
    "Deberta": (
        "deberta",
        {
            "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "pooler_hidden_size": 32,
        },
    ),
    "Electra": ("wordpiece", {"max_position_embeddings": POSITIONS, "embedding_size": 32}),
    "Albert": ("deberta", {"max_position_embeddings": POSITIONS, "embedding_size": 16}),
    "MPNet": ("bytes", {"max_position_embeddings": _OFFSET}),
    "Camembert": ("unigram", {"max_position_embeddings": _OFFSET, "type_vocab_size": 1}),
    "DistilBert": (
        "wordpiece",
        {"max_position_embeddings": POSITIONS, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
    ),
}
PACKED = ("Bert", "Roberta", "XLMRoberta", "ModernBert", "Camembert")
"""Those that take rows without padding."""
KINDS = ("wordpiece", "unigram", "bytes", "modern", "deberta")


def make_tokenizer(kind):
    """A fast tokenizer of one family, which knows the words of TEXTS, and their letters."""
    import transformers

    if kind in ("bytes", "modern"):
        return _byte_level(kind)
    words = sorted({word.strip(".,;:?()") for text in TEXTS for word in text.split()} - {""})
    letters = sorted({letter for text in TEXTS for letter in text if letter != " "})
    if kind == "wordpiece":
        pieces = [*_BERT_SPECIALS, *letters, *(f"##{letter}" for letter in letters), *map(str.lower, words)]
        vocab = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
        return transformers.BertTokenizer(vocab=vocab, model_max_length=512)
    specials = _ROBERTA_SPECIALS if kind == "unigram" else _BERT_SPECIALS
    # The longer a piece, the likelier. Control tokens are likeliest, with a score of 0, as published.
    pieces = dict.fromkeys(["\u2581", *letters, *words, *(f"\u2581{word}" for word in words)])
    vocab = [*((special, 0.0) for special in specials), *((piece, -9 / len(piece)) for piece in pieces)]
    tokenizer = transformers.XLMRobertaTokenizer if kind == "unigram" else transformers.DebertaV2Tokenizer
    return tokenizer(vocab=vocab, model_max_length=512)


def _byte_level(kind):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    specials = _ROBERTA_SPECIALS if kind == "bytes" else _BERT_SPECIALS
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXTS, trainer)
    model = json.loads(raw.to_str())["model"]
    if kind == "bytes":
        merges = [tuple(merge) for merge in model["merges"]]
        return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=512)
    ids = model["vocab"]
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        # As ModernBERT's: it numbers the texts, and hands no numbers on.
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(name, tokenizer, **options):
    """A random model with a classification head, in float32."""
    import torch
    import transformers

    _, settings = MODELS[name]
    ids = {key: getattr(tokenizer, key) for key in ("pad_token_id", "cls_token_id", "sep_token_id")}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    config = getattr(transformers, f"{name}Config")(
        **_SMALL | settings | ids | {"vocab_size": len(tokenizer)} | options
    )
    torch.manual_seed(7)
    return getattr(transformers, f"{name}ForSequenceClassification")(config).eval()


def save_encoder(folder, name, **options):
    """One of MODELS with its tokenizer. Returns the model."""
    tokenizer = make_tokenizer(MODELS[name][0])
    model = make_model(name, tokenizer, **options)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def save_headless(folder, name, **options):
    """The same without its head, as encoders are published that cross-encoders are made from. Returns the folder."""
    save_encoder(folder, name, **options)
    drop_weights(folder / "model.safetensors", "classifier", "pre_classifier")
    change_json(folder / "config.json", architectures=[f"{name}Model"])
    return folder


def drop_weights(file, *prefixes):
    """Take tensors out of a file, by what their names begin with."""
    from safetensors.torch import load_file, save_file

    kept = {name: weight for name, weight in load_file(file).items() if not name.startswith(prefixes)}
    save_file(kept, file, metadata={"format": "pt"})


def save_modular(folder, *, pooling="cls", **last):
    """A ModernBERT whose head is a list of modules, as Ettin rerankers are published. Returns backbone and head.

    last: settings of the last module, in place of its own.
    """
    import torch
    from torch import nn

    tokenizer = make_tokenizer("modern")
    backbone = make_model("ModernBert", tokenizer).model
    hidden = backbone.config.hidden_size
    torch.manual_seed(8)
    head = nn.Sequential(nn.Linear(hidden, hidden, bias=False), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, 1))
    for weight in head[2].parameters():
        nn.init.normal_(weight)
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    gelu, identity = (f"torch.nn.modules.{name}" for name in ("activation.GELU", "linear.Identity"))
    entries = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ]
    for name, settings, layer in (
        ("1_Pooling", {"pooling_mode": pooling, "embedding_dimension": hidden}, None),
        (
            "2_Dense",
            {"in_features": hidden, "out_features": hidden, "bias": False, "activation_function": gelu},
            head[0],
        ),
        ("3_LayerNorm", {"dimension": hidden}, head[2]),
        (
            "4_Dense",
            {"in_features": hidden, "out_features": 1, "activation_function": identity, "module_output_name": "scores"}
            | last,
            head[3],
        ),
    ):
        _save_module(folder / name, settings, layer)
        number, _, kind = name.partition("_")
        entries.append({"idx": int(number), "name": number, "path": name, "type": _MODULE_TYPES[kind]})
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    about = {"__version__": {"sentence_transformers": "6.2.0"}, "model_type": "CrossEncoder"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(about), encoding="utf-8")
    return backbone, head.eval()


_MODULE_TYPES = {
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
}


def _save_module(folder, settings, layer):
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    if layer is not None:
        name = "norm" if folder.name.endswith("LayerNorm") else "linear"
        save_file({f"{name}.{key}": value for key, value in layer.state_dict().items()}, folder / "model.safetensors")
