"""Every published form of a reranker loads with the same scores, and none with untrained weights."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from safetensors.torch import load_file, save_file

from rankllm_core.card import ListwiseCard, PointwiseCard, save_card
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_infer.api import load_reranker
from rankllm_infer.checkpoints.model_files import find_model
from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.transformers.engine import TransformersEngine
from rankllm_infer.engines.transformers.loading import load_model
from rankllm_infer.engines.transformers.model import pick_device, pick_dtype
from rankllm_infer.options import RerankOptions

IDS = ((1, 500, 600, 700), (1, 9, 8, 7, 6, 5, 4000), (30000,))


class Zoo:
    """Checkpoints, and their scores from plain transformers and PEFT."""

    def __init__(self, root, tokenizer):
        self.root = root
        self.full = root / "full"
        self.causal = root / "causal"
        self.adapter = root / "adapter"
        self.full_scores = expected(tiny_models.save_classifier(self.full, tokenizer))
        self.causal_model = tiny_models.save_causal(self.causal, tokenizer)
        self.adapted = tiny_models.save_adapter(self.adapter, self.causal)
        self.adapter_scores = expected(self.adapted)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, smollm2_tokenizer):
    """All checkpoints, created once."""
    return Zoo(tmp_path_factory.mktemp("zoo"), smollm2_tokenizer)


def expected(model):
    """Scores from the model's own forward pass, one unpadded pair at a time."""
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits.item() for ids in IDS]


def load(folder, kind="sequence-classification", *, base_model=None):
    """The model on the CPU in float32."""
    return load_model(find_model(str(folder), base_model), kind, TransformersSettings(dtype="float32", device="cpu"))


def scores(loaded):
    """Scores from our engine, in one batch."""
    engine = TransformersEngine(loaded)
    for ticket, ids in enumerate(IDS):
        engine.submit(ticket, Prompt(text="", read="head", token_ids=ids))
    found = {}
    while batch := engine.collect():
        found |= {ticket: answer.scores[0] for ticket, answer in batch}
    return [found[ticket] for ticket in range(len(IDS))]


def test_a_full_model_scores_as_transformers_does(zoo):
    """The same right-padded in one batch or one by one."""
    assert scores(load(zoo.full)) == pytest.approx(zoo.full_scores, abs=1e-5)


def test_an_adapter_is_merged_to_the_scores_it_has_unmerged(zoo):
    """Base, LoRA matrices and score head as written and read by the current PEFT."""
    with zoo.adapted.disable_adapter():
        assert expected(zoo.adapted) != pytest.approx(zoo.adapter_scores, abs=1e-2)
    loaded = load(zoo.adapter)
    assert type(loaded.model).__name__ == "LlamaForSequenceClassification"
    assert scores(loaded) == pytest.approx(zoo.adapter_scores, abs=1e-5)


@pytest.mark.parametrize("weights", ["adapter_model.bin", "adapter_model.safetensors"])
def test_an_adapter_of_an_old_peft_brings_its_own_head(zoo, tmp_path, weights):
    """The published RankLLaMA has no modules_to_save: its head must still come from the file."""
    old = tiny_models.age_adapter(zoo.adapter, tmp_path / "old", weights=weights)
    loaded = load(old)
    head = load_file(zoo.adapter / "adapter_model.safetensors")["base_model.model.score.weight"]
    assert torch.equal(loaded.model.score.weight, head)
    assert scores(loaded) == pytest.approx(zoo.adapter_scores, abs=1e-5)


def test_a_language_models_adapter_is_merged(zoo, tmp_path):
    """The other kind of adapter: the same next-token logits as unmerged in PEFT."""
    adapted = tiny_models.save_adapter(tmp_path / "lm", zoo.causal, task="CAUSAL_LM")
    ids = torch.tensor([IDS[1]])
    with torch.inference_mode():
        found, wanted = load(tmp_path / "lm", "causal").model(ids).logits, adapted(ids).logits
    assert torch.allclose(found, wanted, atol=1e-5)


