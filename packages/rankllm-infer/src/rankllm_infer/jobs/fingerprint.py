"""What a run is asked to do, known before a model is loaded: what decides its results, its requests, its judgements.

Two runs with the same values give the same results. Compared are the input, the model's files, the card in force, every
option, the packages that turn texts into numbers, and, once the model is loaded, where and with which kernels it runs.
What only changes how fast or how patiently a run is done is left out: API key, timeout, concurrency, threads, outputs.
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
"""Differences that are shown with their values; the others are counted."""
LOADED_SETTINGS = ("--device and --dtype", "attention", "torch build", "device name", "CPU kernels", "float32 products")
"""Names of what `loaded_settings` tells."""

_SHOWN_CHARACTERS = 60
_COMMON_PACKAGES = ("rankllm-core", "ftfy")
"""Packages that every engine's prompts and answers go through, beside this one."""
_PACKAGES_OF = {
    "transformers": ("torch", "transformers", "tokenizers", "jinja2"),
    "vllm": ("vllm", "torch", "transformers", "tokenizers", "jinja2"),
}
"""Packages that decide the numbers of a local engine."""
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
"""Variables that change which kernels run, or how these round."""


def run_settings(
    plan: RerankPlan, *, requests: str, environment: Mapping[str, str] = MappingProxyType({})
) -> dict[str, object]:
    """Everything that decides results and is known before the model is loaded, by the names a user knows it by.

    requests: an `InputDigest`, as text. environment: the process's variables, of which those count that change a local
    engine's kernels.
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
    # A probe, and the format it asks for, say nothing of how the model is prompted: one may be recorded meanwhile.
    prompting = {name: value for name, value in card.to_dict().items() if name not in ("probe", "format")}
    settings |= {f"card {name}": value for name, value in _flat(prompting, prefix="")}
    # What is not there is said too: a run that was begun with it must not go on without.
    settings["card fuse_weight"] = card.fuse_weight
    settings["card identifier_prior"] = list(card.identifier_prior) if isinstance(card, ListwiseCard) else []
    file = plan.few_shot_file
    settings["--few-shot-file"] = None if file is None else f"sha256 {sha256_file(file)[:32]}"
    return settings | dict(plan.asked)


def _versions(plan: RerankPlan) -> dict[str, object]:
    """Versions of the packages whose code decides the numbers."""
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
        return None  # That the engine lacks it is for its loader to say.


def _server(plan: RerankPlan) -> str:
    return plan.engine.shown_url if isinstance(plan.engine, OpenAISettings) else ""


def _flat(values: Mapping[str, object], *, prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def loaded_settings(engine: Engine, placement: str) -> dict[str, object]:
    """What decides results and is known once the model is loaded.

    placement: device and dtype, for people; empty for a server's model, of which nobody tells.
    """
    settings: dict[str, object] = dict.fromkeys(LOADED_SETTINGS)
    settings["--device and --dtype"] = placement
    if not placement:
        return settings
    import torch

    device = getattr(engine, "device", None)
    is_cuda = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
    settings |= {
        # What `auto` came to.
        "attention": getattr(engine, "attention", None),
        "torch build": torch.__version__,
        "device name": torch.cuda.get_device_name(device) if is_cuda else None,
        "CPU kernels": None if is_cuda else _cpu_kernels(),
        "float32 products": torch.get_float32_matmul_precision(),
    }
    return settings


def _cpu_kernels() -> str:
    """The instruction sets that torch's and oneDNN's kernels are chosen by."""
    import torch

    matrix_units = {"AMX": "_is_amx_tile_supported", "BF16": "_is_avx512_bf16_supported", "VNNI": "_is_vnni_supported"}
    found = [name for name, check in matrix_units.items() if getattr(torch.cpu, check, lambda: False)()]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *found])


def difference(old: Mapping[str, object], new: Mapping[str, object]) -> str:
    """What differs, in one line with the old and the new values; empty where nothing does."""
    changed = changed_names(old, new)
    shown = [
        f"{name} was {was}, is {now}"
        for name in changed[:SHOWN_DIFFERENCES]
        for was, now in [_shown(old.get(name), new.get(name))]
    ]
    more = len(changed) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])


def changed_names(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """The settings of either that differ; one that is not set is like one that is not there.

    old: as it comes back from a file.
    """
    new = json.loads(dumps(new))
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def _shown(old: object, new: object) -> tuple[str, str]:
    """Both values on one line; of long texts, where they begin to differ."""
    texts = [dumps(value) if value is not None else "not set" for value in (old, new)]
    if max(map(len, texts)) <= _SHOWN_CHARACTERS:
        return texts[0], texts[1]
    same = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, same - 10)
    cut = [text[start : start + _SHOWN_CHARACTERS] for text in texts]
    return tuple("..." * (start > 0) + part for part in cut)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class StoredRequests:
    """The requests of a file, read anew each time, so that only the one at hand is in memory."""

    path: Path
    is_pairs: bool
    """Whether it holds one pair a line, as `prepare` writes them."""
    max_queries: int | None
    depth: int | None = None
    """Candidates of each query that count; the others are left out."""

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
    """Read all requests once and return their qids. digest: receives all of them. sizes: receives qid -> candidates.

    Raises RankLLMError for what would come to light only after hours: a line that cannot be read, an id that the run's
    format cannot carry, and, if strict, a query without candidates or a passage without text.
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
        raise RankLLMError("the input holds no query; nothing to rerank")
    return qids


def _check_ids(request: Request, files: OutputFiles) -> None:
    """Write the candidates as they came, to see whether the format can carry their ids."""
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
    """A hash of requests as they are read: queries and candidates, texts, scores and order, whatever file they are in.

    One request at a time is held.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._n_queries = 0

    def add(self, request: Request) -> None:
        """The next request."""
        self._n_queries += 1
        self._hash.update(dumps(request_to_dict(request)).encode("utf-8") + b"\n")

    def __str__(self) -> str:
        return f"{self._n_queries} queries, sha256 {self._hash.hexdigest()[:32]}"


def load_qrels(path: Path, qids: Iterable[str]) -> Qrels:
    """The judgements. Raises RankLLMError where they are of another set than the queries."""
    qrels = read_qrels(path)
    check_judged(qrels, qids, source=path)
    return qrels
