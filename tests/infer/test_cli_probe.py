"""`rerank --verify`, `probe` and `doctor --model-path`: what a user sees of a model's probe."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from probed_models import CARDS, change_weights, keep_probe, load, small_tokenizer  # noqa: E402
from tiny_models import change_json, save_causal, save_classifier  # noqa: E402

from rankllm_core.card import load_card, save_card  # noqa: E402
from rankllm_core.files.manifest import find_damage, write_manifest  # noqa: E402
from rankllm_infer import probing  # noqa: E402
from rankllm_infer.checkpoints.model_files import find_model  # noqa: E402

ON_CPU = ("--dtype", "float32", "--device", "cpu")
TEXTS = ("cats sleep", "dogs bark", "rain falls")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A pointwise model whose card holds no probe."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    save_classifier(folder, small_tokenizer())
    save_card(CARDS["head"], folder)
    return folder


@pytest.fixture(scope="module")
def probed(plain):
    """The same with one."""
    folder = shutil.copytree(plain, plain.with_name("probed"))
    keep_probe(folder)
    return folder


@pytest.fixture
def wrong(probed, tmp_path):
    """The same with a score layer turned round."""
    folder = shutil.copytree(probed, tmp_path / "wrong")
    change_weights(folder, lambda name, tensor: -tensor if name == "score.weight" else tensor)
    return folder


@pytest.fixture
def requests(tmp_path):
    """One query with three passages."""
    candidates = [{"docid": f"d{i}", "score": -i, "doc": {"text": text}} for i, text in enumerate(TEXTS)]
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps({"query": {"qid": "q", "text": "what do cats do"}, "candidates": candidates}) + "\n")
    return path


@pytest.fixture
def rerank(rankllm, requests, tmp_path):
    """Rerank the requests, and give what was said."""

    def run(model, *arguments, output="out.trec"):
        files = ("--requests", requests, "--output", tmp_path / output)
        done = rankllm("rerank", "--model-path", model, *files, *ON_CPU, *arguments)
        assert done.code == 0, done.err
        return done.err

    return run


MISMATCH = "Warning: the model's scores differ from those recorded in its card (probe): query '"


def test_rerank_warns_of_a_wrong_model_and_goes_on(rerank, wrong, tmp_path):
    """By default for a small model; the run is written all the same."""
    said = rerank(wrong)
    assert said.count(MISMATCH) == 1
    assert len((tmp_path / "out.trec").read_text().splitlines()) == 3


def test_no_verify_is_silent(rerank, wrong):
    """And so is the right model."""
    assert "Warning" not in rerank(wrong, "--no-verify")


@pytest.mark.parametrize("arguments", [(), ("--verify",), ("--no-verify",)])
def test_the_right_model_is_silent_and_its_scores_stay(rerank, probed, plain, tmp_path, arguments):
    """To the byte those of the same model without a probe."""
    assert "Warning" not in rerank(probed, *arguments)
    rerank(plain, output="plain.trec")
    assert (tmp_path / "out.trec").read_bytes() == (tmp_path / "plain.trec").read_bytes()


def test_verify_without_a_probe_says_that_there_is_none(rerank, plain):
    """In one line, where it was asked for; else nothing."""
    expected = (
        "Warning: --verify: the model's card contains no probe to compare with; record one with `rankllm-infer probe`\n"
    )
    assert expected in rerank(plain, "--verify")
    assert "Warning" not in rerank(plain, "--overwrite")


def test_a_large_model_is_verified_only_where_that_is_asked(rerank, wrong, monkeypatch):
    """The bound is 1B parameters; here it is moved below a tiny model's."""
    n = probing.n_parameters(find_model(str(wrong)))
    # Embeddings; of two layers q and o, k and v, three of the MLP and two norms; the last norm and the score.
    vocabulary, d, kv = 49152, 32, 16
    assert n == vocabulary * d + 2 * (2 * d * d + 2 * d * kv + 3 * d * 2 * d + 2 * d) + d + d
    assert probing.VERIFIED_PARAMETERS == 10**9
    monkeypatch.setattr(probing, "VERIFIED_PARAMETERS", n)
    assert MISMATCH in rerank(wrong)
    monkeypatch.setattr(probing, "VERIFIED_PARAMETERS", n - 1)
    assert "Warning" not in rerank(wrong, "--overwrite")
    assert MISMATCH in rerank(wrong, "--overwrite", "--verify")


def test_a_probe_that_cannot_be_asked_is_one_warning(tmp_path):
    """Its prompts may be longer than what the model has become; nothing is claimed then."""
    save_causal(tmp_path, small_tokenizer(), max_position_embeddings=2048)
    save_card(CARDS["FIRST"], tmp_path)
    keep_probe(tmp_path)
    change_json(tmp_path / "config.json", max_position_embeddings=128)
    with load(tmp_path) as reranker:
        (warning,) = [warning for warning in reranker.warnings if "probe" in warning]
    assert warning.startswith(
        "the model could not be verified with the probe in its card: query 'probe-1': the prompt and"
    )
    assert "the model has 128 positions" in warning


def test_a_server_cannot_be_verified(rankllm, requests, tmp_path):
    """It reports no logits, and has no card of its own."""
    server = ("--engine", "openai", "--base-url", "http://127.0.0.1:9/v1")
    files = ("--requests", requests, "--output", tmp_path / "o.trec")
    done = rankllm("rerank", "--model-path", "m", *files, *server, "--verify")
    assert done.code == 2
    assert "Error: --verify has no effect with --engine openai; leave it out" in done.err