def test_an_adapters_base_can_be_elsewhere(zoo, tmp_path):
    """`--base-model` replaces a base that was moved after training."""
    moved = tmp_path / "moved"
    tiny_models.shutil.copytree(zoo.adapter, moved)
    tiny_models.change_json(moved / "adapter_config.json", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(RankLLMError, match="gone: no such model folder"):
        load(moved)
    assert scores(load(moved, base_model=str(zoo.causal))) == pytest.approx(zoo.adapter_scores, abs=1e-5)
    tiny_models.change_json(moved / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ContractError, match="names no base model; specify it with --base-model"):
        load(moved)


def test_an_adapter_has_its_own_tokenizer_or_its_bases(zoo, tmp_path, smollm2_tokenizer):
    """If the adapter contains one, it is the one used in training."""
    own = tmp_path / "own"
    tiny_models.shutil.copytree(zoo.adapter, own)
    assert load(own).tokenizer.eos_token == smollm2_tokenizer.eos_token
    changed = type(smollm2_tokenizer).from_pretrained(zoo.causal, eos_token="<|endoftext|>")
    changed.save_pretrained(own)
    assert load(own).tokenizer.eos_token == "<|endoftext|>"


def drop(folder, suffix):
    """The folder without one of its weights."""
    (file,) = folder.glob("*.safetensors")
    weights = load_file(file)
    kept = {name: weight.clone() for name, weight in weights.items() if not name.endswith(suffix)}
    assert len(kept) == len(weights) - 1
    save_file(kept, file, metadata={"format": "pt"})
    return folder


def copied(folder, target):
    """A copy of a checkpoint, to be damaged."""
    return tiny_models.shutil.copytree(folder, target)


def test_a_missing_score_head_is_an_error_never_a_random_one(zoo, tmp_path):
    """In an adapter, in a full model, and in a language model that should score."""
    with pytest.raises(ContractError, match=r"adapter contains no score head .* scores would be random"):
        load(drop(copied(zoo.adapter, tmp_path / "a"), "score.weight"))
    with pytest.raises(ContractError, match=r"no score head .*scores would be random.*yes_no"):
        load(drop(copied(zoo.full, tmp_path / "f"), "score.weight"))
    with pytest.raises(ContractError, match=r"no score head .*scores would be random.*yes_no"):
        load(zoo.causal)


def test_a_missing_layer_is_an_error_too(zoo, tmp_path):
    """transformers would initialize it randomly and continue."""
    lost = "layers.1.mlp.up_proj.weight"
    for kind, folder in (("sequence-classification", zoo.full), ("causal", zoo.causal)):
        with pytest.raises(ContractError, match=rf"lacks 1 of the model's weights, such as model\.{lost}"):
            load(drop(copied(folder, tmp_path / kind), lost), kind)


def test_a_model_is_not_taken_for_the_other_kind(zoo, tmp_path):
    """A score head generates no text, and an adapter without a head gives no scores."""
    with pytest.raises(ContractError, match="has a score head and no language model; use --method pointwise"):
        load(zoo.full, "causal")
    with pytest.raises(ContractError, match="the adapter was trained with a score head; use --method pointwise"):
        load(zoo.adapter, "causal")
    tiny_models.save_adapter(tmp_path / "lm", zoo.causal, task="CAUSAL_LM")
    with pytest.raises(ContractError, match="the adapter contains no score head"):
        load(tmp_path / "lm")


def test_a_head_must_give_one_score(zoo, tmp_path, smollm2_tokenizer):
    """A two-label classifier is not a reranker of this kind."""
    tiny_models.save_classifier(tmp_path / "two", smollm2_tokenizer, labels=2)
    with pytest.raises(ContractError, match="two: the weights do not fit a model with one score per passage"):
        load(tmp_path / "two")


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("other", [{"hidden": 64}, {"layers": 3}, {"layers": 1}])
def test_an_adapter_does_not_go_on_another_base(zoo, tmp_path, other):
    """Wider, deeper or shallower: PEFT would drop mismatching weights, or fail with a long list of shapes."""
    tiny_models.save_causal(tmp_path / "other", **other)
    with pytest.raises(ContractError, match="adapter: the adapter was trained on another base model") as error:
        load(zoo.adapter, base_model=str(tmp_path / "other"))
    assert "\n" not in str(error.value)


def test_the_card_and_the_adapter_must_name_the_same_base(zoo, tmp_path):
    """If the base names differ, one of the two files belongs to another checkpoint."""
    folder = copied(zoo.adapter, tmp_path / "a")
    card = PointwiseCard(template=load_template("rankllama"), base_model="meta-llama/Llama-2-7b-hf")
    save_card(card, folder)
    options = RerankOptions(dtype="float32", device="cpu")
    with pytest.raises(ContractError, match=r"card names base model 'meta-llama/Llama-2-7b-hf', but adapter_config"):
        load_reranker(folder, options)
    load_reranker(folder, RerankOptions(dtype="float32", device="cpu", base_model=str(zoo.causal))).close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "/no/such/folder: no such model folder"),
        ("./nothing-here", "nothing-here: no such model folder"),
        ("castorini/rank_zephyr_7b_v1_full", "castorini/rank_zephyr_7b_v1_full: no such model folder"),
        ("SmolLM2", "SmolLM2: no such model folder"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(name, message):
    """A missing folder, and a hub name without a hub: no traceback and no delay."""
    with pytest.raises(RankLLMError, match=message) as error:
        load(name)
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_no_model_is_one_line(tmp_path, zoo, smollm2_tokenizer):
    """Empty, without weights, without a tokenizer, or with a broken adapter_config.json."""
    (tmp_path / "empty").mkdir()
    bare = copied(zoo.causal, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    mute = copied(zoo.causal, tmp_path / "mute")
    for file in mute.glob("tokenizer*"):
        file.unlink()
    broken = copied(zoo.adapter, tmp_path / "broken")
    (broken / "adapter_config.json").write_text("{", encoding="utf-8")
    lost = copied(zoo.adapter, tmp_path / "lost")
    (lost / "adapter_model.safetensors").unlink()
    for folder in (tmp_path / "empty", bare, mute):
        with pytest.raises(RankLLMError, match=folder.name) as error:
            load(folder, "causal")
        assert "\n" not in str(error.value)
    for folder in (broken, lost):
        with pytest.raises(RankLLMError, match=folder.name) as error:
            load(folder)
        assert "\n" not in str(error.value)


def test_dtype_and_device_are_those_asked_for(zoo):
    """The model is in eval mode, without gradients or dropout."""
    loaded = load_model(
        find_model(str(zoo.full)), "sequence-classification", TransformersSettings(dtype="bfloat16", device="cpu")
    )
    assert loaded.model.score.weight.dtype == loaded.dtype == torch.bfloat16
    assert loaded.device.type == "cpu"
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_devices_and_dtypes_that_are_not_there_are_one_line():
    """The message lists the available ones."""
    for device in ("tpu-of-mine", "cuda:99"):
        with pytest.raises(RankLLMError, match=f"--device {device}: "):
            pick_device(device)
    with pytest.raises(RankLLMError, match="--num-gpus 99: found "):
        pick_device("auto", num_gpus=99)
    with pytest.raises(ConfigError, match="dtype: expected one of float32, bfloat16, float16; found 'fp8'"):
        pick_dtype("fp8", torch.device("cpu"))
    assert pick_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


def test_first_refuses_identifiers_of_two_tokens_before_any_query_is_read(zoo, tmp_path):
    """SmolLM2 encodes 10 as two tokens: the message suggests the largest window, and letters."""
    folder = copied(zoo.causal, tmp_path / "m")
    save_card(ListwiseCard(template=load_template("rank_zephyr"), answer="first-token", context_tokens=256), folder)
    with pytest.raises(ContractError, match=r"'10' is 2 tokens .* use --use-alpha, or --window-size 9 or less"):
        load_reranker(folder, RerankOptions(dtype="float32", device="cpu"))


def test_attention_that_is_not_to_be_had_is_refused(tiny_causal):
    """In one line naming the option; available attention is used."""
    files = find_model(str(tiny_causal))
    with pytest.raises(RankLLMError, match=r"--attn-implementation flash_attention_2: needs a CUDA device"):
        load_model(files, "causal", TransformersSettings(device="cpu", attn_implementation="flash_attention_2"))
    loaded = load_model(files, "causal", TransformersSettings(device="cpu", attn_implementation="eager"))
    assert loaded.model.config._attn_implementation == "eager"
