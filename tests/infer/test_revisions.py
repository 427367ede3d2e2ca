"""A hub model at a branch, tag or commit: which files are loaded, and when a revision does not apply."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from data_set_hub import commit_of, serving_models

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.checkpoints import hub
from rankllm_infer.checkpoints.model_files import check_remote_code, find_folder, locate_model
from rankllm_infer.checkpoints.model_identity import model_identity
from rankllm_infer.jobs.fingerprint import difference
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import plan_reranking

TAG, COMMIT = "v1.0", "ab" * 20


def model(hidden_size, **more):
    """Files of a model identified by its hidden size."""
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": hidden_size, **more}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": f"weights {hidden_size}".encode()}


HUB = {"o/m": {"main": model(16), TAG: model(32), "refs/pr/3": model(64)}, "o/terms": {"main": model(16)}}
HUB["o/lora"] = {"main": {"adapter_config.json": json.dumps({"base_model_name_or_path": "o/terms"}).encode()}}

FIND = """
import sys
from rankllm_core.errors import RankLLMError
from rankllm_infer.checkpoints.model_files import find_model, find_folder, ModelFiles
for word in sys.argv[1:]:
    name, _, revision = word.partition(" ")
    try:
        own = find_folder(name, revision or None)
        files = find_model(name) if own.adapter else ModelFiles(own=own, base=own)
        path = files.with_weights().own.path
        print(own.config["hidden_size"], path.name, (path / "model.safetensors").read_text())
    except RankLLMError as error:
        print(error)
"""


def find(*words, endpoint, cache, gated=()):
    """Result lines of a separate process with our hub, one for each "NAME" or "NAME REVISION"."""
    done = subprocess.run(
        [sys.executable, "-c", FIND, *words],
        capture_output=True,
        text=True,
        env=os.environ
        | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_the_files_are_those_of_the_revision(tmp_path):
    """A tag, a commit, a pull request, and the main branch by default; for small files and weights."""
    with serving_models(HUB) as (endpoint, _):
        words = ("o/m", f"o/m {TAG}", f"o/m {commit_of(TAG)}", f"o/m@{commit_of(TAG)}", "o/m refs/pr/3", "o/m v9")
        lines = find(*words, endpoint=endpoint, cache=tmp_path)
        tagged = f"32 {commit_of(TAG)} weights 32"
        assert lines[:5] == [
            f"16 {commit_of('main')} weights 16",
            tagged,
            tagged,
            tagged,
            f"64 {commit_of('refs/pr/3')} weights 64",
        ]
        assert lines[5] == (
            "o/m: revision v9 does not exist on the hub; expected a branch, a tag or a commit from "
            f"{endpoint}/o/m/commits"
        )
    # Without the hub, each revision is found where it was put.
    assert find("o/m", f"o/m {TAG}", endpoint="http://127.0.0.1:9", cache=tmp_path) == [lines[0], tagged]


def test_a_gated_model_says_where_to_accept_its_terms(tmp_path):
    """By itself, at a revision, and as the base of an adapter; its description is public."""
    with serving_models(HUB, gated=("o/terms",)) as (endpoint, _):
        own, revised, base = find("o/terms", "o/terms main", "o/lora", endpoint=endpoint, cache=tmp_path)
    expected = (
        f"o/terms: is gated; accept its terms at {endpoint}/o/terms with your account, then log in with: hf auth login"
    )
    assert own == revised == expected
    assert base == (
        f"o/lora: is an adapter, and its base model cannot be loaded ({expected}); specify the base's "
        "folder, or its name on the hub, with --base-model"
    )


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [
        (
            "smollm2-first",
            TAG,
            r"^--revision has no effect: smollm2-first is bundled with rankllm-infer; leave it out$",
        ),
        (f"o/m@{COMMIT}", TAG, rf"^--revision {TAG}: o/m@{COMMIT} is already pinned to a commit; give one of the two$"),
        ("o/m", "", r"^--revision '': expected the name of a branch or a tag, or a commit$"),
        ("o/m", "../../x", r"^--revision '../../x': expected the name of "),
        ("o/m", "a b", r"^--revision 'a b': expected the name of "),
    ],
)
def test_a_revision_that_means_nothing_is_refused(name, revision, said):
    """Before the hub is contacted."""
    with pytest.raises(ConfigError, match=said):
        locate_model(name, revision=revision)


def test_a_folder_has_no_revisions(tmp_path):
    """Nor do folders in the hub's cache that are given by path."""
    snapshot = tmp_path / "models--o--m" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^--revision has no effect on a local folder \(.*\); leave it out$"):
        find_folder(str(snapshot), TAG)
    assert find_folder(str(snapshot)).fetched().path == snapshot


