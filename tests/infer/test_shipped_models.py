"""The two rerankers that come along: found by name, whole, and as good as docs/RESULTS.md says."""

from __future__ import annotations

import json
import statistics
import sys

import pytest
import yaml
from shared_files import REPOSITORY
from shared_files import data as shared_data

from rankllm_core.card import load_card
from rankllm_core.errors import RankLLMError
from rankllm_core.trec.qrels import read_qrels
from rankllm_core.trec.runs import read_run
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
    with pytest.raises(RankLLMError, match="smollm2-pointwise and smollm2-first are bundled"):
        locate_model("smollm2-pointwse")


def test_the_base_is_the_one_at_hand(smollm2_path, tmp_path):
    """Unpacked from its package; --base-model names another."""
    assert find_model(NAMES[0]).base.path == smollm2_path
    assert find_model(NAMES[0], str(tmp_path)).base.path == tmp_path


def test_without_the_package_the_base_is_the_hub_s(monkeypatch):
    """Where the weights cannot be read, they are not looked for."""
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert shipped_base() == BASE_MODEL


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
        for file in ("bm25.trec", "reranked.trec")
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
