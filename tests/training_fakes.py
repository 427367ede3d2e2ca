"""Tiny random models that train in seconds, and small records to train them on."""

from __future__ import annotations

import json
import random

PASSAGES = (
    "cats sleep most of the day",
    "the moon is far away from the earth and it moves a little further every year",
    "bread needs flour, water and salt",
    "rain falls",
)
SYSTEM = "You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to the query"


def save_tiny(folder, tokenizer, *, layers=2, hidden=48, classifier=False, tied=True):
    """A random Llama with SmolLM2's tokenizer, saved. Returns the folder as a string."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        num_labels=1,
    )
    torch.manual_seed(7)
    model = (LlamaForSequenceClassification if classifier else LlamaForCausalLM)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def listwise_record(number, *, n=3, seed=0, kind="alpha", system=SYSTEM):
    """A record of n passages in the words of rank_zephyr(_alpha), of a length that depends on its number."""
    from rankllm_core.prompts.template import load_template
    from rankllm_core.types import identifiers

    draw = random.Random(f"{seed}/{number}")
    labels = identifiers(kind, n)
    passages = [" ".join(draw.choices(PASSAGES, k=1 + number % 3)) for _ in labels]
    while n > 1 and len(set(passages)) == 1:  # a list of one text is a bad record
        passages = [" ".join(draw.choices(PASSAGES, k=1 + number % 3)) for _ in labels]
    template = load_template("rank_zephyr_alpha" if kind == "alpha" else "rank_zephyr")
    *_, human = template.render(f"question {number}", passages, labels=labels)
    order = list(labels)
    draw.shuffle(order)
    turns = [{"from": "human", "value": human.content}, {"from": "gpt", "value": " > ".join(f"[{x}]" for x in order)}]
    if system:
        turns.insert(0, {"from": "system", "value": system})
    return {"id": f"r{number}", "conversations": turns}


def pointwise_record(number, *, n_negatives=6, teacher=False):
    """A query with one positive, which alone holds the query's word, and negatives."""

    def passage(text, docid, score):
        return {"docid": docid, "title": "", "text": text} | ({"teacher_score": score} if teacher else {})

    draw = random.Random(number)
    return {
        "query_id": f"q{number}",
        "query": f"word{number}",
        "positive_passages": [passage(f"this is word{number} indeed", f"p{number}", 3.0)],
        "negative_passages": [
            passage(" ".join(draw.choices(PASSAGES, k=1 + i % 2)), f"n{number}-{i}", -float(i))
            for i in range(n_negatives)
        ],
    }


def write_records(path, records):
    """A JSON Lines file. Returns its name."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)
