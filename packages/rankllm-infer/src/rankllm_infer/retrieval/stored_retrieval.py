"""First-stage results that are stored as rank_llm stores them: found here, fetched from the hub, written.

Layout: `FOLDER/METHOD/retrieve_results_DATASET_topK.jsonl`, a requests file. Source: castorini/rank_llm@1b3cabb
src/rank_llm/retrieve/retriever.py.
Its earlier releases wrote `.json`, the first ones `retrieve_results_DATASET.json` with 100 candidates a query.
"""

from __future__ import annotations

import re
from pathlib import Path

from rankllm_core.errors import RankLLMError, first_line
from rankllm_infer.retrieval.retrieval_data import Dataset, Method

HUB_REPOSITORY = "castorini/rank_llm_data"
FOLDER = "retrieve_results"
_HUB_DEPTHS = (100, 1000)
"""What the repository on the hub holds."""
_OLD_DEPTH = 100


def stored_path(folder: Path, dataset: Dataset, method: Method, depth: int) -> Path:
    """Where results of this depth belong."""
    return folder / method.folder / f"retrieve_results_{dataset.name}_top{depth}.jsonl"


def find_stored(folder: Path, dataset: Dataset, method: Method, depth: int) -> Path | None:
    """The deepest results of at least this depth in a folder; None where there are none."""
    name = re.compile(rf"retrieve_results_{re.escape(dataset.name)}(?:_top(?P<depth>\d+))?\.jsonl?(?:\.gz|\.xz)?")
    found = [
        (int(match["depth"] or _OLD_DEPTH), path)
        for path in sorted((folder / method.folder).glob("retrieve_results_*"))
        if (match := name.fullmatch(path.name))
    ]
    return max(((stored, path) for stored, path in found if stored >= depth), default=(0, None))[1]


def fetch_stored(dataset: Dataset, method: Method, depth: int) -> Path:
    """Results from the hub, or from its cache. Raises RankLLMError, in one line, where there are none to be had."""
    from huggingface_hub import hf_hub_download

    at_least = next((stored for stored in _HUB_DEPTHS if stored >= depth), None)
    if at_least is None:
        raise RankLLMError(f"{HUB_REPOSITORY}: holds {_HUB_DEPTHS[-1]} candidates a query at the most, not {depth}")
    name = f"{FOLDER}/{method.folder}/retrieve_results_{dataset.name}_top{at_least}.jsonl"
    try:
        return Path(hf_hub_download(HUB_REPOSITORY, name, repo_type="dataset"))
    except Exception as error:  # whatever the network does; and what is not there is an error of the network's kind
        raise RankLLMError(
            f"{HUB_REPOSITORY}: {name} could not be fetched ({first_line(error, with_kind=False)})"
        ) from None
