"""Fingerprint of a run, known before a model is loaded: everything that determines its results.

Runs with equal fingerprints give equal results. A fingerprint covers the input, the model's files, the card in effect,
all options, the packages that turn texts into numbers and, once the model is loaded, device and kernels. It excludes
what only affects speed or patience: API key, timeout, concurrency, threads, outputs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from rankllm_core.card import ListwiseCard
from rankllm_core.data.records import read_requests, read_rerank_input, request_to_dict
from rankllm_core.errors import RankLLMError
from rankllm_core.files import dumps
from rankllm_core.files.manifest import sha256_file
from rankllm_core.text import title_and_text
from rankllm_core.trec import Qrels, read_qrels, run_lines
from rankllm_core.types import Request
from rankllm_infer import __version__
from rankllm_infer.checkpoints.model_identity import folder_identity, model_identity
from rankllm_infer.checkpoints.quantization import quantization_of
from rankllm_infer.engines.base import Engine
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.evaluation.judgements import check_judged
from rankllm_infer.plan import RerankPlan

if TYPE_CHECKING:
    from rankllm_infer.jobs.outputs import OutputFiles

SHOWN_DIFFERENCES = 3
"""Maximum number of differences shown with their values; the rest are only counted."""
LOADED_SETTINGS = ("--device and --dtype", "attention", "torch build", "device name", "CPU kernels", "float32 products")
"""Keys returned by `loaded_settings`."""

_SHOWN_CHARACTERS = 60
_COMMON_PACKAGES = ("rankllm-core", "ftfy")
"""Packages that prompts and answers of all engines pass through, besides this one."""
_PACKAGES_OF = {
    "transformers": ("torch", "transformers", "tokenizers", "jinja2"),
    "vllm": ("vllm", "torch", "transformers", "tokenizers", "jinja2"),
}
"""Packages that determine the numbers computed by a local engine."""
_NUMERIC_ENVIRONMENT = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_BATCH_INVARIANT",
    "VLLM_FLASH_ATTN_VERSION",
)
"""Environment variables that affect which kernels run or how they round."""


def run_settings(
    plan: RerankPlan, *, requests: str, environment: Mapping[str, str] = MappingProxyType({})
) -> dict[str, object]:
    """Return all settings that determine results and are known before the model is loaded, by user-facing name.

    requests: an `InputDigest`, as a string. environment: process environment; only variables that affect a local
    engine's kernels are used.
    """
    files, card = plan.files, plan.card.card
    settings: dict[str, object] = {"rankllm-infer": __version__, "input": requests}
    settings |= _versions(plan)
    if files is None:
        settings["model"] = f"{plan.model} at {_server(plan)}"
    else:
        settings |= {name: environment[name] for name in _NUMERIC_ENVIRONMENT if name in environment}
        settings["model"] = model_identity(files.own)
        if files.own.adapter is not None:
            settings["base model"] = folder_identity(files.base.path)
    # A probe, and the format version it requires, do not affect prompts: one may be added between sessions.
    prompting = {name: value for name, value in card.to_dict().items() if name not in ("probe", "format")}
    settings |= {f"card {name}": value for name, value in _flat(prompting, prefix="")}
    # Absent values are recorded too: a run started with such a value must not resume without it.
    settings["card fuse_weight"] = card.fuse_weight
    settings["card identifier_prior"] = list(card.identifier_prior) if isinstance(card, ListwiseCard) else []
    file = plan.few_shot_file
    settings["--few-shot-file"] = None if file is None else f"sha256 {sha256_file(file)[:32]}"
    return settings | dict(plan.asked)


def _versions(plan: RerankPlan) -> dict[str, object]:
    """Return the versions of packages whose code determines the numbers."""
    names = (*_COMMON_PACKAGES, *_PACKAGES_OF.get(str(plan.asked["--engine"]), ()))
    if plan.files is not None and plan.files.own.adapter is not None:
        names += ("peft",)
    if plan.files is not None and plan.files.base.is_quantized:
        quantization = quantization_of(plan.files.base)
        names += quantization.packages if quantization is not None else ()
    return {f"version of {name}": _version(name) for name in names}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # The engine's loader reports a missing package.


def _server(plan: RerankPlan) -> str:
    return plan.engine.shown_url if isinstance(plan.engine, OpenAISettings) else ""


def _flat(values: Mapping[str, object], *, prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def loaded_settings(engine: Engine, placement: str) -> dict[str, object]:
    """Return the settings that determine results and are known only once the model is loaded.

    placement: device and dtype, as text; empty for a server's model, where they are unknown.
    """
    settings: dict[str, object] = dict.fromkeys(LOADED_SETTINGS)
    settings["--device and --dtype"] = placement
    if not placement:
        return settings
    import torch

    device = getattr(engine, "device", None)
    is_cuda = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
    settings |= {
        # The kernel that `auto` selected.
        "attention": getattr(engine, "attention", None),
        "torch build": torch.__version__,
        "device name": torch.cuda.get_device_name(device) if is_cuda else None,
        "CPU kernels": None if is_cuda else _cpu_kernels(),
        "float32 products": torch.get_float32_matmul_precision(),
    }
    return settings


def _cpu_kernels() -> str:
    """Return the instruction sets that torch and oneDNN select their kernels by."""
    import torch

    matrix_units = {"AMX": "_is_amx_tile_supported", "BF16": "_is_avx512_bf16_supported", "VNNI": "_is_vnni_supported"}
    found = [name for name, check in matrix_units.items() if getattr(torch.cpu, check, lambda: False)()]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *found])


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """Describe in one line what differs, with old and new values; empty if nothing differs."""
    changed = changed_names(old, new)
    shown = [
        f"{name} was {was}, is {now}"
        for name in changed[:SHOWN_DIFFERENCES]
        for was, now in [_shown(old.get(name), new.get(name))]
    ]
    more = len(changed) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])


def changed_names(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return the names of settings that differ; an unset value equals a missing one.

    old: as read back from a file.
    """
    new = json.loads(dumps(new))
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def _shown(old: object, new: object) -> tuple[str, str]:
    """Format both values on one line; long texts are shown from where they start to differ."""
    texts = [dumps(value) if value is not None else "not set" for value in (old, new)]
    if max(map(len, texts)) <= _SHOWN_CHARACTERS:
        return texts[0], texts[1]
    same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, same - 10)
    cut = [text[start : start + _SHOWN_CHARACTERS] for text in texts]
    return tuple("..." * (start > 0) + part for part in cut)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class StoredRequests:
    """Requests of a file, read again on each iteration, so that only one is in memory at a time."""

    path: Path
    is_pairs: bool
    """True if the file contains one query-passage pair per line, as written by `prepare`."""
    max_queries: int | None
    depth: int | None = None
    """Maximum number of candidates per query; the rest are dropped."""

    def __iter__(self) -> Iterator[Request]:
        read = read_rerank_input if self.is_pairs else read_requests
        for request in islice(read(self.path), self.max_queries):
            is_cut = self.depth is not None and len(request.candidates) > self.depth
            yield replace(request, candidates=request.candidates[: self.depth]) if is_cut else request


