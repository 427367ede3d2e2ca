"""Files unpacked into the cache are checked against their checksums before use."""

from __future__ import annotations

import random
import shutil
import stat
import sys

import pytest

from rankllm_core.files.writing import umask
from rankllm_infer.checkpoints.unpacked_manifest import MANIFEST, damage, write_manifest


@pytest.fixture
def folder(tmp_path):
    """Two files and their manifest."""
    (tmp_path / "weights").write_bytes(random.Random(0).randbytes(3 << 20))
    (tmp_path / "config.json").write_text("{}")
    write_manifest(tmp_path)
    return tmp_path


def test_what_is_as_it_was_written_passes(folder):
    """Additional files are ignored."""
    (folder / "notes.txt").write_text("mine")
    assert damage(folder) == ""


@pytest.mark.parametrize("place", [0, 1 << 20, (3 << 20) - 1])
def test_one_flipped_bit_is_found(folder, place):
    """Wherever it is."""
    content = bytearray((folder / "weights").read_bytes())
    content[place] ^= 4
    (folder / "weights").write_bytes(content)
    assert damage(folder) == "weights has changed since it was written"


@pytest.mark.parametrize(
    ("manifest", "said"),
    [(None, "is missing"), (b"", "cannot be read"), (b"[]", "cannot be read"), (b"\xff", "cannot be read")],
)
def test_a_manifest_that_is_damaged_is_damage(folder, manifest, said):
    """Nothing is known about the files in that case."""
    (folder / MANIFEST).unlink()
    if manifest is not None:
        (folder / MANIFEST).write_bytes(manifest)
    assert damage(folder) == f"{MANIFEST} {said}"


@pytest.mark.parametrize("change", ["truncate", "unlink"])
def test_files_that_are_short_or_gone_are_found(folder, change):
    """A full disk, a cache cleaner."""
    if change == "unlink":
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text("")
    assert damage(folder) == "config.json has changed since it was written"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_the_demo_model_follows_the_umask_and_is_mended(tmp_path, monkeypatch, smollm2_path, caplog):
    """Unpacked with the permissions of the umask; unpacked again, with one line, if a byte has changed."""
    from rankllm_infer.checkpoints import demo_model

    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path))
    folder = tmp_path / smollm2_path.name
    shutil.copytree(smollm2_path, folder)
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:1_000_000] + bytes([good[1_000_000] ^ 1]) + good[1_000_001:])
    weights.chmod(0o600)
    demo_model._verified.cache_clear()
    try:
        assert demo_model.demo_model_path() == folder
    finally:
        demo_model._verified.cache_clear()
    assert weights.read_bytes() == good
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes.pop(folder.name) == 0o777 & ~umask()
    assert set(modes.values()) == {0o666 & ~umask()}
    assert list(tmp_path.iterdir()) == [folder]
    assert [record.getMessage() for record in caplog.records if record.name.endswith("demo_model")] == [
        f"{folder}: damaged (model.safetensors has changed since it was written); unpacking it again"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_folder_of_an_earlier_version_is_taken_over(tmp_path, monkeypatch, smollm2_path):
    """It has no checksums, and its weights are readable by the owner only."""
    from rankllm_infer.checkpoints import demo_model

    folder = tmp_path / smollm2_path.name
    shutil.copytree(smollm2_path, folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o600)
    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path))
    try:
        demo_model._verified.cache_clear()
        assert demo_model.demo_model_path() == folder
    finally:
        demo_model._verified.cache_clear()
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o666 & ~umask()
    assert damage(folder) == ""
