"""Code that comes with a model is not run, whatever is typed; one option allows it for one folder, and says so."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torch")

from ranking_server import request, write_jsonl
from remote_code import with_known_model, with_own_model, with_own_tokenizer
from tiny_models import change_json, save_adapter

from rankllm_core.errors import ConfigError
from rankllm_infer.checkpoints import model_files
from rankllm_infer.checkpoints.model_files import check_remote_code, find_folder
from rankllm_infer.engines.vllm.settings import engine_arguments
from rankllm_infer.options import RerankOptions

YES = "y\n" * 99


@pytest.fixture(autouse=True)
def _own_modules(tmp_path, monkeypatch):
    """transformers copies such code into a cache and keeps it imported."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model_files._check_once.cache_clear()


@pytest.fixture
def marker(tmp_path):
    """What the code would write."""
    return tmp_path / "it-ran"


@pytest.fixture
def requests(tmp_path):
    """Enough windows for `calibrate`."""
    return write_jsonl(tmp_path / "requests.jsonl", *(request(f"q{n}", *range(4)) for n in range(12)))


def commands(folder, requests, output):
    """Every command that loads something of a model."""
    return {
        "rerank": ("rerank", "--model-path", folder, "--requests", requests, "--output", output),
        "pointwise": (
            *("rerank", "--model-path", folder, "--requests", requests, "--output", output),
            *("--method", "pointwise", "--prompt-template-path", "yes_no"),
        ),
        "calibrate": (
            *("calibrate", "--model-path", folder, "--requests", requests, "--use-logits", "--use-alpha"),
            *("--window-size", 2),
        ),
        "render": ("prompts", "render", "--model-path", folder, "--requests", requests),
        "demo": ("demo", "--model-path", folder, "--output-dir", output.parent / "demo"),
    }


@pytest.mark.parametrize("make", [with_own_model, with_own_tokenizer])
@pytest.mark.parametrize("command", ["rerank", "pointwise", "calibrate", "render", "demo"])
def test_code_is_not_run_whatever_is_typed(rankllm, tiny_causal, tmp_path, requests, marker, make, command):
    """One line that names the option; `yes` on standard input changes nothing."""
    folder = make(tiny_causal, tmp_path / "model", marker)
    done = rankllm(*commands(folder, requests, tmp_path / "out.trec")[command], stdin=YES)
    assert not marker.exists()
    assert "[y/N]" not in done.out + done.err
    if command == "render" and make is with_own_model:
        assert done.code == 0  # the tokenizer is an ordinary one, and nothing else is loaded
        return
    assert done.code == 1, done.err
    errors = [line for line in done.err.splitlines() if not line.startswith(("Loading", "Warning"))]
    assert len(errors) == 1, done.err
    assert "allow it with --trust-remote-code, for a local folder or a pinned revision" in errors[0]


def test_an_adapters_base_is_no_way_round(rankllm, tiny_causal, tmp_path, requests, marker):
    """The adapter's own folder, and the base that its settings name."""
    base = with_own_model(tiny_causal, tmp_path / "base", marker)
    save_adapter(tmp_path / "adapter", tiny_causal, task="CAUSAL_LM")
    change_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=str(base))
    change_json(
        tmp_path / "adapter" / "adapter_config.json",
        auto_mapping={"base_model_class": "OwnModel", "parent_library": "modeling_own"},
    )
    shutil.copy(base / "modeling_own.py", tmp_path / "adapter")
    done = rankllm(*commands(tmp_path / "adapter", requests, tmp_path / "out.trec")["rerank"], stdin=YES)
    assert (done.code, marker.exists()) == (1, False)
    with pytest.raises(ConfigError, match=r"is an adapter; name the base whose code may run with --base-model"):
        check_remote_code(find_folder(str(tmp_path / "adapter")))
    assert check_remote_code(find_folder(str(tmp_path / "adapter")), str(base))


