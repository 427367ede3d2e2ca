"""The names that Python users import from rankllm_train itself."""

import subprocess
import sys

import pytest

import rankllm_train


def test_every_public_name_is_there():
    """Each is the object defined in its module, and `dir` lists it."""
    for name in rankllm_train.__all__:
        assert getattr(rankllm_train, name).__name__ == name
        assert name in dir(rankllm_train)


def test_an_unknown_name_is_an_error():
    """An unknown attribute raises AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = rankllm_train.trian


def test_importing_them_imports_no_torch():
    """A program can import them and load or change a recipe without importing torch."""
    names = ", ".join(rankllm_train.__all__)
    script = f"""
import sys
import rankllm_train
assert not [name for name in sys.modules if name.startswith("rankllm_train.")]
from rankllm_train import {names}
load_recipe("first-mistral").changed({{"lora.enabled": True}})
print(sorted({{"torch", "transformers", "peft", "accelerate", "datasets"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
