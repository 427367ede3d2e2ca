"""Which files of a repository contain a split, determined from their names."""

from __future__ import annotations

import pytest

from rankllm_core.checkpoints.hub_files import FolderRepository, fetch_split, is_refused_script, split_files
from rankllm_core.errors import RankLLMError

MSMARCO = (".gitattributes", "README.md", "msmarco-passage.py", "train.jsonl.gz", "dev.jsonl.gz", "dl19.jsonl.gz")
PARTS = ("README.md", "beir.py", "scifact/test.jsonl.gz", "scifact/train.jsonl.gz", "fiqa/test.jsonl.gz", "nq.jsonl.gz")


@pytest.mark.parametrize(
    ("names", "split", "config", "found"),
    [
        (MSMARCO, "train", "", ("train.jsonl.gz",)),
        (MSMARCO, "dl19", "", ("dl19.jsonl.gz",)),
        (MSMARCO, "dl20", "", ()),
        (("README.md", "c.py", "corpus.jsonl.gz", "dataset_infos.json"), "train", "", ("corpus.jsonl.gz",)),
        (("corpus.jsonl.gz",), "dev", "", ()),
        (("dev.jsonl.gz",), "train", "", ()),
        (("data/test-0.json",), "train", "", ()),
        (("a.jsonl", "b.jsonl"), "train", "", ()),
        (("dev-00001-of-00002.json", "dev-00000-of-00002.json"), "dev", "", None),
        (("data/corpus_0.jsonl.xz", "data/corpus_1.jsonl.xz"), "train", "", None),
        (("train/b.jsonl", "train/a.jsonl", "test/a.jsonl"), "train", "", ("train/a.jsonl", "train/b.jsonl")),
        (("train.json", "train.parquet", "train.jsonl.gz"), "train", "", ("train.json",)),
        (("default/train/0000.parquet", "default/partial-train/0000.parquet"), "train", "", None),
        (("default/partial-train/0000.parquet", "default/test/0000.parquet"), "train", "", ()),
        (("default/test/0.parquet", "other/test/0.parquet"), "test", "", ("default/test/0.parquet",)),
        (PARTS, "test", "", ()),
        (PARTS, "test", "scifact", ("scifact/test.jsonl.gz",)),
        (PARTS, "train", "nq", ("nq.jsonl.gz",)),
        (PARTS, "test", "trec-covid", ()),
        ((".cache/train.jsonl", "train.txt", "train.jsonl.lock"), "train", "", ()),
    ],
)
def test_a_split_is_the_files_named_for_it(names, split, config, found):
    """The originals' layout, shards, folders, parts; ambiguous names are never guessed."""
    if found is None:
        found = tuple(sorted(name for name in names if "partial" not in name))
    assert split_files(names, split=split, config=config) == found


def test_a_cloned_repository_gives_the_paths_of_its_files(tmp_path):
    """Hidden folders such as .git are not data."""
    for name in ("set.py", "dev.jsonl", ".git/dev.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert fetch_split(FolderRepository(tmp_path), split="dev") == (tmp_path / "dev.jsonl",)


def test_a_split_that_no_file_is_named_for_is_told_with_the_files_there_are(tmp_path):
    """The error lists the files and says what to do."""
    for name in ("set.py", "dev.jsonl.gz", "train.jsonl.gz"):
        (tmp_path / name).write_text("")
    with pytest.raises(RankLLMError) as caught:
        fetch_split(FolderRepository(tmp_path), split="dl19")
    assert "no data file named for the split 'dl19' (dev.jsonl.gz, train.jsonl.gz)" in str(caught.value)
    assert "give its path" in str(caught.value)


def test_only_a_script_is_refused_as_a_script():
    """Other errors of `datasets` keep their message."""
    assert is_refused_script(RuntimeError("Dataset scripts are no longer supported, but found superb.py"))
    assert not is_refused_script(RuntimeError("CUDA error"))
    assert not is_refused_script(ValueError("Dataset scripts are no longer supported, but found superb.py"))
