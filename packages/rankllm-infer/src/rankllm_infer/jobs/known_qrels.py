"""Judgements of test collections known by name: where their files are searched for and where to download them.

Nothing is downloaded: judgements are small, and users should know which ones are used.
"""

from __future__ import annotations

import os
from pathlib import Path

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.retrieval.dataset_retrieval import default_folder, qrels_json
from rankllm_infer.retrieval.retrieval_data import Dataset, find_dataset

_NIST = "https://trec.nist.gov/data/deep/"
_SOURCES = {
    "dl19-passage": f"{_NIST}2019qrels-pass.txt",
    "dl20-passage": f"{_NIST}2020qrels-pass.txt",
    "dl21-passage": f"{_NIST}2021.qrels.pass.final.txt",
    "dl22-passage": f"{_NIST}2022.qrels.pass.withDupes.txt",
    "dl23-passage": f"{_NIST}2023.qrels.pass.withDupes.txt",
    "msmarco-passage-dev-subset": "https://msmarco.z22.web.core.windows.net/msmarcoranking/qrels.dev.small.tsv",
}
"""Pyserini's name of judgements -> URL.

Source: allenai/ir_datasets@6a429ed ir_datasets/etc/downloads.json; for 2023 trec.nist.gov itself.
"""
_BEIR, _MRTYDI = "beir-v1.0.0-", "mrtydi-"


def find_qrels(name: str) -> Path:
    """Return the file of judgements of a test collection, by any of its names.

    Searches for `qrels.NAME.txt` in the current folder, in `qrels` and in Pyserini's folder; then for rank_llm's
    `qrels/qrels_DATASET.json`. Raises RankLLMError for an unknown name, and with the download URL if no file is
    found.
    """
    dataset = _dataset(name)
    pyserini_name = name if dataset is None else dataset.qrels
    file = f"qrels.{pyserini_name}.txt"
    folders = [Path(), Path("qrels"), *_pyserini_folders()]
    found = [path for folder in folders if (path := folder / file).is_file()]
    if dataset is not None and (stored := qrels_json(dataset, default_folder())).is_file():
        found.append(stored)
    if found:
        return found[0]
    raise RankLLMError(
        f"{name}: a known test collection, but its judgements were not found (no {file} in this folder, in qrels or in "
        f"{folders[-1]}); download {_source(pyserini_name)} and save it as {file}, or use --qrels FILE"
    )


def _dataset(name: str) -> Dataset | None:
    if name in _SOURCES and not name.startswith("dl"):
        return None
    try:
        return find_dataset(name)
    except ConfigError:
        known = f"{', '.join(_SOURCES)}, beir-NAME or mrtydi-LANGUAGE"
        raise RankLLMError(f"{name}: no such file and no such test collection (known: {known})") from None


def _pyserini_folders() -> list[Path]:
    """Return the folders in which releases of Pyserini store downloaded judgements."""
    cache = os.environ.get("PYSERINI_CACHE")
    homes = [*([Path(cache)] if cache else []), Path.home() / ".cache" / "pyserini"]
    return [home / "topics-and-qrels" for home in homes]


def _source(name: str) -> str:
    if name.startswith(_BEIR):
        beir = name.removeprefix(_BEIR).removesuffix("-test")
        return f"test.tsv from https://huggingface.co/datasets/BeIR/{beir}-qrels"
    if name.startswith(_MRTYDI):
        return "its qrels from https://github.com/castorini/mr.tydi"
    return _SOURCES[name]
