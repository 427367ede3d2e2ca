"""Pointwise and listwise records of one collection do not leak across sides, whatever their docids are."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from collections_on_disk import Collection

from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.label import RecordRule, label_judged
from rankllm_train.preparation.labelled import JudgedRule
from rankllm_train.preparation.mine import MineRule, mine
from rankllm_train.preparation.positive_texts import LEAST_WORDS, record_keys
from rankllm_train.preparation.split import SplitRule, split_records
from rankllm_train.preparation.windows import WindowRule, record_writer

N = 14
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty", "knoll", "ledge")


def corpus(*, prefix):
    """Passages with separate docids: with or without title, short or long, with text that a prompt repairs, escapes or
    truncates.
    """
    docs = {}
    for i in range(N):
        draw = random.Random(i)
        words = [f"Fact{i}", *draw.choices(WORDS, k=400 if i % 3 == 0 else 12)]
        words[3] = ("[3]", "caf\u00e9,", "caf\u00c3\u00a9", "&amp;", "\uff37ide", "x\u200by", "don\u2019t", "(b)")[
            i % 8
        ]
        text = " ".join(words)
        if i % 7 == 3:
            text = (chr(0x5317 + i) + "\u4eac") * 3000  # without a blank: cut inside a word
        elif i % 7 == 5:
            text = text.replace(" ", "\n", 5)
        docs[f"{prefix}{i}"] = (f"Title {i}: of [2] things", text) if i % 2 else text
    return docs


def made(files, *, words, identifiers):
    """Records of both kinds in one file: each passage answers two questions, one of either kind."""
    judged = {"p": {f"p{i}": {f"p{i}": 1} for i in range(N)}, "l": {f"l{i}": {f"l{i}": 1} for i in range(N)}}
    records = []
    for kind in "pl":
        run = {qid: {f"{kind}{(int(qid[1:]) + j) % N}": 9 - j for j in range(3)} for qid in judged[kind]}
        sources = JudgedSources(
            run=files.run(run),
            qrels=files.qrels(judged[kind]),
            queries=files.queries({qid: f"question {qid} of {kind}" for qid in run}),
            corpus=files.corpus(corpus(prefix=kind)),
        )
        output = files.path("made.jsonl")
        if kind == "p":
            mine(sources, MineRule(), output=output)
        else:
            writer = record_writer(None, identifiers, max_passage_words=words, max_size=20)
            rule = RecordRule(writer=writer, windows=WindowRule(min_size=2, max_size=3))
            label_judged(sources, JudgedRule(), rule, min_relevance=1, output=output)
        records += files.read("made.jsonl")
    return records


@pytest.mark.parametrize(
    ("words", "identifiers", "n_seeds"), [(300, "numeric", 200), (60, "alpha", 20), (20, "numeric", 20)]
)
def test_no_positive_is_on_two_sides(tmp_path, words, identifiers, n_seeds):
    """Over many seeds. Each passage is the positive of a group and of a window, under two docids and questions."""
    files = Collection(tmp_path)
    records = made(files, words=words, identifiers=identifiers)
    assert len(records) == 2 * N
    source = files.jsonl(records, "in.jsonl")
    train, dev = files.path("train.jsonl"), files.path("dev.jsonl")
    n_components = set()
    for seed in range(n_seeds):
        tally = split_records(source, SplitRule(dev_fraction=0.5, seed=seed), train=train, dev=dev)
        n_components.add(tally.read["components"])
        sides = [{number(record) for record in files.read(name)} for name in ("train.jsonl", "dev.jsonl")]
        assert not sides[0] & sides[1], seed
    assert n_components == {N}


def number(record):
    """7 for the query `p7` and for windows of `l7`."""
    return int((record.get("query_id") or record["id"].partition("_")[0])[1:])


def group(text, *, title="", query="one"):
    passage = {"docid": "g", "title": title, "text": text}
    return {"query_id": "q", "query": query, "positive_passages": [passage], "negative_passages": []}


def window(line, *, query="two", rest="[2] other\n"):
    prompt = f"Rank.\n[1] {line}\n{rest}Search Query: {query}.\nRank the 2 passages above."
    return {"id": "w", "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": "[1] > [2]"}]}


def is_linked(files, *records):
    """Return whether records that share nothing else are in one component."""
    others = [group(f"text number {i} of many", query=f"question {i}") for i in range(40)]
    for i, other in enumerate(others):
        other["positive_passages"][0]["docid"] = f"o{i}"
    source = files.jsonl([*records, *others], "in.jsonl")
    rule = SplitRule(dev_fraction=0.5)
    tally = split_records(source, rule, train=files.path("t.jsonl"), dev=files.path("d.jsonl"))
    return tally.read["components"] == 41


LONG = " ".join(f"word{i}" for i in range(1000))


@pytest.mark.parametrize(
    ("pointwise", "line"),
    [
        (group("short"), "short"),
        (group("short", title="T"), "Title: T Content: short"),
        (group("short", title="Another"), "Title: T Content: short"),
        (group("short"), "Title: T Content: short"),
        (group("short", title=" "), "Title: Content: short"),
        (group("its Content: short", title=" "), "Title: Content: its Content: short"),
        (group("", title="Only a title"), "Title: Only a title Content:"),
        (group(LONG), " ".join(LONG.split()[:300])),
        (group(LONG, title="T"), "Title: T Content: " + " ".join(LONG.split()[:297])),
        (group(LONG), " ".join(LONG.split()[:LEAST_WORDS])),
        (group("a [3] b"), "a (3) b"),
        (group("a\nb"), "a b"),
        (group("a\nb"), "a\nb"),
        (group("fish &amp; chips"), "fish & chips"),
    ],
)
def test_a_passage_is_known_in_both_forms(tmp_path, pointwise, line):
    """Only the text counts, as far as the prompt shows it."""
    assert is_linked(Collection(tmp_path), pointwise, window(line))


def test_windows_that_are_cut_differently_are_linked(tmp_path):
    """One passage truncated to 300, 60 and 20 words; the longest begins with the shorter ones."""
    lines = [" ".join(LONG.split()[:n]) for n in (300, 60, 20)]
    for one, other in [*pairwise(lines), (lines[2], lines[0])]:
        assert is_linked(Collection(tmp_path), window(one), window(other, query="three"))


def test_other_passages_are_not_linked(tmp_path):
    """Texts shown in full with different ends, texts with different middles, and a beginning too short to compare."""
    files = Collection(tmp_path)
    same = "this is the text of the passage that has the number"
    assert not is_linked(files, group(f"{same} 1"), window(f"{same} 2"))
    assert not is_linked(files, group(f"x {LONG}"), window(" ".join(LONG.split()[:300])))
    assert not is_linked(files, group(LONG), window(" ".join(LONG.split()[: LEAST_WORDS - 1])))
    assert not is_linked(files, group("other"), window("best"))
    # Two pointwise records show their texts whole.
    assert not is_linked(
        files,
        group(LONG),
        group(f"{LONG} more", query="two")
        | {"positive_passages": [{"docid": "h", "title": "", "text": f"{LONG} more"}]},
    )


def test_the_lines_of_a_passage_are_one_text():
    """The best passage of the window has two lines, and both belong to its text."""
    keys = record_keys(window("first line\nsecond line"), path="x", line=1)
    assert [passage.words for passage in keys.passages] == [("first", "line", "second", "line")]
