"""Damaged journals: a run gives the bytes of an undisturbed run, or is rejected with the file named."""

from __future__ import annotations

import random
import re
import shutil
from contextlib import suppress

import pytest
from scripted_runs import NAMES, Killed, contents, failing, journal_of, killed_after, rerank

from rankllm_core.errors import RankLLMError
from rankllm_infer.engines.base import Answer

SEED = 20261129
N_DAMAGES = 240


def backwards(prompt):
    """Another model's answers to the same prompts."""
    return Answer(text=" > ".join(f"[{label}]" for label in reversed(prompt.identifiers)))


@pytest.fixture
def stopped(tmp_path, monkeypatch, whole):
    """Folders of runs that were killed early, killed late, or finished with a failed query, and their commands."""
    for n in (4, 20):
        with suppress(Killed):
            rerank(monkeypatch, tmp_path / f"killed{n}", answer=killed_after(n))
    assert rerank(monkeypatch, tmp_path / "failed", answer=failing) == 3
    return [(tmp_path / "killed4", False), (tmp_path / "killed20", False), (tmp_path / "failed", True)]


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """Lines of a journal with the same settings and input but other answers."""
    with suppress(Killed):
        rerank(monkeypatch, tmp_path / "foreign", answer=killed_after(20, backwards))
    return lines_of(journal_of(tmp_path / "foreign").read_bytes())


def lines_of(data):
    """Including line ends."""
    return data.splitlines(keepends=True)


def damages(foreign):
    """Ways to damage a journal: (bytes, random numbers) -> bytes."""

    def a_range(data, draw, longest):
        start = draw.randrange(len(data))
        return start, min(len(data), start + draw.randint(1, longest))

    def flip_bits(data, draw):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(changed)

    def overwrite(data, draw):
        start, end = a_range(data, draw, 40)
        return data[:start] + draw.randbytes(end - start) + data[end:]

    def change_digit(data, draw):
        place = draw.choice([match.start() for match in re.finditer(rb"\d", data)])
        return data[:place] + b"%d" % ((data[place] - 47) % 10) + data[place + 1 :]

    def zeros(data, draw):
        start, end = a_range(data, draw, 600)
        return data[:start] + bytes(end - start) + data[end:]

    def zeros_to_the_end(data, draw):
        start = draw.randrange(len(data))
        return data[:start] + bytes(len(data) - start)

    def insert(data, draw):
        place = draw.randint(0, len(data))
        return data[:place] + draw.choice([b"\n", b" ", draw.randbytes(5), data[:50]]) + data[place:]

    def delete(data, draw):
        start, end = a_range(data, draw, 300)
        return data[:start] + data[end:]

    def cut(data, draw):
        return data[: draw.randrange(len(data))]

    def append(data, draw):
        return data + draw.choice([b"\n", b"{}\n", draw.randbytes(30), data, lines_of(data)[-1], bytes(512)])

    def repeat_line(data, draw):
        lines = lines_of(data)
        lines.insert(draw.randint(0, len(lines)), draw.choice(lines))
        return b"".join(lines)

    def remove_line(data, draw):
        lines = lines_of(data)
        del lines[draw.randrange(len(lines))]
        return b"".join(lines)

    def swap_lines(data, draw):
        lines = lines_of(data)
        one, other = draw.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
        return b"".join(lines)

    def take_foreign_line(data, draw):
        lines, number = lines_of(data), draw.randrange(len(foreign))
        place = min(number, len(lines) - 1) if draw.random() < 0.5 else draw.randrange(len(lines))
        lines[place] = foreign[number]
        return b"".join(lines)

    return [named for named in locals().values() if callable(named) and named is not a_range]


def refusal(run):
    """The line with which a run is rejected; None if it succeeds."""
    try:
        code = run()
    except RankLLMError as error:
        return str(error)
    assert code == 0
    return None


