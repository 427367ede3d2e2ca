"""The contents of the three packages' wheels, which are built and read here."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from importlib.metadata import PathDistribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from shared_files import REPOSITORY

import rankllm_core
import rankllm_infer
import rankllm_train

FOLDERS = {
    "rankllm-core": REPOSITORY / "shared/rankllm-core",
    "rankllm-infer": REPOSITORY / "packages/rankllm-infer",
    "rankllm-train": REPOSITORY / "packages/rankllm-train",
}
VERSIONS = {
    "rankllm-core": rankllm_core.__version__,
    "rankllm-infer": rankllm_infer.__version__,
    "rankllm-train": rankllm_train.__version__,
}
PROGRAMS = {
    "rankllm-core": {},
    "rankllm-infer": {"rankllm-infer": "rankllm_infer.cli:main"},
    "rankllm-train": {"train": "rankllm_train.cli:main", "rankllm-train": "rankllm_train.cli:main"},
}
EXTRAS = {
    "rankllm-core": set(),
    "rankllm-infer": {
        "datasets",
        "haystack",
        "langchain",
        "llama-index",
        "mcp",
        "openai",
        "pyserini",
        "pyterrier",
        "serve",
        "vllm",
    },
    "rankllm-train": {"deepspeed", "flash-attn"},
}
DATA = {
    "rankllm-core": {"py.typed", "templates/rank_zephyr.yaml", "cards/first_mistral.yaml"},
    "rankllm-infer": {
        "py.typed",
        "demo_data/corpus.jsonl",
        "demo_data/queries.tsv",
        "demo_data/qrels.txt",
        "models/about.yaml",
        *(
            f"models/{name}/{file}"
            for name in ("smollm2-first", "smollm2-pointwise")
            for file in ("adapter_config.json", "adapter_model.safetensors", "rankllm.yaml", "README.md")
        ),
    },
    "rankllm-train": {"py.typed"},
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, zipfile.Path]:
    """Each distribution's wheel. The build needs no more packages than the checkout, so uv has them."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, which builds the wheels")
    folder = tmp_path_factory.mktemp("wheels")
    build = [uv, "build", "--all-packages", "--wheel", "--offline", "--out-dir", str(folder)]
    done = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return {name: zipfile.Path(next(folder.glob(f"{name.replace('-', '_')}-*.whl"))) for name in FOLDERS}


@pytest.fixture(params=FOLDERS)
def name(request) -> str:
    return request.param


@pytest.fixture
def distribution(wheels, name) -> PathDistribution:
    """The metadata of one wheel."""
    info = next(entry for entry in wheels[name].iterdir() if entry.name.endswith(".dist-info"))
    return PathDistribution(info)


def requirements(distribution: PathDistribution) -> dict[str, Requirement]:
    """The dependencies of the wheel without extras, by name."""
    found = [Requirement(line) for line in distribution.requires or []]
    return {canonicalize_name(need.name): need for need in found if "extra" not in str(need.marker or "")}


def test_a_wheel_says_who_it_is(name, distribution):
    """Name, version, Python version, license; the version is the one `--version` prints."""
    metadata = distribution.metadata
    assert (metadata["Name"], metadata["Version"]) == (name, VERSIONS[name])
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.11", "Apache-2.0")
    assert metadata["Summary"]


def test_a_wheel_has_a_page_for_the_index(name, distribution):
    """The package's README with installation instructions."""
    page = str(distribution.metadata.get_payload())
    assert page.startswith(f"# {name}\n")
    assert f"pip install {name}" in page


def test_a_wheel_carries_the_licence(name, distribution):
    """The text in the repository root, unchanged."""
    carried = distribution.read_text("licenses/LICENSE")
    assert carried == (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def test_extras_have_the_documented_names(name, distribution):
    """Names of extras are a public interface."""
    assert set(distribution.metadata.get_all("Provides-Extra", [])) == EXTRAS[name]


def test_programs_have_the_documented_names(name, distribution):
    """Names of programs are a public interface; `train` and `rankllm-train` are the same program."""
    assert {script.name: script.value for script in distribution.entry_points} == PROGRAMS[name]


def test_the_core_needs_pyyaml_and_ftfy_only(wheels):
    """It installs within a second, without torch."""
    info = next(entry for entry in wheels["rankllm-core"].iterdir() if entry.name.endswith(".dist-info"))
    assert requirements(PathDistribution(info)).keys() == {"ftfy", "pyyaml"}


@pytest.mark.parametrize("name", ["rankllm-infer", "rankllm-train"])
def test_the_core_is_asked_for_in_a_bounded_range(distribution):
    """Distributions are released separately: the range has both bounds and includes the core of this checkout."""
    core = requirements(distribution)["rankllm-core"].specifier
    assert {bound.operator for bound in core} == {">=", "<"}
    assert core.contains(rankllm_core.__version__)


def test_a_wheel_names_no_place_on_this_machine(name, distribution):
    """Workspace sources are not part of the metadata: an index has names and versions only."""
    for line in distribution.requires or []:
        assert Requirement(line).url is None, line
    assert str(REPOSITORY) not in (distribution.read_text("METADATA") or "")
    assert distribution.read_text("direct_url.json") is None


def test_a_wheel_holds_its_package_and_nothing_else(wheels, name):
    """Every file of the source folder, including data, and the metadata."""
    package = name.replace("-", "_")
    source = FOLDERS[name] / "src"
    expected = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    expected = {path for path in expected if "__pycache__" not in path}
    with zipfile.ZipFile(str(wheels[name]).rstrip("/")) as archive:
        held = {path for path in archive.namelist() if ".dist-info/" not in path}
    assert held == expected
    assert held >= {f"{package}/{path}" for path in DATA[name]}


def test_a_wheel_can_be_found_on_an_index(name, distribution):
    """Authors without an invented address, keywords, classifiers; no unmonitored address."""
    metadata = distribution.metadata
    assert (metadata["Author"], metadata["Author-email"]) == ("rankllm contributors", None)
    assert "reranking" in metadata["Keywords"].split(",")
    classifiers = metadata.get_all("Classifier")
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(classifiers)
    assert not [line for line in classifiers if line.startswith("License ::")], "the licence has a field of its own"
    assert metadata.get_all("Project-URL") is None