def test_a_server_keeps_its_own_revision():
    """It is not ours to choose."""
    with pytest.raises(ConfigError, match=r"^--revision has no effect with --engine openai; leave it out$"):
        RerankOptions(engine="openai", base_url="http://h/v1", revision=TAG)


@pytest.mark.parametrize(
    "arguments",
    [("prompts", "render", "--requests", "r.jsonl", "--revision", TAG), ("demo", "--revision", TAG)],
    ids=["render", "demo"],
)
def test_a_revision_is_one_of_a_model(rankllm, tmp_path, arguments):
    """Commands without a model reject it."""
    requests = tmp_path / "r.jsonl"
    line = {"query": {"text": "q", "qid": "1"}, "candidates": [{"docid": "a", "score": 1, "doc": {"contents": "t"}}]}
    requests.write_text(json.dumps(line) + "\n", encoding="utf-8")
    done = rankllm(*(requests if word == "r.jsonl" else word for word in arguments))
    assert done.code == 2
    assert "--revision has no effect without --model-path" in done.err


@pytest.fixture
def snapshots(tmp_path, monkeypatch):
    """Revisions of a model as stored in the hub's cache: the branch `main` with its commit, and a tag."""
    commits = {None: "c0" * 20, "main": "c0" * 20, TAG: COMMIT, COMMIT: COMMIT}
    for commit in set(commits.values()):
        folder = tmp_path / "models--o--m" / "snapshots" / commit
        folder.mkdir(parents=True)
        config = {"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoConfig": "own.Config"}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def from_hub(name, revision, *, weights):
        if revision not in commits:
            raise RankLLMError(f"{name}: no revision {revision}")
        return tmp_path / "models--o--m" / "snapshots" / commits[revision]

    monkeypatch.setattr(hub, "_from_hub", from_hub)
    return commits


def test_a_run_is_known_by_the_commit_whatever_it_is_called(snapshots):
    """A branch and its commit are the same run; a run at another revision is rejected, naming it."""
    from rankllm_infer.jobs.fingerprint import run_settings

    def settings(name, revision=None):
        return run_settings(plan_reranking(name, RerankOptions(revision=revision)), requests="1 query")

    main, tagged = settings("o/m"), settings("o/m", TAG)
    assert settings("o/m", "main") == main
    assert settings("o/m", COMMIT) == settings(f"o/m@{COMMIT}") == tagged
    assert difference(main, tagged) == f'model was "m revision {"c0" * 20}", is "m revision {COMMIT}"'
    assert model_identity(find_folder("o/m", TAG)) == f"m revision {COMMIT}"


def test_only_a_whole_commit_is_a_pin_for_code(snapshots, monkeypatch, tmp_path):
    """A branch or tag can be moved to other code, whatever local folders exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o" / f"m@{TAG}").mkdir(parents=True)
    for revision in ("main", TAG):
        found = rf"found 'o/m@{revision}'; .* name it as OWNER/MODEL@COMMIT \(40 hexadecimal digits\)"
        with pytest.raises(ConfigError, match=found):
            check_remote_code(find_folder("o/m", revision))
    assert "runs with your permissions" in check_remote_code(find_folder("o/m", COMMIT))[0]


def test_weights_are_of_the_commit_whose_settings_were_read(snapshots):
    """The branch may move in between."""
    own = find_folder("o/m", "main")
    snapshots["main"] = COMMIT
    snapshots["c0" * 20] = "c0" * 20
    assert own.fetched().path.name == "c0" * 20
