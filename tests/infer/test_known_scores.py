"""Scores of published rerankers: small random models of the published architectures, under the published names.

A folder that keeps a model's name has its card, so that no option says how it is prompted or read. The scores are those
that plain transformers gives the published string.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

pytest.importorskip("torch")

import torch
from published_prompts import CTXL, GEMMA, MXBAI, QWEN3, WEB_SEARCH, ZERANK
from small_decoders import save_decoder

from rankllm_infer import RerankOptions, load_reranker, make_request

QUERY, PASSAGES = "what is a cat", ("a small animal", "a language of proofs", "the king of France")
TOLD = "Find animals."


@dataclass(frozen=True)
class Published:
    """How a published reranker is prompted and read, according to its documentation."""

    architecture: str
    plain: str
    """Its prompt without an instruction; {query} and {document} are placeholders."""
    tokens: tuple[str, ...] = ()
    """The token whose logit is read, and the one whose logit is subtracted; empty: the score head."""
    told: str | None = None
    """Its prompt with the instruction TOLD."""
    scale: float | None = None
    """X in the probability sigmoid(score / X)."""
    tokenizer: str = "smollm2_tokenizer"

    def score(self, model, tokenizer, text):
        """Score computed with plain transformers."""
        with torch.inference_mode():
            logits_V = model(torch.tensor([tokenizer.encode(text)])).logits[0]
        if not self.tokens:
            return logits_V[0].item()
        found = [logits_V[-1, tokenizer.convert_tokens_to_ids(token)].item() for token in self.tokens]
        return found[0] - sum(found[1:])


def qwen3(instruction):
    """Qwen3-Reranker's prompt with an instruction."""
    return QWEN3.replace("{instruction}", instruction)


ZERANK_TOLD = ZERANK.format(asked=f"<query>{{query}}</query>\n<instruction>{TOLD}</instruction>", document="{document}")
QWEN3_ASKED = {"plain": qwen3(WEB_SEARCH), "told": qwen3(TOLD), "scale": 1}
CTXL_ASKED = {
    "plain": CTXL.replace("{asked}", "{query}"),
    "told": CTXL.replace("{asked}", f"{{query}} {TOLD}"),
}
MODELS = {
    "Qwen3-Reranker-0.6B": Published("Qwen3", tokens=("yes", "no"), **QWEN3_ASKED),
    "Qwen3-Reranker-0.6B-seq-cls": Published("Qwen3", **QWEN3_ASKED),
    "mxbai-rerank-base-v2": Published(
        "Qwen2",
        plain=MXBAI.replace("{asked}", "query: {query}"),
        told=MXBAI.replace("{asked}", f"instruction: {TOLD}\nquery: {{query}}"),
        tokens=("1", "0"),
        scale=1,
    ),
    "zerank-2": Published(
        "Qwen3", plain=ZERANK.replace("{asked}", "{query}"), told=ZERANK_TOLD, tokens=("Yes",), scale=5
    ),
    "zerank-1-small": Published("Qwen3", plain=ZERANK.replace("{asked}", "{query}"), tokens=("Yes",), scale=5),
    "ctxl-rerank-v2-instruct-multilingual-1b": Published("Qwen3", tokens=("!",), **CTXL_ASKED),
    "ctxl-rerank-v2-instruct-multilingual-6b": Published(
        "Mistral", tokens=("<unk>",), tokenizer="llama2_tokenizer", **CTXL_ASKED
    ),
    "bge-reranker-v2-gemma": Published("Gemma", plain=GEMMA, tokens=("Yes",), scale=1, tokenizer="llama2_tokenizer"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_reranker_scores_as_its_authors_say_without_any_option(name, tmp_path, request):
    """Prompt, head and probability come from the card with that name; the instruction comes from the request."""
    published = MODELS[name]
    tokenizer = request.getfixturevalue(published.tokenizer)
    model = save_decoder(tmp_path / name, published.architecture, tokenizer, has_score_head=not published.tokens)
    asked = [(published.plain, None), *([(published.told, TOLD)] if published.told else [])]
    with load_reranker(tmp_path / name, RerankOptions(dtype="float32", device="cpu")) as reranker:
        requests = [make_request(QUERY, PASSAGES, qid=str(n), instruction=told) for n, (_, told) in enumerate(asked)]
        results = reranker.rerank(requests)
    for (prompt, _), result in zip(asked, results, strict=True):
        assert result.error is None
        found = {candidate.docid: candidate for candidate in result.candidates}
        for number, passage in enumerate(PASSAGES, start=1):
            text = prompt.replace("{query}", QUERY).replace("{document}", passage)
            expected = published.score(model, tokenizer, text)
            assert found[str(number)].model_score == pytest.approx(expected, abs=1e-4)
            if published.scale is None:
                assert found[str(number)].probability is None
            else:
                chance = 1 / (1 + math.exp(-expected / published.scale))
                assert found[str(number)].probability == pytest.approx(chance, abs=1e-4)
    assert len({candidate.model_score for candidate in results[0].candidates}) == len(PASSAGES)
