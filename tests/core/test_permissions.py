"""Files that a library created for their owner only get the permissions of the umask."""

from __future__ import annotations

import os
import stat
import sys

import pytest

from rankllm_core.files.writing import follow_umask, umask

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


@pytest.fixture
def masked():
    """Set a umask for one test."""
    before = umask()
    yield os.umask
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_a_folder_and_all_in_it_follow_the_umask(tmp_path, masked, mask, file, folder):
    """Expected: the modes that `open` and `mkdir` give under the same umask."""
    inner = tmp_path / "model" / "step_1"
    inner.mkdir(parents=True)
    weights = inner / "model.safetensors"
    weights.write_bytes(b"")
    weights.chmod(0o600)
    inner.chmod(0o700)
    masked(mask)
    follow_umask(tmp_path / "model")
    assert (mode(weights), mode(inner), mode(tmp_path / "model")) == (file, folder, folder)
    (tmp_path / "plain").write_bytes(b"")
    assert mode(weights) == mode(tmp_path / "plain")


def test_a_single_file_follows_the_umask(tmp_path, masked):
    """For example `adapter_model.safetensors`."""
    masked(0o027)
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "a").chmod(0o600)
    follow_umask(str(tmp_path / "a"))
    assert mode(tmp_path / "a") == 0o640


def test_a_script_stays_executable_and_links_are_left_alone(tmp_path, masked):
    """The target of a link may belong to another user."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    outside.chmod(0o600)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "run").write_bytes(b"")
    (folder / "run").chmod(0o700)
    (folder / "link").symlink_to(outside)
    (folder / "broken").symlink_to("nowhere")
    masked(0o022)
    follow_umask(folder)
    assert mode(folder / "run") == 0o755
    assert mode(outside) == 0o600


def test_what_is_missing_is_an_error(tmp_path):
    """A misspelled path is not ignored."""
    with pytest.raises(FileNotFoundError):
        follow_umask(tmp_path / "nowhere")


def test_asking_for_the_umask_does_not_change_it(masked):
    """The umask is restored after reading."""
    masked(0o037)
    assert umask() == 0o037
    assert os.umask(0o022) == 0o037
