"""Run every command that reads files on hostile inputs, and report whatever does not end with one line and a valid
status.


    scripts/test-fuzz --seconds 3600     # an hour in two processes; at least 100,000 inputs on two cores
    scripts/test-fuzz --target evaluate --seed 17 --inputs 1     # one input again, by the seed of a report

A finding is a traceback, a line with a control character, more than one `Error:` line, an exit status outside 0 to 3,
more than 10 s of processor time for one input, no end after two minutes, or more than 1 GB of memory above a clean run.
Processor time is used so that other load on the machine causes no findings.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # shares the tests' generators of hostile files

from hostile import hostile
from targets import Target, make_model, targets

LONGEST_S = 10.0
"""Maximum processor time for one input."""
HANGS_AFTER_S = 120.0
MOST_BYTES = 1 << 30
_STATUSES = (0, 1, 2, 3)
_LONGEST_LINE = 2_100
_MEMORY = "above a clean run"


@dataclass(frozen=True, slots=True)
class Finding:
    """Input that was not handled as promised."""

    target: str
    seed: int
    problem: str


def choose(seed: int, names: list[str]) -> Target:
    """Return the target for a seed."""
    known = [target for target in targets() if not names or target.name in names]
    return random.Random(f"target/{seed}").choices(known, weights=[target.weight for target in known])[0]


def run_one(target: Target, seed: int | None, *, model: Path) -> str | None:
    """Run a command on its files, made hostile by the seed, and return what went wrong, or None. No seed: valid
    files."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        if target.needs_model:
            shutil.copytree(model, folder / "model")
        _write_files(target, seed, folder)
        with contextlib.chdir(folder):
            return _outcome(target)


def _write_files(target: Target, seed: int | None, folder: Path) -> None:
    draw = random.Random(f"files/{seed}")
    n_hostile = draw.choice([1, 1, 1, 2]) if seed is not None else 0
    chosen = draw.sample(sorted(target.files), min(n_hostile, len(target.files)))
    for name, text in target.files.items():
        data = text.encode()
        if name in chosen:
            data = hostile(draw.randrange(1 << 48), valid=data, kind=target.kinds.get(name, "lines"))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _outcome(target: Target) -> str | None:
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [target.program, *target.argv]
    sys.stdin = io.TextIOWrapper(io.BytesIO(b""))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            target.main()
    except SystemExit as stop:
        return _judge(stop.code, err.getvalue())
    except BaseException:
        return traceback.format_exc(limit=-6)
    return "returned without an exit status"


def _judge(code: object, err: str) -> str | None:
    if code not in _STATUSES:
        return f"exit status {code!r}: {err[-500:]!r}"
    errors = [line for line in err.split("\n") if line.startswith("Error:")]
    if code == 1 and len(errors) != 1:
        return f"exit status 1 with {len(errors)} lines of error: {err[-500:]!r}"
    if code == 1 and not err.rstrip("\n").split("\n")[-1].startswith("Error:"):
        return f"the error is not the last line, or more than one: {err[-500:]!r}"
    for line in errors:
        if any(not (character.isprintable() or unicodedata.category(character) == "Zs") for character in line):
            return f"a control character reaches the terminal: {line[:500]!r}"
        if len(line) > _LONGEST_LINE:
            return f"an error of {len(line)} characters: {line[:300]!r}"
    return None


def work(connection: Connection, names: list[str], model: Path) -> None:
    """Run incoming seeds in a separate process, and send back the outcome of each."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    os.environ["XDG_CACHE_HOME"] = str(model.parent / "cache")
    for target in targets():
        if not names or target.name in names:
            run_one(target, None, model=model)
    clean = _peak_bytes()
    connection.send("ready")
    while (seed := connection.recv()) is not None:
        began = time.process_time()
        problem = run_one(choose(seed, names), seed, model=model)
        if problem is None and _peak_bytes() - clean > MOST_BYTES:
            problem = f"{(_peak_bytes() - clean) >> 20} MB {_MEMORY}"
        connection.send((problem, time.process_time() - began))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Worker:
    """Process that runs one seed at a time, replaced if it hangs or dies."""

    def __init__(self, names: list[str], model: Path) -> None:
        self._names, self._model = names, model
        self.seed: int | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, self._names, self._model), daemon=True)
        self._process.start()
        other.close()
        if self.connection.recv() != "ready":
            raise RuntimeError("the worker did not come up")

    def give(self, seed: int) -> None:
        self.seed, self._began = seed, time.monotonic()
        self.connection.send(seed)

    def poll(self) -> tuple[bool, str | None]:
        """Return whether the seed is done, and what went wrong."""
        if self.connection.poll():
            try:
                problem, took = self.connection.recv()
            except EOFError:
                self._process.join()
                code = self._process.exitcode
                self._start()
                return True, f"the process died with status {code}"
            if problem is not None and problem.endswith(_MEMORY):
                self.stop()  # the peak must not count for the next input
                self._start()
            if problem is None and took > LONGEST_S:
                problem = f"took {took:.1f} s of a processor"
            return True, problem
        if time.monotonic() - self._began > HANGS_AFTER_S:
            self.stop()
            self._start()
            return True, f"hangs: no end after {HANGS_AFTER_S:.0f} s"
        return False, None

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def fuzz(arguments: argparse.Namespace, *, model: Path) -> tuple[Counter[str], list[Finding]]:
    """Pass seeds to the workers until time or inputs run out."""
    names: list[str] = arguments.target
    workers = [Worker(names, model) for _ in range(arguments.processes)]
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    seeds = iter(range(arguments.seed, arguments.seed + (arguments.inputs or 1 << 40)))
    end = time.monotonic() + arguments.seconds
    while True:
        for worker in workers:
            if worker.seed is not None:
                done, problem = worker.poll()
                if not done:
                    continue
                name = choose(worker.seed, names).name
                counts[name] += 1
                if problem is not None:
                    findings.append(Finding(name, worker.seed, problem))
                    print(f"{name}, seed {worker.seed}: {problem}", flush=True)
                worker.seed = None
            if time.monotonic() < end and (seed := next(seeds, None)) is not None:
                worker.give(seed)
        busy = [worker.connection for worker in workers if worker.seed is not None]
        if not busy:
            break
        multiprocessing.connection.wait(busy, timeout=1.0)
    for worker in workers:
        worker.stop()
    return counts, findings


def main() -> int:
    """Run, report, and fail if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--inputs", type=int, help="stop after this many inputs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first input; later inputs count up from it")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--target", action="append", default=[], choices=[t.name for t in targets()], help="run only this target"
    )
    parser.add_argument("--report", type=Path, help="write counts, seeds and findings as JSON")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-model-") as name:
        model = Path(name) / "model"
        make_model(model)
        counts, findings = fuzz(arguments, model=model)
    seconds = time.monotonic() - began
    if arguments.report:
        record = {"first_seed": arguments.seed, "seconds": round(seconds, 1), "inputs": dict(counts)}
        record["findings"] = [asdict(finding) for finding in findings]
        arguments.report.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name, n in sorted(counts.items()):
        print(f"{n:8,} {name}")
    last = arguments.seed + counts.total() - 1
    print(f"{counts.total():,} inputs (seeds {arguments.seed} to {last}) in {seconds:.0f} s, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