def test_no_damage_changes_a_result(tmp_path, monkeypatch, whole, stopped, foreign):
    """Seeded damage of every kind, to runs stopped early, stopped late, and with a failed query."""
    kinds, n_refused = damages(foreign), 0
    for number in range(N_DAMAGES):
        draw = random.Random(SEED + number)
        origin, resume = stopped[number % len(stopped)]
        damage = kinds[number // len(stopped) % len(kinds)]
        folder = tmp_path / "damaged"
        shutil.copytree(origin, folder)
        journal = journal_of(folder)
        damaged = damage(journal.read_bytes(), draw)
        journal.write_bytes(damaged)
        # The failed run's folder is renamed by the copy: its outputs are written anew.
        for name in NAMES:
            (folder / name).unlink(missing_ok=True)
        where = f"damage {number}: {damage.__name__} of {origin.name}"
        error = refusal(lambda folder=folder, resume=resume: rerank(monkeypatch, folder, resume=resume))
        if error is None:
            assert contents(folder) == whole, where
            assert not journal.exists(), where
        else:
            assert str(journal) in error, where
            assert "\n" not in error, where
            assert contents(folder) == {}, where
            assert journal.read_bytes() == damaged, where
        n_refused += error is not None
        shutil.rmtree(folder)
    assert N_DAMAGES / 5 < n_refused < N_DAMAGES * 4 / 5


def test_a_journal_cut_at_any_byte_is_resumed(tmp_path, monkeypatch, whole, stopped):
    """Files left by a kill or a power failure are never rejected, with or without trailing zeros."""
    origin, _ = stopped[1]
    data = journal_of(origin).read_bytes()
    for number, length in enumerate(range(0, len(data), 307)):
        folder = tmp_path / f"cut{length}"
        folder.mkdir()
        journal_of(folder).write_bytes(data[:length] + bytes(512 * (number % 2)))
        assert rerank(monkeypatch, folder) == 0
        assert contents(folder) == whole


def test_the_damaged_line_is_named_with_what_to_do(tmp_path, monkeypatch, stopped):
    """File, line and the two remedies; --overwrite is one of them."""
    origin, _ = stopped[1]
    journal = journal_of(origin)
    lines = lines_of(journal.read_bytes())
    lines[2] = lines[2].replace(b'"', b"'", 1)
    journal.write_bytes(b"".join(lines))
    with pytest.raises(RankLLMError) as refused:
        rerank(monkeypatch, origin)
    assert str(refused.value) == (
        f"{journal}:3: damaged (checksum mismatch), but followed by intact lines; restore the file from a "
        "backup, or start over with --overwrite"
    )
    assert rerank(monkeypatch, origin, overwrite=True) == 0


def test_a_damaged_last_line_is_computed_again_and_said(tmp_path, monkeypatch, capsys, whole, stopped):
    """A whole line with a wrong checksum was not caused by a kill: the user should check the disk."""
    origin, _ = stopped[1]
    journal = journal_of(origin)
    data = journal.read_bytes()
    end = len(data) - len(lines_of(data)[-1])
    journal.write_bytes(data[: end + 30] + b"?" + data[end + 31 :])
    assert rerank(monkeypatch, origin) == 0
    assert contents(origin) == whole
    message = f"Warning: {journal}: damaged from byte {end} to the end; the lost part is recomputed\n"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 3, 12])
def test_a_journal_of_another_format_is_refused(tmp_path, monkeypatch, number):
    """From an older or newer version; the remedy is named, and works."""
    journal = journal_of(tmp_path)
    old = b'{"rankllm_journal": %d, "settings": {}, "outputs": []}\n' % number
    journal.write_bytes(old)
    with pytest.raises(RankLLMError) as refused:
        rerank(monkeypatch, tmp_path)
    assert str(refused.value) == (
        f"{journal}: a journal of format {number}, but this version only resumes format 2; finish the run with the "
        "version of rankllm-infer that started it, or start over with --overwrite"
    )
    assert journal.read_bytes() == old
    assert rerank(monkeypatch, tmp_path, overwrite=True) == 0
