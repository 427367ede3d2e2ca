"""Models whose folder brings code that leaves a mark when it is run."""

from __future__ import annotations

import shutil
from pathlib import Path

from tiny_models import change_json

CONFIGURATION = """
from pathlib import Path
Path({marker!r}).write_text("configuration")
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnClassifier(LlamaForSequenceClassification):
    config_class = OwnConfig
"""
TOKENIZER = """
from pathlib import Path
Path({marker!r}).write_text("tokenizer")
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
GENERATE = """
from pathlib import Path
Path({marker!r}).write_text("generate")

def generate(model, *arguments, **options):
    return model.generate(*arguments, **options)
"""


def with_own_model(source: Path, target: Path, marker: Path) -> Path:
    """A copy of a Llama that only its own code can load."""
    shutil.copytree(source, target)
    (target / "modeling_own.py").write_text(CONFIGURATION.format(marker=str(marker)))
    auto = {"AutoConfig": "OwnConfig", "AutoModelForCausalLM": "OwnModel"}
    auto["AutoModelForSequenceClassification"] = "OwnClassifier"
    auto_map = {name: f"modeling_own.{value}" for name, value in auto.items()}
    change_json(target / "config.json", model_type="own", architectures=["OwnModel"], auto_map=auto_map)
    return target


def with_own_tokenizer(source: Path, target: Path, marker: Path) -> Path:
    """A copy of a model whose tokenizer only its own code can load."""
    shutil.copytree(source, target)
    (target / "tokenization_own.py").write_text(TOKENIZER.format(marker=str(marker)))
    auto_map = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", "tokenization_own.OwnTokenizer"]}
    change_json(target / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=auto_map)
    return target


def with_known_model(source: Path, target: Path, marker: Path) -> Path:
    """A copy of a Llama that says it is one, and names code of its own all the same; and code to generate with."""
    with_own_model(source, target, marker)
    change_json(target / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    (target / "custom_generate").mkdir()
    (target / "custom_generate" / "generate.py").write_text(GENERATE.format(marker=str(marker)))
    return target
