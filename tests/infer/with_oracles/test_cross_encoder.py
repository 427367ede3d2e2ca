"""Encoders give the ids and logits of sentence-transformers' CrossEncoder, batch by batch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from encoder_models import MODELS, POSITIONS, TEXTS, save_encoder, save_modular

from rankllm_infer import RerankOptions, load_reranker, make_request

QUERY = "How long do llamas live?"
PASSAGES = (*TEXTS, "", "a", "They live long. " * 4, " ".join(TEXTS), "\u6570 llama  caf\u00e9\n")
"""One is empty, one exceeds the models' positions."""


@pytest.fixture(scope="module", params=[*MODELS, "modules"])
def pair(request, tmp_path_factory):
    """A CrossEncoder and a reranker of the same checkpoint, in float32 on a CPU. `modules`: like Ettin rerankers."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("encoders") / request.param
    if request.param == "modules":
        save_modular(folder)
    else:
        save_encoder(folder, request.param)
    # RoBERTa's families have two positions more than tokens, of which CrossEncoder knows nothing.
    theirs = CrossEncoder(
        str(folder), device="cpu", max_length=POSITIONS, model_kwargs={"dtype": torch.float32}, local_files_only=True
    )
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32")) as ours:
        yield theirs, ours


def test_ids_are_those_of_cross_encoder(pair):
    """Also if the passage is truncated: the query is short."""
    theirs, ours = pair
    for passage in PASSAGES:
        expected = theirs.preprocess([(QUERY, passage)])
        prompt = ours.method.writer.write(QUERY, title="", text=passage)
        assert list(prompt.token_ids) == expected["input_ids"][0].tolist()
        if "token_type_ids" in expected:
            n_second = len(prompt.token_ids) - prompt.n_first
            assert [0] * prompt.n_first + [1] * n_second == expected["token_type_ids"][0].tolist()


def test_scores_are_those_of_cross_encoder(pair):
    """Its logits for one padded batch, with the identity activation."""
    import torch

    theirs, ours = pair
    expected = theirs.predict([(QUERY, passage) for passage in PASSAGES], activation_fn=torch.nn.Identity())
    (result,) = ours.rerank([make_request(QUERY, PASSAGES)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert [found[docid] for docid in sorted(found, key=int)] == pytest.approx(expected.tolist(), abs=1e-5)


def test_batches_agree_with_cross_encoder_in_bfloat16(tmp_path):
    """Within bfloat16 precision: rows are packed here and padded there."""
    import torch
    from sentence_transformers import CrossEncoder

    save_encoder(tmp_path, "ModernBert")
    theirs = CrossEncoder(str(tmp_path), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    expected = theirs.predict([(QUERY, passage) for passage in PASSAGES], activation_fn=torch.nn.Identity())
    with load_reranker(tmp_path, RerankOptions(device="cpu", dtype="bfloat16")) as ours:
        (result,) = ours.rerank([make_request(QUERY, PASSAGES)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert [found[docid] for docid in sorted(found, key=int)] == pytest.approx(expected.tolist(), abs=0.1)
