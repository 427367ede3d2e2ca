"""Sixty checkpoints damaged at seeded random offsets: each gives identical bytes, or is rejected by name."""

from __future__ import annotations

import random
import re
import shutil

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from training_fakes import pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_core.files.manifest import read_manifest  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints, find_resumable, resume_fault  # noqa: E402
from rankllm_train.cli import cli  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, save_recipe  # noqa: E402

STEPS, N_DAMAGED = 3, 60
MODEL = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, smollm2_tokenizer):
    """Adapters with dropout, evaluated on dev data, with a checkpoint at each step."""
    folder = tmp_path_factory.mktemp("inputs")
    return Recipe(method="pointwise").changed(
        {
            "model.name_or_path": save_tiny(folder / "tiny", smollm2_tokenizer),
            "model.precision": "fp32",
            "data.train": write_records(folder / "p.jsonl", [pointwise_record(i) for i in range(6)]),
            "data.eval": write_records(folder / "dev.jsonl", [pointwise_record(i) for i in range(6, 9)]),
            "data.group_size": 3,
            "batch.per_device": 2,
            "optim.learning_rate": 1e-3,
            "schedule.max_steps": STEPS,
            "checkpoint.every": "1",
            "evaluation.every": "1",
            "evaluation.metric": "loss",
            "lora.enabled": True,
            "lora.r": 4,
        }
    )


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """Output folder of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    train(recipe.changed({"checkpoint.output_dir": str(out)}))
    return out


@pytest.fixture
def stopped(whole, tmp_path):
    """The same folder, as left by a run killed in its third step."""
    out = tmp_path / "out"
    for name in ("step_1", "step_2"):
        shutil.copytree(whole / name, out / name)
    shutil.copy(whole / "metrics.jsonl", out)
    return out


def damage(folder, draw, *, other):
    """Damage one file of a checkpoint; returns its name and the kind of damage, or None if nothing changed."""
    path = draw.choice(sorted(item for item in folder.rglob("*") if item.is_file() and item.name != "README.md"))
    before = path.read_bytes()
    kind = draw.choice(["flip", "flip", "cut", "empty", "gone", "longer", "noise", "swapped"])
    if kind == "gone":
        path.unlink()
    elif kind == "flip":
        changed = bytearray(before)
        changed[draw.randrange(len(before))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
    elif kind == "swapped":
        shutil.copy(other / path.name, path)
    else:
        cut = before[: draw.randrange(len(before))]
        path.write_bytes(
            {"cut": cut, "empty": b"", "longer": before + b"\0", "noise": draw.randbytes(len(before))}[kind]
        )
    return None if path.exists() and path.read_bytes() == before else path.name, kind


@pytest.mark.parametrize("seed", range(N_DAMAGED))
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(stopped, seed):
    """Any file, including the manifest; a bit, the end, everything, or the same file of another step."""
    name, _ = damage(stopped / "step_2", random.Random(seed), other=stopped / "step_1")
    told = []
    found = find_resumable("latest", stopped, say=told.append)
    if name is None:
        assert (found.name, told) == ("step_2", [])
        return
    assert found.name == "step_1"
    (line,) = told
    assert re.match(rf"Warning: skipped step_2: {name}: (is |missing; )", line)
    with pytest.raises(RankLLMError, match=f"step_2: not a complete checkpoint \\({name}: .*; use latest") as caught:
        find_resumable(str(stopped / "step_2"), stopped)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 17, 34, 51])
def test_the_run_ends_with_the_undisturbed_bytes(recipe, whole, stopped, seed):
    """Resumed from the checkpoint before the damaged one, which is written again."""
    shutil.copytree(whole / "best", stopped / "best")
    damage(stopped / "step_2", random.Random(seed), other=stopped / "step_1")
    train(recipe.changed({"checkpoint.output_dir": str(stopped)}), resume_from="latest")
    assert (stopped / MODEL).read_bytes() == (whole / MODEL).read_bytes()
    for folder in checkpoints(stopped):
        assert resume_fault(folder) is None
        assert (folder / MODEL).read_bytes() == (whole / folder.name / MODEL).read_bytes()
        assert (folder / "optimizer.pt").read_bytes() == (whole / folder.name / "optimizer.pt").read_bytes()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MODEL])
def test_a_file_of_length_zero_is_one_line_and_not_a_stop(recipe, stopped, tmp_path, name):
    """torch raises EOFError there, which click mistakes for Ctrl-D."""
    (stopped / "step_2" / name).write_bytes(b"")
    save_recipe(recipe.changed({"checkpoint.output_dir": str(stopped)}), tmp_path)
    command = ["pointwise", "--recipe", str(tmp_path / "recipe.yaml")]
    command += ["--resume-from-checkpoint", str(stopped / "step_2")]
    error = CliRunner().invoke(cli, command).exception
    assert isinstance(error, RankLLMError)
    assert f"{name}: is damaged (0 bytes" in str(error)


def test_where_all_are_damaged_each_is_named(recipe, stopped):
    """The run does not start over by itself."""
    for step in (1, 2):
        (stopped / f"step_{step}" / "optimizer.pt").unlink()
    message = (
        r"contains no intact checkpoint \(step_2: optimizer\.pt: is missing; step_1: optimizer\.pt: is missing\); "
        r"restore one, or start over with --overwrite-output-dir"
    )
    with pytest.raises(RankLLMError, match=message):
        train(recipe.changed({"checkpoint.output_dir": str(stopped)}), resume_from="latest")


def test_state_that_would_be_loaded_unlisted_is_refused_and_notes_are_not(stopped):
    """`optimizer.bin` would be loaded as an optimizer; user files are ignored."""
    (stopped / "step_2" / "notes.txt").write_text("the good one", encoding="utf-8")
    (stopped / "step_2" / "README.md").write_text("edited", encoding="utf-8")
    assert find_resumable("latest", stopped).name == "step_2"
    for name in ("scaler.pt", "pytorch_model.bin", "adapter_model.bin", "model.safetensors.index.json"):
        (stopped / "step_2" / name).touch()
        assert resume_fault(stopped / "step_2") == f"{name}: is not listed in manifest.json; remove it"
        (stopped / "step_2" / name).unlink()


def test_a_checkpoint_of_weights_alone_says_so(recipe, tmp_path):
    """It is intact, but contains no optimizer."""
    changes = {"checkpoint.output_dir": str(tmp_path), "checkpoint.resumable": False, "schedule.max_steps": 1}
    train(recipe.changed(changes))
    assert "contains no optimizer state" in resume_fault(tmp_path / "step_1")


@pytest.mark.parametrize("name", ["best.json", MODEL, "recipe.yaml", "manifest.json"])
def test_a_damaged_best_model_is_named(recipe, whole, stopped, name):
    """The value to beat is part of the run's state."""
    shutil.copytree(whole / "best", stopped / "best")
    path = stopped / "best" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RankLLMError, match=rf"best: {name}: is damaged .*delete the folder to resume without"):
        train(recipe.changed({"checkpoint.output_dir": str(stopped)}), resume_from="latest")


