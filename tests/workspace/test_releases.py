"""`scripts/release` refuses what would publish something wrong, and the workflow publishes what it tags.

`scripts/test-release` publishes for real, to an index on this machine.
"""

from __future__ import annotations

import fnmatch
import importlib
import subprocess

import pytest
import yaml
from shared_files import REPOSITORY

VERSIONS = {"rankllm-core": "0.1.0", "rankllm-infer": "0.1.0", "rankllm-train": "0.1.4"}
FILES = {
    "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [rankllm-infer 0.2.0] - 2026-12-01\n\n- New.\n"
    "\n## [rankllm-core 0.2.0, rankllm-train 0.1.4] - 2026-11-30\n",
    "uv.lock": "".join(f'[[package]]\nname = "{name}"\nversion = "{was}"\n\n' for name, was in VERSIONS.items()),
}


@pytest.fixture
def scripts(monkeypatch):
    """The modules of scripts/releases."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts" / "releases")
    return importlib.import_module("packages"), importlib.import_module("release")


@pytest.fixture
def checkout(scripts, tmp_path):
    """A repository with the three packages, two of them at 0.1.0, with everything committed."""
    packages, _ = scripts
    files = dict(FILES)
    for name, version in VERSIONS.items():
        needs = "" if name == "rankllm-core" else '"rankllm-core>=0.1.0,<0.2"'
        files[str(packages.settings_file(tmp_path, name).relative_to(tmp_path))] = (
            f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = [{needs}]\n'
        )
        files[str(packages.init_file(tmp_path, name).relative_to(tmp_path))] = f'__version__ = "{version}"\n'
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    for key, value in {
        "user.name": "a",
        "user.email": "a@b",
        "commit.gpgsign": "false",
        "tag.gpgsign": "false",
    }.items():
        git(tmp_path, "config", key, value)
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    return tmp_path


def git(folder, *words):
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_release_changes_one_package_and_tags_it(scripts, checkout):
    """Three lines in three files, one commit, one tag; other packages keep their versions."""
    packages, release = scripts
    assert release.release(checkout, "rankllm-infer", "0.2.0") == "rankllm-infer-v0.2.0"
    assert git(checkout, "tag", "--points-at", "HEAD") == "rankllm-infer-v0.2.0"
    assert git(checkout, "log", "-1", "--format=%s") == "Release rankllm-infer 0.2.0"
    assert git(checkout, "diff", "--shortstat", "HEAD~1") == "3 files changed, 3 insertions(+), 3 deletions(-)"
    now = {name: packages.current_version(checkout, name) for name in VERSIONS}
    assert now == VERSIONS | {"rankllm-infer": "0.2.0"}
    assert release.check_tag(checkout, "rankllm-infer-v0.2.0") == "rankllm-infer"


def test_a_version_that_is_set_already_is_tagged_as_it_is(scripts, checkout):
    """For the first release there is no commit, since nothing changes."""
    _, release = scripts
    before = git(checkout, "rev-parse", "HEAD")
    assert release.release(checkout, "rankllm-train", "0.1.4") == "rankllm-train-v0.1.4"
    assert git(checkout, "rev-parse", "HEAD") == before


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("rankllm", "0.2.0", "'rankllm': no such package; expected one of rankllm-core, rankllm-infer, rankllm-train"),
        ("rankllm-infer", "new", "version 'new': expected a version such as 0.2.0 or 0.2.0rc1"),
        ("rankllm-infer", "0.2.0-rc1", "version '0.2.0-rc1': write it in its normal form, 0.2.0rc1"),
        ("rankllm-infer", "0.0.9", "version 0.0.9: rankllm-infer is at 0.1.0 already; give a later one"),
        ("rankllm-infer", "0.2", "CHANGELOG.md: no heading '## [rankllm-infer 0.2] - YYYY-MM-DD'; "),
        ("rankllm-train", "0.2.0", "CHANGELOG.md: no heading '## [rankllm-train 0.2.0] - YYYY-MM-DD'; "),
        ("rankllm-core", "0.2.0", "packages/rankllm-infer/pyproject.toml: rankllm-core<0.2,>=0.1.0 excludes 0.2.0; "),
    ],
)
def test_a_wrong_release_is_refused_before_anything_changes(scripts, checkout, name, version, message):
    """The one-line error says what is wrong."""
    packages, release = scripts
    with pytest.raises(packages.ReleaseError) as error:
        release.release(checkout, name, version)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not git(checkout, "status", "--porcelain")
    assert not git(checkout, "tag")


def test_uncommitted_changes_and_a_used_tag_are_refused(scripts, checkout):
    """Only reviewed content is tagged, and a published version is never replaced."""
    packages, release = scripts
    (checkout / "new.txt").write_text("x", encoding="utf-8")
    with pytest.raises(packages.ReleaseError, match=r"uncommitted changes, such as '\?\? new.txt'"):
        release.release(checkout, "rankllm-infer", "0.2.0")
    (checkout / "new.txt").unlink()
    git(checkout, "tag", "rankllm-infer-v0.2.0")
    with pytest.raises(packages.ReleaseError, match=r"tag rankllm-infer-v0.2.0 exists"):
        release.release(checkout, "rankllm-infer", "0.2.0")


@pytest.mark.parametrize("tag", ["v0.2.0", "rankllm-v0.2.0", "rankllm-infer-v", "rankllm-infer-v0.3.0"])
def test_a_tag_that_does_not_fit_the_checkout_publishes_nothing(scripts, checkout, tag):
    """For example a tag created by hand."""
    packages, release = scripts
    with pytest.raises(packages.ReleaseError, match=tag):
        release.check_tag(checkout, tag)


def test_the_workflow_starts_on_the_tags_of_scripts_release(scripts):
    """Only tags of the packages start it, and only the upload step may request an identity."""
    packages, _ = scripts
    text = (REPOSITORY / ".github/workflows/release.yml").read_text(encoding="utf-8")
    workflow = yaml.load(text, Loader=yaml.BaseLoader)
    patterns = workflow["on"]["push"]["tags"]
    for name in packages.FOLDERS:
        assert [p for p in patterns if fnmatch.fnmatch(packages.tag_of(name, "1.2.3"), p)] == [f"{name}-v*"]
    assert not [p for p in patterns if fnmatch.fnmatch("v1.2.3", p)]
    rights = {job: settings["permissions"] for job, settings in workflow["jobs"].items()}
    assert rights == {"build": {"contents": "read"}, "publish": {"id-token": "write"}}
    assert "secrets." not in text


def test_issue_forms_have_what_the_platform_requires():
    """A form without name, description or body is not displayed; an input needs an ID and a label."""
    forms = sorted(REPOSITORY.glob(".github/ISSUE_TEMPLATE/*.yml"))
    forms = [form for form in forms if form.name != "config.yml"]
    assert len(forms) >= 3
    for form in forms:
        values = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert values["name"], form.name
        assert values["description"], form.name
        inputs = [part for part in values["body"] if part["type"] != "markdown"]
        assert {part["type"] for part in inputs} <= {"input", "textarea", "dropdown", "checkboxes"}
        assert len({part["id"] for part in inputs}) == len(inputs) > 0
        assert all(part["attributes"]["label"] for part in inputs)


def test_the_citation_names_what_the_packages_name():
    """Authors and license in CITATION.cff match the metadata."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys(), "required by the format, version 1.2.0"
    assert citation["authors"] == [{"name": "rankllm contributors"}]
    assert citation["license"] == "Apache-2.0"