def test_a_model_that_transformers_knows_is_loaded_without_its_code(rankllm, tiny_causal, tmp_path, requests, marker):
    """As most published models with an `auto_map`; the run says that the code was left out."""
    folder = with_known_model(tiny_causal, tmp_path / "model", marker)
    arguments = commands(folder, requests, tmp_path / "out.trec")["rerank"]
    done = rankllm(*arguments, "--free-decoding", stdin=YES)
    assert done.code == 0, done.err
    assert not marker.exists()
    said = (
        "contains custom code (config.json, custom_generate/generate.py), which is not run; transformers' own is used"
    )
    assert said in done.err


def test_the_option_runs_the_code_of_one_folder_and_says_so(rankllm, tiny_causal, tmp_path, requests, marker):
    """Allowed by name, for `rerank` and `prompts render`; reported before anything is ranked."""
    folder = with_own_model(tiny_causal, tmp_path / "model", marker)
    with_own_tokenizer(folder, tmp_path / "both", marker)
    arguments = commands(tmp_path / "both", requests, tmp_path / "out.trec")
    done = rankllm(*arguments["rerank"], "--trust-remote-code", "--max-queries", 1)
    assert done.code == 0, done.err
    assert marker.exists()
    assert f"--trust-remote-code: code from {tmp_path / 'both'} runs with your permissions (config.json, " in done.err
    assert "running its own code" in done.err
    marker.unlink()
    done = rankllm(*arguments["render"], "--trust-remote-code")
    assert done.code == 0, done.err
    assert "runs with your permissions" in done.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("owner/model", "allowed only for a local folder or a pinned revision, found 'owner/model'"),
        ("owner/model@main", "only for a local folder or a pinned revision"),
    ],
)
def test_the_option_is_for_a_folder_or_a_pinned_revision(tmp_path, monkeypatch, name, said, marker, tiny_causal):
    """What stands behind another name on the hub may change overnight."""
    folder = with_own_model(tiny_causal, tmp_path / "snapshot", marker)
    monkeypatch.setattr("rankllm_infer.checkpoints.hub._from_hub", lambda name, revision, *, weights: folder)
    with pytest.raises(ConfigError, match=said):
        check_remote_code(find_folder(name))
    model_files._check_once.cache_clear()
    assert check_remote_code(find_folder("owner/model@" + "0" * 40))


def test_code_from_another_repository_is_never_run(tiny_causal, tmp_path, marker):
    """A folder can refer to code elsewhere on the hub."""
    folder = with_own_model(tiny_causal, tmp_path / "model", marker)
    change_json(folder / "config.json", auto_map={"AutoConfig": "owner/other--modeling.Config"})
    with pytest.raises(ConfigError, match=r"auto_map refers to code in another repository \('owner/other--modeling"):
        check_remote_code(find_folder(str(folder)))


def test_the_option_without_effect_is_an_error(rankllm, tiny_causal, tmp_path, requests):
    """Where there is no code, with a server, and without a model."""
    arguments = commands(tiny_causal, requests, tmp_path / "out.trec")
    done = rankllm(*arguments["rerank"], "--trust-remote-code")
    assert (done.code, "has no effect" in done.err) == (1, True)
    with pytest.raises(ConfigError, match="--trust-remote-code has no effect with --engine openai"):
        RerankOptions(engine="openai", base_url="http://h/v1", trust_remote_code=True)
    done = rankllm("prompts", "render", "--requests", requests, "--trust-remote-code")
    assert (done.code, "has no effect without --model-path" in done.err) == (2, True)
    with pytest.raises(ConfigError, match=r"--vllm-arg trust_remote_code: .* use --trust-remote-code"):
        engine_arguments(["trust_remote_code=true"])


def test_a_run_is_known_by_the_option_and_the_code(tiny_causal, tmp_path, marker):
    """A journal of a run with other code is another run's."""
    from rankllm_infer.api import plan_reranking
    from rankllm_infer.jobs.fingerprint import run_settings

    folder = with_own_model(tiny_causal, tmp_path / "model", marker)
    options = RerankOptions(trust_remote_code=True)
    before = run_settings(plan_reranking(folder, options), requests="r")
    assert before["--trust-remote-code"] is True
    (folder / "modeling_own.py").write_text("other code")
    assert run_settings(plan_reranking(folder, options), requests="r")["model"] != before["model"]
