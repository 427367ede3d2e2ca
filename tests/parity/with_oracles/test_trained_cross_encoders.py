"""What train pointwise makes of an encoder loads in sentence-transformers, and scores there as in rerank."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from encoder_models import TEXTS, save_headless  # noqa: E402
from training_fakes import pointwise_record, write_records  # noqa: E402

from rankllm_infer import RerankOptions, load_reranker, make_request  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.merge import merge  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402

QUERY = "How long do llamas live?"
PASSAGES = (*TEXTS, "a", "They live long. " * 20)
"""The last is longer than the models' positions."""


@pytest.mark.parametrize("lora", [False, True], ids=["full", "merged"])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "ModernBert", "DebertaV2"])
def test_a_trained_cross_encoder_scores_alike_everywhere(tmp_path, name, lora):
    """The folder of the run, or of its merged adapter, with no option beyond the dtype: limits, head and labels."""
    from sentence_transformers import CrossEncoder

    values = {
        "model.name_or_path": str(save_headless(tmp_path / "base", name)),
        "model.precision": "fp32",
        "data.train": write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(4)]),
        "data.group_size": 4,
        "lora.enabled": lora,
        "lora.r": 4,
        "optim.learning_rate": 2e-3,
        "schedule.max_steps": 3,
        "checkpoint.output_dir": str(tmp_path / "out"),
        "checkpoint.every": "none",
    }
    folder = train(Recipe(method="pointwise").changed(values)).output_dir
    if lora:
        folder = merge(folder, tmp_path / "merged")
    theirs = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    assert theirs.num_labels == 1
    expected = theirs.predict([(QUERY, passage) for passage in PASSAGES], activation_fn=torch.nn.Identity())
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32")) as ours:
        (result,) = ours.rerank([make_request(QUERY, PASSAGES)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert [found[docid] for docid in sorted(found, key=int)] == pytest.approx(expected.tolist(), abs=1e-5)
