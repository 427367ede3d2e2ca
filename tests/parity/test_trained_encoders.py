"""Cross-encoders are trained on what they are served, and are plain models of transformers and PEFT when trained."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from encoder_models import MODELS, POSITIONS, TEXTS, make_tokenizer, save_headless  # noqa: E402
from training_fakes import pointwise_record, write_records  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback  # noqa: E402

from rankllm_core.card import load_card  # noqa: E402
from rankllm_infer import RerankOptions, load_reranker, make_request  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.merge import merge  # noqa: E402
from rankllm_train.encoding.pointwise import PointwiseItem  # noqa: E402
from rankllm_train.methods.registry import prepare  # noqa: E402
from rankllm_train.models.loading import base_config, limit_pairs, load_tokenizer  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.recipe.settled import settle  # noqa: E402

QUERY = "How long do llamas live?"
PASSAGES = (*TEXTS, "a", "They live [SEP] </s> long. " * 12)
"""Control tokens in a passage stay text; the last is longer than the models' positions."""
NAMES = ("Bert", "Roberta", "ModernBert", "DebertaV2")


class Trained(TrainerCallback):
    """Keeps the model that the trainer has in memory at the end of its last step."""

    def __init__(self):
        self.model = None

    def on_train_end(self, args, state, control, model=None, **arguments):
        self.model = model.eval()


def recipe_for(base, records, out, **changes):
    values = {
        "model.name_or_path": str(base),
        "model.precision": "fp32",
        "data.train": records,
        "data.group_size": 4,
        "batch.per_device": 2,
        "lora.r": 4,
        "optim.learning_rate": 2e-3,
        "schedule.max_steps": 3,
        "checkpoint.output_dir": str(out),
        "checkpoint.every": "none",
    }
    return Recipe(method="pointwise").changed(values | changes)


def prepared(recipe):
    """Tokenizer, settled recipe and data, as a run makes them."""
    config, tokenizer = base_config(recipe.model), load_tokenizer(recipe.model)
    limit_pairs(tokenizer, config)
    recipe = settle(recipe, config)
    return prepare(recipe, tokenizer)


def served(folder, **options):
    """rankllm-infer's scores in the order of the passages, with no flag but the dtype."""
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32", **options)) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, PASSAGES)])
        prompts = [reranker.method.writer.write(QUERY, title="", text=passage) for passage in PASSAGES]
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    return [found[docid] for docid in sorted(found, key=int)], prompts


@torch.no_grad()
def plain(folder, rows, n_first, base=None):
    """What transformers, or PEFT over the base, gives for the ids of each pair alone."""
    model = AutoModelForSequenceClassification.from_pretrained(base or folder, num_labels=1, dtype=torch.float32)
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    found = []
    for ids, n in zip(rows, n_first, strict=True):
        inputs = {"input_ids": torch.tensor([ids])}
        if (getattr(model.config, "type_vocab_size", 0) or 0) > 1:
            inputs["token_type_ids"] = torch.tensor([[0] * n + [1] * (len(ids) - n) if n else [0] * len(ids)])
        found.append(model.eval()(**inputs).logits[0, 0].item())
    return found


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_trainer_inference_and_plain_models_give_one_score(tmp_path, name, lora):
    """Ids and scores of the trainer's model, of rerank, and of transformers or PEFT; merged, an adapter's are kept."""
    base = save_headless(tmp_path / "base", name)
    records = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(4)])
    recipe = recipe_for(base, records, tmp_path / "out", **{"lora.enabled": lora})
    trained = Trained()
    out = train(recipe, callbacks=[trained]).output_dir
    card = load_card(out)
    assert (card.template.layout, card.query_tokens, card.passage_tokens) == ("pair", POSITIONS // 2, POSITIONS)
    with load_reranker(out, RerankOptions(device="cpu", dtype="float32", verify=True)) as reranker:
        assert (card.probe is not None, reranker.warnings) == (True, ())
    data = prepared(recipe)
    pairs = [data.dataset.encoder.encode_typed(QUERY, title="", text=passage) for passage in PASSAGES]
    rows, n_first = tuple(ids for ids, _ in pairs), tuple(n for _, n in pairs)
    scores, prompts = served(out)
    assert [(prompt.token_ids, prompt.n_first) for prompt in prompts] == pairs
    # All pairs in one padded batch, as they are trained on.
    batch = data.collator([PointwiseItem(0, rows, None, n_first if any(n_first) else ())])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in batch}
    with torch.no_grad():
        in_training = trained.model(**inputs)["scores"].tolist()
    assert scores == pytest.approx(in_training, abs=1e-5)
    assert plain(out, rows, n_first, base if lora else None) == pytest.approx(in_training, abs=1e-5)
    assert len(set(map(lambda score: round(score, 4), scores))) > 3
    if lora:
        merge(out, tmp_path / "merged")
        assert served(tmp_path / "merged")[0] == pytest.approx(scores, abs=1e-5)
        assert plain(tmp_path / "merged", rows, n_first) == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_ids_and_types_in_training_are_the_tokenizers_own(tmp_path, name):
    """Of every architecture: each pair of a group as its tokenizer gives two texts, cut at the model's positions."""
    base = save_headless(tmp_path / "base", name)
    records = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(3)])
    data = prepared(recipe_for(base, records, tmp_path / "out"))
    tokenizer = make_tokenizer(MODELS[name][0])
    for index, record in enumerate(data.dataset.records):
        item = data.dataset[index]
        texts = {passage.text for passage in (*record.positives, *record.negatives)}
        batches = [
            tokenizer(record.query, text, truncation="only_second", max_length=POSITIONS, padding="max_length")
            for text in texts
        ]
        batch = data.collator([item])
        shown = [
            (ids + [tokenizer.pad_token_id] * (POSITIONS - len(ids)), mask + [0] * (POSITIONS - len(mask)))
            for ids, mask in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
        ]
        assert all(pair in [(own["input_ids"], own["attention_mask"]) for own in batches] for pair in shown)
        assert ("token_type_ids" in batch) == ("token_type_ids" in tokenizer.model_input_names)
        if "token_type_ids" in batch:
            types = [row + [0] * (POSITIONS - len(row)) for row in batch["token_type_ids"].tolist()]
            assert all(row in [own["token_type_ids"] for own in batches] for row in types)


def test_the_saved_tokenizer_cuts_where_the_model_ends(tmp_path):
    """RoBERTa's say nothing of the two positions that hold no token: saved, they say what fits."""
    base = save_headless(tmp_path / "base", "Roberta")
    records = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(2)])
    out = train(recipe_for(base, records, tmp_path / "out", **{"schedule.max_steps": 1})).output_dir
    assert AutoTokenizer.from_pretrained(out).model_max_length == POSITIONS