def test_a_probe_recorded_later_does_not_end_a_run(probed, plain):
    """It says nothing of how the model is prompted."""
    from rankllm_infer.jobs.fingerprint import changed_names, run_settings
    from rankllm_infer.plan import plan_reranking

    settings = [run_settings(plan_reranking(folder), requests="r") for folder in (plain, probed)]
    assert changed_names(*settings) == ["model"]  # the name of its folder


def test_verifying_leaves_a_reranker_as_it_was(probed):
    """The scores of requests before and behind it are the same; from Python it is a method."""
    from rankllm_infer import make_request

    request = make_request("what do cats do", list(TEXTS))
    with load(probed, verify=False) as reranker:
        before = reranker.rerank([request])
        assert reranker.verify().agrees
        assert reranker.record_probe() == reranker.card.probe
        assert reranker.rerank([request]) == before
    with pytest.raises(Exception, match="the reranker is closed"):
        reranker.verify()


def test_probe_writes_a_card_that_rerank_verifies(rankllm, rerank, plain, tmp_path):
    """Into the model's folder, whose manifest stays true, or to a file."""
    folder = shutil.copytree(plain, tmp_path / "model")
    write_manifest(folder, step=7)
    done = rankllm("probe", "--model-path", folder, "--write", *ON_CPU)
    assert (done.code, done.err.splitlines()[-1]) == (0, f"Wrote {folder / 'rankllm.yaml'}")
    assert done.out.startswith("Scores in float32\nhow do plants make their food\n")
    assert find_damage(folder) is None
    card = load_card(folder)
    assert replace(card, probe=None) == CARDS["head"]
    assert "Warning" not in rerank(folder, "--verify")
    file = tmp_path / "card.yaml"
    assert rankllm("probe", "--model-path", plain, "--output", file, *ON_CPU).code == 0
    assert file.read_bytes() == (folder / "rankllm.yaml").read_bytes()
    assert not (plain / "rankllm.yaml").read_text().count("probe")


def test_probe_keeps_the_prompt_it_was_recorded_with(rankllm, plain, tmp_path):
    """The card in force, options included."""
    file = tmp_path / "card.yaml"
    prompt = ("--prompt-template-path", "rankllama-v2", "--q-max-len", 20, "--p-max-len", 100)
    assert rankllm("probe", "--model-path", plain, "--output", file, *prompt, *ON_CPU).code == 0
    shutil.copytree(plain, tmp_path / "m")
    shutil.copy(file, tmp_path / "m" / "rankllm.yaml")
    card = load_card(tmp_path / "m")
    assert (card.template.name, card.query_tokens, card.passage_tokens) == ("rankllama-v2", 20, 100)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--write", "--output", "x.yaml"), 2, "--write and --output contradict each other; give one of them"),
        (("--write",), 1, "rankllm.yaml already contains a probe; use --overwrite to replace it"),
        (("--output", "."), 1, ".: expected an output file, found a folder"),
        (("--engine", "openai"), 2, "Invalid value for '--engine': 'openai' is not one of 'transformers', 'vllm'."),
        (("--use-logits",), 1, "--use-logits has no effect on a pointwise reranker; leave it out"),
    ],
)
def test_misuse_of_probe_is_one_line(rankllm, probed, tmp_path, monkeypatch, arguments, code, message):
    """Before a model is loaded."""
    monkeypatch.chdir(tmp_path)
    done = rankllm("probe", "--model-path", probed, *arguments)
    assert done.code == code
    assert done.err.splitlines()[-1].endswith(message)
    assert "Loading" not in done.err


def test_a_model_of_the_hub_has_no_folder_to_write_to(rankllm):
    """Its cache is not the user's to change."""
    done = rankllm("probe", "--model-path", "smollm2-first", "--write")
    assert done.code == 1
    assert (
        "--write: smollm2-first is not a local folder, so the card cannot be stored there; use --output FILE"
        in done.err
    )


def test_doctor_verifies_a_model(rankllm, probed, plain, wrong):
    """Its outcome is a line for people and a record for programs; the status tells scripts."""
    done = rankllm("doctor", "--model-path", probed, *ON_CPU)
    assert done.code == 0
    assert done.out.splitlines()[-1] == f"  probe: scores agree within 0 (tolerance {tolerance(probed)})"
    done = rankllm("doctor", "--model-path", wrong, *ON_CPU)
    assert done.code == 1
    assert "  probe: the model's scores differ from those recorded in its card (probe): query" in done.out
    done = rankllm("doctor", "--model-path", plain, *ON_CPU)
    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        "  probe: the card contains none; record one with `rankllm-infer probe`",
    )


def tolerance(folder):
    """By hand: 0.001 + 0.0001 times the largest score."""
    largest = max(abs(score) for query in load_card(folder).probe.queries for score in query.scores)
    return f"{0.001 + 0.0001 * largest:.2g}"


def test_doctor_s_record_holds_both_probes(rankllm, wrong):
    """With the scores that were recorded and those that were found."""
    model = json.loads(rankllm("doctor", "--json", "--model-path", wrong, *ON_CPU).out)["model"]
    assert model["verified"] is False
    recorded, found = (model[name]["queries"][0]["scores"] for name in ("recorded", "found"))
    assert found == pytest.approx([-score for score in recorded], abs=1e-4)
    assert model["difference"] > model["tolerance"]


def test_doctor_without_a_model_refuses_a_model_s_options(rankllm):
    """Instead of examining something else than what was asked for."""
    done = rankllm("doctor", "--dtype", "float32")
    assert done.code == 2
    assert "Error: --dtype has no effect without --model-path" in done.err
