"""The training lines of both original READMEs and of rank_llm's presets: launchers and program names mapped as
docs/coming-from.md says. `tests/train/test_deepspeed.py` starts tevatron's line by DeepSpeed's launcher.

castorini/rank_llm@1b3cabb training/README.md, training/scripts; texttron/tevatron@130ed2c examples/rankllama/README.md.
"""

from __future__ import annotations

import json
import re
import shlex

import pytest
from click.testing import CliRunner
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records

from rankllm_train.cli import cli
from rankllm_train.cli.options import resolve_recipe
from rankllm_train.recipe.recipe import load_recipe

RANK_LLM = """DS_SKIP_CUDA_CHECK=1 NCCL_IB_DISABLE=1 NCCL_P2P_DISABLE=1 \
PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True \
accelerate launch train_rankllm.py \
    --model_name_or_path <path-to-model> \
    --train_dataset_path <path-to-train-dataset> \
    --num_train_epochs <num-epochs> \
    --seed <seed> \
    --per_device_train_batch_size <batch-size> \
    --gradient_accumulation_steps <gradient-accumulation-steps> \
    --num_warmup_steps <num-warmup-steps> \
    --gradient_checkpointing \
    --output_dir <output-dir> \
    --noisy_embedding_alpha <noisy-embedding-alpha> \
    --objective <objective>"""
RANK_ZEPHYR = """accelerate launch --config_file "configs/accel_config_deepspeed.yaml" train_rankllm.py \
    --model_name_or_path HuggingFaceH4/zephyr-7b-beta \
    --train_dataset_path rryisthebest/rank_zephyr_training_data_alpha \
    --num_train_epochs 3 --seed 42 --per_device_train_batch_size 4 --gradient_accumulation_steps 16 \
    --lr_scheduler_type cosine --num_warmup_steps 50 --gradient_checkpointing \
    --output_dir models/ranking/RankZephyr --noisy_embedding_alpha 5 --objective generation \
    --with_tracking --report_to wandb --checkpointing_steps epoch"""
FIRST_MISTRAL = """accelerate launch --config_file "configs/accel_config_deepspeed.yaml" train_rankllm.py \
    --model_name_or_path mistralai/Mistral-7B-Instruct-v0.3 \
    --train_dataset_path rryisthebest/rank_zephyr_training_data_alpha \
    --num_train_epochs 3 --seed 42 --per_device_train_batch_size 8 --gradient_accumulation_steps 4 \
    --lr_scheduler_type cosine --num_warmup_steps 50 --gradient_checkpointing \
    --output_dir models/ranking/FirstMistral --noisy_embedding_alpha 5 --objective combined --ranking_loss ranknet \
    --weighted --with_tracking --report_to wandb --checkpointing_steps epoch"""
RANKLLAMA = """deepspeed --include localhost:0,1,2,3 reranker_train.py \
  --deepspeed ds_config.json \
  --output_dir model_rankllama \
  --model_name_or_path meta-llama/Llama-2-7b-hf \
  --save_steps 200 \
  --dataset_name Tevatron/msmarco-passage \
  --bf16 \
  --per_device_train_batch_size 4 \
  --gradient_accumulation_steps 8 \
  --gradient_checkpointing \
  --train_n_passages 16 \
  --learning_rate 1e-4 \
  --q_max_len 32 \
  --p_max_len 196 \
  --num_train_epochs 1 \
  --logging_steps 10 \
  --overwrite_output_dir \
  --dataset_proc_num 32"""


def our_words(line, **placeholders):
    """What stands behind the original's program, with its `<placeholders>` filled in."""
    for name, value in placeholders.items():
        line = line.replace(f"<{name.replace('_', '-')}>", str(value))
    return shlex.split(re.sub(r"\s+", " ", line).partition(".py ")[2])


@pytest.fixture
def resolved(monkeypatch):
    """The recipe that a command line comes to, without training it."""
    import rankllm_train.cli.training

    def resolve(words):
        seen = {}
        monkeypatch.setattr(
            rankllm_train.cli.training,
            "run",
            lambda method, options: seen.update(r=resolve_recipe(method, options.recipe)),
        )
        done = CliRunner().invoke(cli, words, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return seen["r"]

    return resolve


@pytest.mark.parametrize(
    ("line", "recipe"), [(RANK_ZEPHYR, "rank-zephyr"), (FIRST_MISTRAL, "first-mistral")], ids=["zephyr", "mistral"]
)
def test_the_presets_of_rank_llm_are_our_recipes(resolved, line, recipe):
    """Every value that their scripts give."""
    found, ours = resolved(our_words(line)), load_recipe(recipe)
    for section in ("optim", "schedule", "batch", "checkpoint"):
        assert getattr(found, section) == getattr(ours, section), section
    loss = [(recipe.objective.ranking_loss, recipe.objective.weighted) for recipe in (found, ours)]
    assert loss[0] == loss[1]
    assert (found.objective_name, found.objective.weight) == (ours.objective_name, ours.objective.weight)
    assert (found.model.name_or_path, found.data.train) == (ours.model.name_or_path, ours.data.train)


def test_the_line_of_rankllama_is_our_recipe(resolved):
    """Pointwise, LoRA, 16 passages, 32 and 196 tokens: all but the data set's later name, the folder and the file."""
    changes = {
        "data.train": "Tevatron/msmarco-passage",
        "batch.deepspeed": "ds_config.json",
        "checkpoint.output_dir": "model_rankllama",
    }
    assert resolved(our_words(RANKLLAMA)) == load_recipe("rankllama").changed(changes)


@pytest.mark.parametrize("objective", ["generation", "ranking", "combined"])
def test_rank_llms_line_trains(tmp_path, monkeypatch, smollm2_tokenizer, objective):
    """With each objective that its README names, in one process; the folder holds a model that inference reads."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "base", smollm2_tokenizer)
    write_records(tmp_path / "lists.jsonl", [listwise_record(number) for number in range(2)])
    words = our_words(
        RANK_LLM,
        path_to_model="base",
        path_to_train_dataset="lists.jsonl",
        num_epochs=1,
        seed=42,
        batch_size=1,
        gradient_accumulation_steps=2,
        num_warmup_steps=0,
        output_dir="out",
        noisy_embedding_alpha=5,
        objective=objective,
    )
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.stdout == "out\n"
    assert (tmp_path / "out" / "rankllm.yaml").exists()
    assert (tmp_path / "out" / "epoch_0" / "model.safetensors").exists()


def test_tevatrons_line_trains(tmp_path, monkeypatch, smollm2_tokenizer):
    """In one process, so without its `--deepspeed ds_config.json`: an adapter and a score layer of its settings."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "meta-llama" / "Llama-2-7b-hf", smollm2_tokenizer)
    (tmp_path / "Tevatron").mkdir()
    write_records(tmp_path / "Tevatron" / "msmarco-passage", [pointwise_record(number) for number in range(2)])
    words = our_words(RANKLLAMA.replace("--deepspeed ds_config.json", ""))
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.stdout == "model_rankllama\n"
    adapter = json.loads((tmp_path / "model_rankllama" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (32, 64, 0.1)
    layers = {"q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"}
    assert set(adapter["target_modules"]) == layers