def check_requests(
    requests: Iterable[Request],
    files: OutputFiles,
    *,
    strict: bool,
    digest: InputDigest | None = None,
    sizes: dict[str, int] | None = None,
) -> list[str]:
    """Read all requests once and return their qids. digest: receives every request. sizes: receives qid -> candidates.

    Raises RankLLMError for problems that would otherwise only surface hours later: an unreadable line, an id that the
    run format cannot represent and, if strict, a query without candidates or a passage without text.
    """
    qids = []
    for request in requests:
        if files.run is not None:
            _check_ids(request, files)
        if strict:
            _check_complete(request)
        if digest is not None:
            digest.add(request)
        if sizes is not None:
            sizes[request.query.qid] = len(request.candidates)
        qids.append(request.query.qid)
    if not qids:
        raise RankLLMError("the input contains no queries; nothing to rerank")
    return qids


def _check_ids(request: Request, files: OutputFiles) -> None:
    """Format the candidates in input order, to check that the run format can represent their ids."""
    n = len(request.candidates)
    ranking = [(candidate.docid, float(n - rank)) for rank, candidate in enumerate(request.candidates)]
    try:
        run_lines(request.query.qid, ranking, format=files.run_layout, tag=files.tag)
    except RankLLMError as error:
        hint = " (--output-format tsv)" if files.run_layout == "trec" else ""
        raise RankLLMError(f"{files.run} cannot be written: {error}{hint}") from None


def _check_complete(request: Request) -> None:
    where = f"query {request.query.qid!r}"
    if not request.candidates:
        raise RankLLMError(f"{where}: no candidates (--strict)")
    for candidate in request.candidates:
        try:
            title_and_text(candidate.doc)
        except RankLLMError as error:
            raise RankLLMError(f"{where}, docid {candidate.docid!r}: {error} (--strict)") from None


class InputDigest:
    """Hash of requests as they are read: queries and candidates with texts, scores and order, independent of the file
    format.

    Holds one request at a time.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._n_queries = 0

    def add(self, request: Request) -> None:
        """Add the next request."""
        self._n_queries += 1
        self._hash.update(dumps(request_to_dict(request)).encode("utf-8") + b"\n")

    def __str__(self) -> str:
        return f"{self._n_queries} queries, sha256 {self._hash.hexdigest()[:32]}"


def load_qrels(path: Path, qids: Iterable[str]) -> Qrels:
    """Read judgements. Raises RankLLMError if they do not belong to these queries."""
    qrels = read_qrels(path)
    check_judged(qrels, qids, source=path)
    return qrels
