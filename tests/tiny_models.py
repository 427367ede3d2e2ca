"""Checkpoints of a tiny random Llama in every form that rerankers are published in."""

from __future__ import annotations

import json
import shutil

from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


def config(*, hidden=32, layers=2, max_position_embeddings=256, **options):
    """A Llama of a few thousand weights beside its embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=49152,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_position_embeddings,
        initializer_range=0.2,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        **options,
    )


def save_causal(folder, tokenizer=None, **options):
    """A language model, with its tokenizer where one is given."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(1)
    return _save(LlamaForCausalLM(config(**options)), folder, tokenizer)


def save_classifier(folder, tokenizer=None, *, labels=1, **options):
    """A full model with a score head."""
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(2)
    return _save(LlamaForSequenceClassification(config(num_labels=labels, **options)), folder, tokenizer)


def _save(model, folder, tokenizer):
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return model.eval()


def save_adapter(folder, base, *, task="SEQ_CLS"):
    """A LoRA adapter over the causal model in `base`, as today's PEFT writes it. Returns the unmerged one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(3)
    if task == "SEQ_CLS":
        model = LlamaForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    else:
        model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(
        task_type=task,
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        init_lora_weights=False,
    )
    adapted = get_peft_model(model, lora)
    adapted.save_pretrained(folder)
    return adapted.eval()


def age_adapter(folder, target, *, weights="adapter_model.bin"):
    """The same adapter as PEFT 0.4 wrote it: few settings, `modules_to_save` not among them, often a pickle."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(folder, target)
    today = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    kept = ("base_model_name_or_path", "lora_alpha", "peft_type", "r", "target_modules", "task_type")
    old = {name: today[name] for name in kept} | {
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "revision": None,
    }
    (target / "adapter_config.json").write_text(json.dumps(old), encoding="utf-8")
    if weights.endswith(".bin"):
        file = target / "adapter_model.safetensors"
        torch.save(load_file(file), target / weights)
        file.unlink()
    return target


def change_json(path, **values):
    """Change some values of a JSON file."""
    read = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(read | values), encoding="utf-8")
