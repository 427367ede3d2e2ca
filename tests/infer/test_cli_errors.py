"""The program as a process: exit statuses, errors of one line, quick help."""

import subprocess
import sys

import click
import pytest

from rankllm_infer.cli import cli

RUN = "q1 Q0 d1 1 9.5 t\n"
HEAVY = "{'torch', 'transformers', 'numpy', 'datasets', 'httpx2', 'pytrec_eval', 'tqdm'}"

OF_A_RUN = "{'ftfy', 'rankllm_core.answers.reader', 'rankllm_infer.plan', 'rankllm_infer.jobs.journal'}"
"""What a command needs once it runs, and takes long."""


def python(code, *args, cwd=None):
    """Run a program in a fresh interpreter."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)


def rankllm(*args, cwd=None):
    """Run the command line as its script does."""
    return python("from rankllm_infer.cli import main; main()", *args, cwd=cwd)


@pytest.fixture
def folder(tmp_path):
    """A folder with a run, judgements, a broken run and an output that exists."""
    (tmp_path / "a.run").write_text(RUN, encoding="utf-8")
    (tmp_path / "bad.run").write_text("q1 Q0 d1 1 9.5\n", encoding="utf-8")
    (tmp_path / "qrels").write_text("q1 0 d1 1\n", encoding="utf-8")
    (tmp_path / "out.tsv").write_text("mine\n", encoding="utf-8")
    return tmp_path


def test_success_is_status_0(folder):
    """Results on standard output, nothing on standard error where there is nothing to say."""
    done = rankllm("evaluate", "--qrels", "qrels", "a.run", "-m", "RR", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.run\tRR\t1.0000\n", "")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["evaluate", "--qrels", "qrels", "no.run"], "Error: no.run: no such file"),
        (["convert", "--input", "no.run", "--output", "new", "--to", "tsv"], "Error: no.run: no such file"),
        (["convert", "--input", "bad.run", "--output", "new", "--to", "tsv"], "Error: bad.run:1: expected 6"),
        (["evaluate", "--qrels", "a.run", "a.run"], "Error: a.run:1: expected 4 columns"),
        (["evaluate", "--qrels", "qrels", "a.run", "-m", "nDGC@10"], "Error: measure 'nDGC@10': unknown"),
        (
            ["convert", "--input", "a.run", "--output", "out.tsv", "--to", "tsv"],
            "Error: out.tsv: already exists; use --over",
        ),
        (["prompts", "show", "rank_zefyr"], "Error: rank_zefyr: no such template"),
        (["prompts", "render", "--requests", "a.run"], "Error: a.run: expected requests or rerank-input"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_status_1(folder, args, line):
    """No traceback, nothing on standard output, no file made or changed."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = rankllm(*args, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["evaluate", "--qrels", "qrels", "a.run", "--mesure", "RR"], "No such option"),
        (["evaluate", "--qrels", "qrels"], "Missing argument"),
        (["convert", "--input", "a.run", "--output", "new", "--to", "xml"], "is not one of"),
        (["prepare", "--depth", "0"], "--depth"),
        (["prompts", "render"], "--requests"),
        (["diagnose"], "No such command"),
    ],
)
def test_wrong_usage_is_status_2(folder, args, says):
    """Options that do not exist, are missing or hold what they cannot hold."""
    done = rankllm(*args, cwd=folder)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def every_command(group=cli, *above):
    """Words of each command and each group of commands."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield " ".join((*above, name))
        if isinstance(command, click.Group):
            yield from every_command(command, *above, name)


@pytest.mark.parametrize("command", list(every_command()))
def test_help_is_quick(command):
    """--help of a command imports none of what takes long, and says what the command is for."""
    code = (
        "import sys; from rankllm_infer.cli import cli; cli.main([*sys.argv[1:], '--help'], standalone_mode=False); "
        f"print('HEAVY', sorted(({HEAVY} | {OF_A_RUN}) & set(sys.modules)))"
    )
    done = python(code, *command.split())
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert done.stdout.startswith("Usage: ")


def test_a_reader_that_leaves_early_is_no_crash(folder):
    """`prompts list | head -1` ends without a traceback."""
    code = f"{sys.executable} -c 'from rankllm_infer.cli import main; main()' prompts list | head -n 1"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
