"""Every call that loads a model sets whether its own code may run: otherwise transformers asks on the terminal."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def auto_calls():
    """(place, call) of each `Auto....from_pretrained` and `from_config` of the packages and scripts."""
    for folder in ("packages", "shared/rankllm-core/src", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = node.func.value
                    is_loading = node.func.attr in ("from_pretrained", "from_config")
                    if is_loading and isinstance(owner, ast.Name) and owner.id.startswith(("Auto", "owner")):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_call_says_whether_code_is_trusted():
    """`trust_remote_code` is passed directly or in a dictionary of options."""
    calls = dict(auto_calls())
    assert len(calls) > 10
    silent = [
        place
        for place, call in calls.items()
        if not any(keyword.arg in (None, "trust_remote_code") for keyword in call.keywords)
    ]
    assert not silent


def test_no_pickle_is_loaded_but_as_tensors():
    """`torch.load` always has weights_only=True, and `pickle` is not used."""
    for folder in ("packages", "shared/rankllm-core/src"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                assert not (isinstance(node, ast.Import) and any(name.name == "pickle" for name in node.names)), path
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert given.get("weights_only") == "True", f"{path}:{node.lineno}"
