"""Real Pyserini on small indexes, in the environment made by `scripts/test-pyserini`; skipped elsewhere."""

from __future__ import annotations

import gzip
import importlib.util
import json

import pytest

NFCORPUS = "beir-v1.0.0-nfcorpus"


@pytest.fixture(scope="session", autouse=True)
def _pyserini_is_here():
    if importlib.util.find_spec("pyserini") is None:
        pytest.skip("needs Pyserini, which has an environment of its own: scripts/test-pyserini runs these tests")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Folder for the downloads of Pyserini and Anserini; set before Java starts."""
    home = tmp_path_factory.mktemp("home")
    offline = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9"
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("JAVA_HOME", raising=False)
        environment.setenv("JAVA_TOOL_OPTIONS", f"-Duser.home={home} {offline}")
        environment.setenv("PYSERINI_CACHE", str(home / ".cache" / "pyserini"))
        yield home


@pytest.fixture(scope="session")
def library(home):
    """Pyserini, started once, which takes about twenty seconds."""
    from rankllm_infer.retrieval.pyserini_library import PyseriniLibrary

    return PyseriniLibrary()


@pytest.fixture(scope="session")
def build(library, tmp_path_factory):
    """Index JSON documents with Anserini's command line; return the folder."""
    from jnius import autoclass

    def build(documents, *options):
        folder = tmp_path_factory.mktemp("lucene")
        (folder / "collection").mkdir()
        lines = "".join(json.dumps(document) + "\n" for document in documents)
        (folder / "collection" / "documents.jsonl").write_text(lines, encoding="utf-8")
        arguments = ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
        arguments += ["-input", str(folder / "collection"), "-index", str(folder / "index"), *options]
        autoclass("io.anserini.index.IndexCollection").main(arguments)
        return folder / "index"

    return build


@pytest.fixture(scope="session")
def pets(build):
    """Three documents with hand-computed BM25 scores, stored texts and term vectors."""
    documents = [
        {"id": "d1", "contents": "cat cat dog"},
        {"id": "d2", "contents": "dog bird"},
        {"id": "d3", "contents": "fish"},
    ]
    return build(documents, "-storeRaw", "-storeDocvectors")


@pytest.fixture(scope="session")
def prebuilt(home, build):
    """Cached files as after a download: an index under NFCorpus's name, its topics and judgements."""
    from pyserini.prebuilt_index_info import TF_INDEX_INFO

    documents = [
        {"_id": "MED-1", "id": "MED-1", "title": "Cats", "text": "they purr", "contents": "Cats they purr"},
        {"_id": "MED-2", "id": "MED-2", "title": "", "text": "dogs chase cats", "contents": "dogs chase cats"},
        {"_id": "MED-3", "id": "MED-3", "title": "Fish", "text": "they swim", "contents": "Fish they swim"},
    ]
    entry = TF_INDEX_INFO[f"{NFCORPUS}.flat"]
    name = entry["urls"][0].split("/")[-1].removesuffix(".tar.gz")
    folder = home / ".cache" / "pyserini" / "indexes"
    folder.mkdir(parents=True)
    build(documents, "-storeRaw").rename(folder / f"{name}.{entry['md5']}")
    files = home / ".cache" / "pyserini" / "topics-and-qrels"
    files.mkdir(parents=True)
    with gzip.open(files / f"topics.{NFCORPUS}.test.tsv.gz", "wt", encoding="utf-8") as stream:
        stream.write("PLAIN-1\tcats\nPLAIN-2\tfish\nPLAIN-3\tnobody judges this cat\n")
    (files / f"qrels.{NFCORPUS}.test.txt").write_text("PLAIN-1 0 MED-2 1\nPLAIN-2 0 MED-3 2\n", encoding="utf-8")
