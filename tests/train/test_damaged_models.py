"""A model folder with a manifest is verified wherever its weights are loaded; one without is accepted."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch")

from training_fakes import pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_core.files.manifest import MANIFEST_NAME  # noqa: E402
from rankllm_infer.api import load_reranker  # noqa: E402
from rankllm_infer.options import RerankOptions  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.merge import merge  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402

ADAPTER, FULL = "adapter_model.safetensors", "model.safetensors"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, smollm2_tokenizer):
    """Yes/no groups, one step."""
    folder = tmp_path_factory.mktemp("inputs")
    return Recipe(method="pointwise").changed(
        {
            "model.name_or_path": save_tiny(folder / "tiny", smollm2_tokenizer),
            "model.precision": "fp32",
            "data.train": write_records(folder / "p.jsonl", [pointwise_record(i) for i in range(2)]),
            "data.group_size": 2,
            "prompt.head": "yes-no",
            "schedule.max_steps": 1,
            "lora.r": 4,
        }
    )


@pytest.fixture(scope="module")
def models(recipe, tmp_path_factory):
    """Checkpoints of an adapter and of a full model, by the name of their weights."""
    root = tmp_path_factory.mktemp("models")
    for name in (ADAPTER, FULL):
        changes = {"lora.enabled": name == ADAPTER, "checkpoint.output_dir": str(root / name)}
        train(recipe.changed(changes | {"checkpoint.every": "1"}))
    return {name: root / name / "step_1" for name in (ADAPTER, FULL)}


def merged(folder, recipe, out):
    merge(folder, out)


def started_from(folder, recipe, out):
    changes = {"lora.enabled": True, "lora.start_from": str(folder), "checkpoint.output_dir": str(out)}
    train(recipe.changed(changes))


def trained_on(folder, recipe, out):
    train(recipe.changed({"model.name_or_path": str(folder), "checkpoint.output_dir": str(out)}))


def served(folder, recipe, out):
    load_reranker(folder, RerankOptions(dtype="float32", device="cpu")).close()


def flipped(path):
    """Flip a bit of the last weight; the header is unchanged."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def longer_tokenizer(path):
    text = (path.parent / "tokenizer.json").read_text(encoding="utf-8")
    (path.parent / "tokenizer.json").write_text(text + "\n", encoding="utf-8")


USES = [(ADAPTER, merged), (ADAPTER, started_from), (ADAPTER, served), (FULL, trained_on), (FULL, served)]


@pytest.mark.parametrize(("name", "use"), USES, ids=lambda value: getattr(value, "__name__", value))
def test_a_flipped_bit_is_one_line_that_names_the_file(recipe, models, tmp_path, name, use):
    """With advice; without the manifest nothing is verified, and the model is used."""
    folder = shutil.copytree(models[name], tmp_path / "model")
    flipped(folder / name)
    with pytest.raises(RankLLMError, match=f"{name}: is damaged") as caught:
        use(folder, recipe, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert f"delete {MANIFEST_NAME}" in str(caught.value)
    (folder / MANIFEST_NAME).unlink()
    use(folder, recipe, tmp_path / "out2")


@pytest.mark.parametrize(("name", "use"), USES, ids=lambda value: getattr(value, "__name__", value))
def test_what_an_owner_edits_is_no_damage(recipe, models, tmp_path, name, use):
    """The page, the recipe and the card; nor a manifest.json with another purpose."""
    folder = shutil.copytree(models[name], tmp_path / "model")
    for edited in ("README.md", "recipe.yaml", "rankllm.yaml"):
        with (folder / edited).open("a", encoding="utf-8") as stream:
            stream.write("# edited\n")
    use(folder, recipe, tmp_path / "out")
    (folder / MANIFEST_NAME).write_text('{"name": "an app", "files": ["a.js"]}', encoding="utf-8")
    flipped(folder / name)
    use(folder, recipe, tmp_path / "out2")


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1, "files": {}, "step": 1}'])
def test_a_damaged_manifest_is_named(models, tmp_path, content):
    """It may have listed damaged weights."""
    folder = shutil.copytree(models[ADAPTER], tmp_path / "model")
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(RankLLMError, match=r"manifest\.json: is damaged"):
        merge(folder, tmp_path / "out")


def test_a_tokenizer_is_compared_as_well(models, tmp_path):
    """It determines the model's input."""
    folder = shutil.copytree(models[ADAPTER], tmp_path / "model")
    longer_tokenizer(folder / ADAPTER)
    with pytest.raises(RankLLMError, match=r"tokenizer\.json: is damaged"):
        served(folder, None, None)
