"""First-stage results stored in rank_llm's layout: found locally, downloaded from the hub, or written.

Layout: `FOLDER/METHOD/retrieve_results_DATASET_topK.jsonl`, a requests file. Source: castorini/rank_llm@1b3cabb
src/rank_llm/retrieve/retriever.py. Earlier releases wrote `.json`, the first ones `retrieve_results_DATASET.json` with
100 candidates per query.
"""

from __future__ import annotations

import re
from pathlib import Path

from rankllm_core.errors import RankLLMError, first_line
from rankllm_infer.retrieval.retrieval_data import Dataset, Method

HUB_REPOSITORY = "castorini/rank_llm_data"
FOLDER = "retrieve_results"
_HUB_DEPTHS = (100, 1000)
"""Depths available in the hub repository."""
_OLD_DEPTH = 100


def stored_path(folder: Path, dataset: Dataset, method: Method, depth: int) -> Path:
    """Return the path of results with this depth."""
    return folder / method.folder / f"retrieve_results_{dataset.name}_top{depth}.jsonl"


def find_stored(folder: Path, dataset: Dataset, method: Method, depth: int) -> Path | None:
    """Return the deepest results of at least this depth in a folder; None if there are none."""
    name = re.compile(rf"retrieve_results_{re.escape(dataset.name)}(?:_top(?P<depth>\d+))?\.jsonl?(?:\.gz|\.xz)?")
    found = [
        (int(match["depth"] or _OLD_DEPTH), path)
        for path in sorted((folder / method.folder).glob("retrieve_results_*"))
        if (match := name.fullmatch(path.name))
    ]
    return max(((stored, path) for stored, path in found if stored >= depth), default=(0, None))[1]


def fetch_stored(dataset: Dataset, method: Method, depth: int) -> Path:
    """Download results from the hub or its cache. Raises RankLLMError, in one line, if there are none available."""
    from huggingface_hub import hf_hub_download

    at_least = next((stored for stored in _HUB_DEPTHS if stored >= depth), None)
    if at_least is None:
        raise RankLLMError(f"{HUB_REPOSITORY}: contains at most {_HUB_DEPTHS[-1]} candidates per query, not {depth}")
    name = f"{FOLDER}/{method.folder}/retrieve_results_{dataset.name}_top{at_least}.jsonl"
    try:
        return Path(hf_hub_download(HUB_REPOSITORY, name, repo_type="dataset"))
    except Exception as error:  # any network error, including missing files
        raise RankLLMError(
            f"{HUB_REPOSITORY}: {name} could not be downloaded ({first_line(error, with_kind=False)})"
        ) from None
