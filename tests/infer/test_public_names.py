"""What `import rankllm_infer` offers, and that nothing is loaded before it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import rankllm_infer

HEAVY = ("torch", "transformers", "vllm", "peft", "numpy", "huggingface_hub")


def modules_after(code):
    """Names of the modules that a fresh interpreter has imported after running this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", rankllm_infer.__all__)
def test_every_public_name_is_there_and_is_the_one_of_its_module(name):
    """`from rankllm_infer import NAME` gives the very object that its own module defines."""
    found = getattr(rankllm_infer, name)
    assert found.__name__ == name
    assert getattr(importlib.import_module(found.__module__), name) is found
    assert name in dir(rankllm_infer)


def test_the_names_of_a_first_program_are_public():
    """Those in the README's program, and what it is given back."""
    wanted = {"Reranker", "load_reranker", "plan_reranking", "RerankOptions", "make_request", "Request", "Result"}
    assert wanted <= set(rankllm_infer.__all__)


def test_importing_the_package_imports_none_of_its_modules():
    """A program that only wants the version does not wait."""
    found = {name for name in modules_after("import rankllm_infer") if name.startswith("rankllm_")}
    assert found == {"rankllm_infer", "rankllm_core", "rankllm_core.public_names"}


def test_names_are_used_and_a_model_is_planned_without_torch(tmp_path):
    """Options, requests and a plan with its card: torch is imported to load weights, and not before."""
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    code = (
        "from rankllm_infer import Reranker, RerankOptions, load_reranker, make_request, plan_reranking\n"
        "make_request('q', ['a', 'b'])\n"
        "assert callable(Reranker.rank) and callable(Reranker.arank)\n"
        "try:\n"
        "    load_reranker('m', dtpe='float32')\n"
        "except Exception as error:\n"
        "    assert 'dtype' in str(error)\n"
        f"plan = plan_reranking({str(tmp_path)!r}, RerankOptions(window_size=5, stride=2))\n"
        "assert plan.card.card.window_size == 5"
    )
    assert not modules_after(code) & set(HEAVY)


def test_a_name_that_is_not_there_is_pythons_error():
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'rankllm_infer' has no attribute 'rerank_all'"):
        rankllm_infer.rerank_all  # noqa: B018
