"""Files appear complete, under the requested name, as the last step."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file, sync_folder, write_text
from rankllm_core.files.manifest import sha256_file


def write(path, text="new\n"):
    """Write a text."""
    with write_text(path) as stream:
        stream.write(text)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="asks /proc which file a handle is")
def test_a_file_is_synced_before_its_name_and_its_folder_after(tmp_path, monkeypatch):
    """Otherwise a power failure could leave an empty or the old file under the name."""
    events = []
    sync, replace = os.fsync, os.replace

    def noting_sync(handle):
        events.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    def noting_replace(old, new):
        events.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write(tmp_path / "out")
    file, rename, folder = events
    assert file.endswith(".part")
    assert rename == "rename"
    assert folder == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_what_was_written_is_there(tmp_path, name):
    """Compressed according to the name; compressed output is reproducible, since it contains no date."""
    write(tmp_path / name, "größe\n")
    data = (tmp_path / name).read_bytes()
    assert (gzip.decompress(data) if name.endswith("gz") else data) == "größe\n".encode()
    write(tmp_path / name, "größe\n")
    assert (tmp_path / name).read_bytes() == data


def test_nothing_is_left_where_writing_fails(tmp_path):
    """The old file is kept."""
    write(tmp_path / "out", "old\n")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "out", "new\ud800\n")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "old\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_link_is_followed_and_stays(tmp_path):
    """Its target is replaced in the target's folder; a missing target is created."""
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "out")
    for text in ("one\n", "two\n"):
        check_output(link, overwrite=True)
        write(link, text)
        assert link.is_symlink()
        assert (tmp_path / "far" / "out").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "name of an output file is empty"),
        ("x" * 256, "name has 256 bytes, expected at most 255"),
        ("é" * 128, "name has 256 bytes, expected at most 255"),
        ("x" * 300 + "/out", "name has 300 bytes"),
        ("a\x00b", "null character"),
        ("/".join(["x" * 200] * 30), "File name too long"),
        ("out.xz", "writing .xz is not supported"),
        ("out.bz2", "writing .bz2 is not supported"),
        ("out.zst", "writing .zst is not supported"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(tmp_path, monkeypatch, name, message):
    """Checked before the work begins, and again when the file is written."""
    monkeypatch.chdir(tmp_path)
    for act in (lambda: check_output(name, overwrite=True), lambda: write(name)):
        with pytest.raises(RankLLMError) as caught:
            act()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_longest_name_is_written(tmp_path):
    """The temporary name is not longer than the final one."""
    for name in ("x" * 255, "y" * 252 + ".gz"):
        check_output(tmp_path / name, overwrite=False)
        write(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_loop_of_links_is_one_line(tmp_path):
    """Reading it is also an error."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(RankLLMError):
        write(tmp_path / "a")
    refuse_same_file(tmp_path / "a", tmp_path / "b")


def test_a_full_disk_is_one_line(tmp_path):
    """The error names the file, and no partial file remains."""
    with pytest.raises(RankLLMError, match=r"out: cannot be written \(No space left"), write_text(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_cannot_be_synced(tmp_path):
    """A missing folder is not ignored."""
    sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")


def test_checksums_are_the_known_ones(tmp_path):
    """SHA-256 of the empty text (FIPS 180-4), and of a text longer than one block."""
    (tmp_path / "f").write_bytes(b"")
    assert sha256_file(tmp_path / "f") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()
