"""Fine-tune a small yes/no reranker with LoRA on a CPU, then rank with it.

    python examples/finetune_pointwise.py [--model FOLDER_OR_NAME] [--steps 8] [--output-dir example-model]

Six questions are far too few to train on: they show the records, the recipe and the two calls. For data of your own,
`train mine` makes such records from judgements and a run (docs/training-data.md).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rankllm_infer import load_reranker
from rankllm_train import load_recipe, train

ANSWERS = {
    "why is the sky blue": "Air scatters short wavelengths of sunlight more than long ones.",
    "how do camels survive without water": "Camels lose little water, and their blood stays fluid when it thickens.",
    "who wrote the origin of species": "Charles Darwin published On the Origin of Species in 1859.",
    "what makes bread rise": "Yeast turns sugar into carbon dioxide, and the bubbles lift the dough.",
    "how far away is the moon": "The moon is about 384,000 kilometres from the earth.",
    "why do leaves turn red in autumn": "When chlorophyll breaks down, other pigments of the leaf become visible.",
}


def write_records(file: Path) -> None:
    """One record a question, in Tevatron's layout: its answer, and the other answers as negatives."""
    passages = [{"docid": f"d{n}", "title": "", "text": text} for n, text in enumerate(ANSWERS.values())]
    with file.open("w", encoding="utf-8") as stream:
        for n, query in enumerate(ANSWERS):
            others = passages[:n] + passages[n + 1 :]
            record = {"query_id": f"q{n}", "query": query}
            record |= {"positive_passages": [passages[n]], "negative_passages": others}
            stream.write(json.dumps(record) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a small yes/no reranker, then rank with it.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="the model to start from")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps")
    parser.add_argument("--output-dir", type=Path, default=Path("example-model"), help="where the adapter is saved")
    options = parser.parse_args()

    options.output_dir.parent.mkdir(parents=True, exist_ok=True)
    records = options.output_dir.with_suffix(".jsonl")
    write_records(records)
    recipe = load_recipe("smollm2-yes-no").changed(
        {
            "model.name_or_path": options.model,
            "data.train": str(records),
            "data.group_size": 4,
            "batch.accumulation": 2,
            "schedule.max_steps": options.steps,
            "checkpoint.output_dir": str(options.output_dir),
        }
    )
    result = train(recipe, say=print)
    print(f"trained for {result.steps} steps, mean loss {result.loss:.3f}")

    with load_reranker(result.output_dir) as reranker:
        rows = reranker.rank("what makes bread rise", list(ANSWERS.values()), top_k=3, return_documents=True)
    for row in rows:
        print(f"{row['score']:7.3f}  {row['text']}")


if __name__ == "__main__":
    main()
