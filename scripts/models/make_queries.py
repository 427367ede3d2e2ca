"""Generate web-search style questions that a passage answers, with SmolLM2 itself.

The training collections contain four kinds of questions; users ask more kinds. Which passage answers a generated
question is decided by the teacher (`make_records.py`): many questions are vague, some are nonsense. Questions generated
before an interruption are kept next to the output.

    uv run --package rankllm-train python scripts/models/make_queries.py --corpus pieces.jsonl --output queries.tsv
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.files import write_text

SEED = 5
NONE = "-"
"""No question was found."""
BATCH = 16
MOST_WORDS = 60
"""Maximum words of a passage."""
MOST_TOKENS = 18
"""Maximum tokens of a question."""
FEWEST_WORDS = 26
"""Shorter passages contain too little to ask about."""
EXAMPLES = (
    (
        "A standard bathtub holds about 80 gallons of water to the rim, "
        "though most people use 30 to 50 gallons for a bath.",
        "how many gallons does a bathtub hold",
    ),
    (
        "Photosynthesis takes place in the chloroplasts of plant cells, "
        "where chlorophyll absorbs the light of the sun.",
        "where does photosynthesis take place",
    ),
    (
        "Tendinitis is an inflammation of a tendon. It is caused by repeating a movement, and rest and ice relieve it.",
        "what causes tendinitis",
    ),
    (
        "A notary public charges between 5 and 15 dollars for each signature; "
        "the most they may ask is set by each state.",
        "notary fee cost",
    ),
)
"""Written for this script; not from any collection."""


@click.command()
@click.option("--corpus", required=True, type=click.Path(path_type=Path, exists=True), help="Passages, in any format.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Output file: queries by docid.")
@click.option(
    "--passages",
    "n_passages",
    default=1000,
    show_default=True,
    help="Number of passages to ask about, drawn at random.",
)
@click.option(
    "--model",
    default="HuggingFaceTB/SmolLM2-135M-Instruct",
    show_default=True,
    help="Model that generates the questions.",
)
def main(corpus: Path, output: Path, n_passages: int, model: str) -> None:
    """Write docid<TAB>question for the passages with a question."""
    texts = [(docid, str(doc["text"])) for docid, doc in read_corpus(corpus)]
    texts = [(docid, text) for docid, text in texts if len(text.split()) >= FEWEST_WORDS]
    random.Random(SEED).shuffle(texts)
    wanted = texts[:n_passages]
    asked = ask_about(wanted, output.with_name(f"{output.name}.progress"), lambda: Asker(model))
    with write_text(output) as stream:
        stream.writelines(f"{docid}\t{asked[docid]}\n" for docid, text in wanted if is_question(asked[docid], text))


def ask_about(
    wanted: Sequence[tuple[str, str]], progress: Path, load: Callable[[], Callable[[Sequence[str]], Sequence[str]]]
) -> dict[str, str]:
    """Map docid -> question, or NONE. Entries in `progress` are not generated again; `load` returns the generator."""
    asked = dict(read_queries(progress)) if progress.exists() else {}
    if unasked := [pair for pair in wanted if pair[0] not in asked]:
        ask = load()
        with progress.open("a", encoding="utf-8") as stream, click.progressbar(batches(unasked), label="asked") as bar:
            for batch in bar:
                docids, passages = zip(*batch, strict=True)
                found = dict(zip(docids, ask(passages), strict=True))
                stream.writelines(f"{docid}\t{query or NONE}\n" for docid, query in found.items())
                stream.flush()
                asked |= found
    return asked


class Asker:
    """SmolLM2, prompted with a few examples before each passage."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left", trust_remote_code=False)
        self._tokenizer.pad_token = self._tokenizer.pad_token or self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, trust_remote_code=False).eval()
        self._torch = torch

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return one question per passage: the first line of the output, or "" if it is not complete."""
        batch = self._tokenizer([prompt(text) for text in texts], return_tensors="pt", padding=True)
        # Seeded by the passages, not by earlier calls, so that an interruption changes nothing.
        self._torch.manual_seed(zlib.crc32("\n".join(texts).encode()))
        with self._torch.inference_mode():
            out = self._model.generate(
                **batch,
                max_new_tokens=MOST_TOKENS,
                do_sample=True,
                temperature=0.7,
                top_p=0.9,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        answers = self._tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        lines = [answer.partition("\n") for answer in answers]
        return [" ".join(line.split()).lower() if is_whole else "" for line, is_whole, _ in lines]


def prompt(text: str) -> str:
    """Return the examples followed by the passage to ask about."""
    examples = "".join(f"Passage: {passage}\nWeb search: {query}\n\n" for passage, query in EXAMPLES)
    return f"{examples}Passage: {' '.join(text.split()[:MOST_WORDS])}\nWeb search:"


def is_question(query: str, text: str) -> bool:
    """Whether it is a plausible question: 2 to 12 words, sharing one with the passage, not an example or a copied
    sentence."""
    found = re.findall(r"\w+", query)
    words = re.findall(r"\w+", text.lower())
    if not 2 <= len(found) <= 12 or query in {asked for _, asked in EXAMPLES}:
        return False
    is_copied = len(found) > 5 and " ".join(found) in " ".join(words)
    return not is_copied and any(len(word) > 3 and word in words for word in found)


def batches(pairs: Sequence[tuple[str, str]]) -> list[Sequence[tuple[str, str]]]:
    """Yield batches of passages."""
    return [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]


if __name__ == "__main__":
    main()
