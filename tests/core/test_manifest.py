"""A manifest detects every changed byte in a folder, names the file, and accepts an intact folder."""

from __future__ import annotations

import hashlib
import json
import random
import shutil

import pytest

from rankllm_core.errors import DataError
from rankllm_core.files.manifest import MANIFEST_NAME, FileEntry, find_damage, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    """A folder like a checkpoint: a binary file, a text file, an empty file, and one in a subfolder."""
    folder = tmp_path / "step_3"
    (folder / "global_step3").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(4000))
    (folder / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (folder / "empty.txt").touch()
    (folder / "global_step3" / "rank_0.pt").write_bytes(b"\x00" * 50)
    (folder / "README.md").write_text("# prose", encoding="utf-8")
    write_manifest(folder, step=3)
    return folder


def test_sizes_and_digests_are_those_of_the_files(folder):
    """SHA-256 as computed by hashlib; paths use `/`; the manifest itself and the model page are not listed."""
    found = read_manifest(folder)
    assert found.step == 3
    assert found.files == {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest())
        for name, content in (
            ("config.json", b'{"a": 1}'),
            ("empty.txt", b""),
            ("global_step3/rank_0.pt", b"\x00" * 50),
            ("model.safetensors", random.Random(1).randbytes(4000)),
        )
    }
    assert find_damage(folder) is None
    assert not list(folder.glob(".*"))


def test_a_digest_at_hand_is_not_computed_again(folder):
    """A digest passed by the caller is used unchanged."""
    known = {"config.json": FileEntry(8, "0" * 64)}
    assert write_manifest(folder, known=known).files["config.json"] == known["config.json"]


def test_every_flipped_bit_of_a_manifest_is_found(folder):
    """In a digest, a name, a number or whitespace."""
    path = folder / MANIFEST_NAME
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        assert str(find_damage(folder)).startswith(f"{MANIFEST_NAME}: "), position


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"files": {}}', b"[" * 100_000])
def test_what_is_no_manifest_is_one_line(folder, content):
    """An empty file, a truncated one, other JSON, not JSON."""
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(DataError, match=r"step_3/manifest\.json: is damaged"):
        read_manifest(folder)


def test_a_manifest_of_a_later_format_is_told_from_a_damaged_one(folder):
    """The user needs another version, not another copy."""
    (folder / MANIFEST_NAME).write_text('{"format": 2, "step": 1, "files": {}}', encoding="utf-8")
    assert find_damage(folder) == f"{MANIFEST_NAME}: expected format 1, found 2; update rankllm"


def test_a_missing_manifest_is_named(folder):
    """The manifest is written last, so the folder may be incomplete."""
    (folder / MANIFEST_NAME).unlink()
    assert find_damage(folder) == f"{MANIFEST_NAME}: is missing"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "global_step3/rank_0.pt"])
@pytest.mark.parametrize("kind", ["flip", "cut", "empty", "longer", "gone", "a folder"])
def test_a_damaged_file_is_named(folder, name, kind):
    """The error gives its path in the folder and what is wrong. Sizes alone detect everything but the flipped bit."""
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind != "gone":
        flipped = bytes([content[0] ^ 4]) + content[1:]
        path.write_bytes({"flip": flipped, "cut": content[:-1], "empty": b"", "longer": content + b"\0"}[kind])
    assert str(find_damage(folder)).startswith(f"{name}: is {'missing' if kind in ('gone', 'a folder') else 'damaged'}")
    assert (find_damage(folder, only_sizes=True) is None) == (kind == "flip")


def test_files_that_nobody_reads_are_nobodys_fault(folder):
    """The model page may be edited and a note added, but a file that would be loaded must be listed."""
    (folder / "README.md").write_text("# my own words", encoding="utf-8")
    (folder / "notes.txt").write_text("a good one", encoding="utf-8")
    assert find_damage(folder) is None
    (folder / "empty.txt").write_text("not any more", encoding="utf-8")

    def is_weight(name):
        return name.endswith((".safetensors", ".pt"))

    assert find_damage(folder, is_read=is_weight, is_loaded=is_weight) is None
    (folder / "global_step3" / "rank_1.pt").touch()
    found = find_damage(folder, is_read=is_weight, is_loaded=is_weight)
    assert found == "global_step3/rank_1.pt: is not listed in manifest.json; remove it"


def test_a_copy_is_as_good_as_the_original(folder, tmp_path):
    """Modification times and owners are not compared."""
    shutil.copytree(folder, tmp_path / "copy")
    assert find_damage(tmp_path / "copy") is None


def test_names_that_ascii_cannot_hold_come_back(tmp_path):
    """File names of a tokenizer may contain any characters."""
    (tmp_path / "wörter.txt").write_text("x", encoding="utf-8")
    write_manifest(tmp_path)
    assert set(read_manifest(tmp_path).files) == {"wörter.txt"}
    assert find_damage(tmp_path) is None
    assert json.loads((tmp_path / MANIFEST_NAME).read_bytes())["step"] is None
