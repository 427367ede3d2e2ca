"""Rank a few passages for a query from Python, with a bundled reranker.

    python examples/rank_passages.py

Any other model works in its place: a folder, or a name on the hub such as castorini/rank_zephyr_7b_v1_full.
"""

from __future__ import annotations

from rankllm_infer import load_reranker

QUERY = "why is the sky blue"
PASSAGES = [
    "Cats sleep most of the day.",
    "Blue paint was rare in the Middle Ages, since its pigment came from far away.",
    "Air scatters short wavelengths of sunlight more than long ones, so the sky looks blue.",
]


def main() -> None:
    with load_reranker("smollm2-pointwise") as reranker:
        rows = reranker.rank(QUERY, PASSAGES, return_documents=True)
    for rank, row in enumerate(rows, start=1):
        print(f"{rank}  {row['score']:7.3f}  passage {row['corpus_id']}: {row['text']}")


if __name__ == "__main__":
    main()
