"""Datasets and first stages known by name, with their Pyserini indexes, topics and judgements.

Source: castorini/rank_llm@1b3cabb src/rank_llm/retrieve for its names of datasets, methods and folders; the tables of
Pyserini 1.6.0 (prebuilt_index_info, topics_mapping, qrels_mapping) for what they refer to.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rankllm_core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """First-stage retrieval method."""

    name: str
    """Name on rank_llm's command line."""
    folder: str
    """Folder of its results in rank_llm, and key of `indexes` of a dataset."""
    aliases: tuple[str, ...] = ()
    kind: Literal["bm25", "impact", "stored"]
    """How to search: with BM25, with learned term weights, or not at all (only stored results can be read)."""
    has_feedback: bool = False
    """True if RM3 expands the query."""
    encoder: str | None = None
    """For impact: model that turns a query into weighted terms."""
    encoder_type: Literal["onnx", "pytorch"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Test collection known by name."""

    name: str
    """Name on rank_llm's command line and in its file names."""
    topics: str
    qrels: str
    aliases: tuple[str, ...] = ()
    indexes: Mapping[str, str] = field(default_factory=dict)
    """Folder of a method -> name of the prebuilt index."""
    language: str | None = None
    """Language of the analyzer, if not English."""

    @property
    def texts(self) -> str:
        """Index that contains the passages."""
        return self.indexes["BM25"]


METHODS = (
    Method(name="bm25", folder="BM25", kind="bm25"),
    Method(name="bm25_rm3", folder="BM25_RM3", aliases=("bm25+rm3",), kind="bm25", has_feedback=True),
    Method(
        name="SPLADE++_EnsembleDistil_ONNX",
        folder="SPLADE_P_P_ENSEMBLE_DISTIL",
        aliases=("splade++", "splade-pp-ed"),
        kind="impact",
        encoder="SpladePlusPlusEnsembleDistil",
        encoder_type="onnx",
    ),
    Method(name="splade_v3", folder="SPLADE_V3", kind="impact", encoder="naver/splade-v3", encoder_type="pytorch"),
    Method(name="distilbert_tas_b", folder="D_BERT_KD_TASB", kind="stored"),
    Method(name="openai-ada2", folder="OPEN_AI_ADA2", kind="stored"),
    Method(name="rep-llama", folder="REP_LLAMA", kind="stored"),
)

_BEIR = {
    "covid": "trec-covid",
    "bioasq": "bioasq",
    "nfc": "nfcorpus",
    "nq": "nq",
    "hotpotqa": "hotpotqa",
    "fiqa": "fiqa",
    "signal": "signal1m",
    "news": "trec-news",
    "robust04": "robust04",
    "arguana": "arguana",
    "touche": "webis-touche2020",
    "quora": "quora",
    "dbpedia": "dbpedia-entity",
    "scidocs": "scidocs",
    "fever": "fever",
    "climate-fever": "climate-fever",
    "scifact": "scifact",
} | {
    f"cqadupstack-{forum}": f"cqadupstack-{forum}"
    for forum in (
        *("android", "english", "gaming", "gis", "mathematica", "physics"),
        *("programmers", "stats", "tex", "unix", "webmasters", "wordpress"),
    )
}
"""rank_llm's name -> BEIR's name."""
_MRTYDI = {
    "ar": "arabic",
    "bn": "bengali",
    "en": "english",
    "fi": "finnish",
    "id": "indonesian",
    "ja": "japanese",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
    "th": "thai",
}


def _deep_learning(year: int) -> Dataset:
    name = f"dl{year}"
    version = 1 if year <= 20 else 2
    indexes = {"BM25": f"msmarco-v{version}-passage"}
    indexes["BM25_RM3"] = indexes["BM25"]
    if version == 1:  # Pyserini has no SPLADE index for MS MARCO v2.
        indexes["SPLADE_P_P_ENSEMBLE_DISTIL"] = "msmarco-v1-passage.splade-pp-ed-text"
        indexes["SPLADE_V3"] = "msmarco-v1-passage.splade-v3"
    topics = f"{name}-passage" if version == 1 else name
    return Dataset(name=name, topics=topics, qrels=f"{name}-passage", aliases=(f"{name}-passage",), indexes=indexes)


def _beir(name: str, beir_name: str) -> Dataset:
    stem = f"beir-v1.0.0-{beir_name}"
    return Dataset(
        name=name,
        topics=f"{stem}-test",
        qrels=f"{stem}-test",
        aliases=(f"beir-{beir_name}", stem, f"{stem}-test", beir_name),
        # RM3 needs term vectors, which flat indexes lack.
        indexes={
            "BM25": f"{stem}.flat",
            "SPLADE_P_P_ENSEMBLE_DISTIL": f"{stem}.splade-pp-ed",
            "SPLADE_V3": f"{stem}.splade-v3",
        },
    )


def _mrtydi(code: str, language: str) -> Dataset:
    stem = f"mrtydi-v1.1-{language}"
    return Dataset(
        name=f"mrtydi-{code}",
        topics=f"{stem}-test",
        qrels=f"{stem}-test",
        aliases=(f"{stem}-test",),
        indexes={"BM25": stem},
        language=None if code == "en" else code,
    )


DATASETS = (
    *(_deep_learning(year) for year in range(19, 24)),
    *(_beir(name, beir_name) for name, beir_name in _BEIR.items()),
    *(_mrtydi(code, language) for code, language in _MRTYDI.items()),
)


def find_dataset(name: str) -> Dataset:
    """Find a dataset by name, ignoring case. Raises ConfigError naming the nearest match and all known names."""
    known = {_plain(alias): dataset for dataset in DATASETS for alias in (dataset.name, *dataset.aliases)}
    if (found := known.get(_plain(name))) is not None:
        return found
    raise ConfigError(f"dataset {name!r}: unknown; {_hint(name, known, (dataset.name for dataset in DATASETS))}")


def find_method(name: str) -> Method:
    """Find a first stage by name, ignoring case. Raises ConfigError naming the nearest match and all known names."""
    known = {_plain(alias): method for method in METHODS for alias in (method.name, method.folder, *method.aliases)}
    if (found := known.get(_plain(name))) is not None:
        return found
    raise ConfigError(f"retrieval method {name!r}: unknown; {_hint(name, known, (method.name for method in METHODS))}")


def index_of(dataset: Dataset, method: Method) -> str:
    """Return the prebuilt index to search. Raises ConfigError if Pyserini has none for the method."""
    if (index := dataset.indexes.get(method.folder)) is not None:
        return index
    can = ", ".join(method.name for method in METHODS if method.folder in dataset.indexes)
    why = "is available only as stored results" if method.kind == "stored" else "has no prebuilt index"
    raise ConfigError(f"retrieval method {method.name} {why} for dataset {dataset.name}; choose one of {can}")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _hint(name: str, known: Iterable[str], names: Iterable[str]) -> str:
    near = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.6)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}known names: {', '.join(names)}"