def test_a_best_model_that_is_its_checkpoint_survives_a_kill_in_between(recipe, whole, stopped):
    """The checkpoint was complete, the best model not yet: it is restored from the checkpoint."""
    from rankllm_train.artifacts.best import load_best

    step = load_best(whole).step
    assert step == STEPS, "the data of this test should make each model better than the one before"
    result = train(recipe.changed({"checkpoint.output_dir": str(stopped)}), resume_from="latest")
    assert result.best == load_best(whole)
    assert load_best(stopped).step == STEPS


def test_dev_data_that_moved_is_the_same_dev_data(recipe, whole, stopped, tmp_path):
    """The best model was evaluated on these bytes, whatever their name is now."""
    from rankllm_train.artifacts.best import load_best

    shutil.copytree(whole / "best", stopped / "best")
    moved = shutil.copy(recipe.data.eval, tmp_path / "moved.jsonl")
    told = []
    changed = recipe.changed({"checkpoint.output_dir": str(stopped), "data.eval": str(moved)})
    result = train(changed, resume_from="latest", say=told.append)
    assert result.best == load_best(whole)
    assert not any("belongs to another run" in line for line in told)


def test_final_and_best_models_have_manifests_of_their_own(whole):
    """With the step of the model that they contain."""
    best = read_manifest(whole / "best")
    assert read_manifest(whole).step == best.step
    assert set(read_manifest(whole).files) == set(best.files)
    assert {MODEL, "rankllm.yaml", "tokenizer.json", "best.json", "training_run.json"} <= set(best.files)


def test_weights_are_as_readable_as_the_files_beside_them(whole):
    """Another user's server can load them."""
    for folder in (whole, whole / "best", whole / "step_2"):
        modes = {(folder / name).stat().st_mode & 0o777 for name in (MODEL, "rankllm.yaml", "manifest.json")}
        assert len(modes) == 1, folder


def test_unreadable_lines_of_the_log_are_counted(recipe, stopped):
    """A flipped byte that makes the file invalid UTF-8 causes no traceback; the line of a killed run is not counted."""
    path = stopped / "metrics.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    odd = b'{"step": 1, "loss": {"a": 1}}\n{"step": 1, "loss": true}\n{"step": true}\n{"step": 1, "loss": "x"}\n'
    path.write_bytes(b"\xff" + first + odd + b"".join(others) + b'{"step": 3, "lo')
    told = []
    train(recipe.changed({"checkpoint.output_dir": str(stopped)}), resume_from="latest", say=told.append)
    assert any("dropped 5 unreadable lines from metrics.jsonl" in line for line in told)


@pytest.mark.parametrize(("name", "files"), [("step_3", ()), ("step_3", ("optimizer.pt",)), ("epoch_0", ())])
def test_a_folder_that_holds_next_to_nothing_is_told_of(stopped, name, files):
    """It has a checkpoint's name, but its remains do not tell the step."""
    (stopped / name).mkdir()
    for file in files:
        (stopped / name / file).write_bytes(b"")
    told = []
    assert find_resumable("latest", stopped, say=told.append).name == "step_2"
    (line,) = told
    assert line.startswith(f"Warning: skipped {name}: manifest.json: missing")
