"""Train and dev share no query and no positive, however records are linked."""

from __future__ import annotations

import random

import pytest
from collections_on_disk import Collection, counts
from shared_files import data
from training_fakes import listwise_record

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_train.data.json_records import read_json_records
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.mine import MineRule, mine
from rankllm_train.preparation.split import SplitRule, record_keys, split_records


@pytest.fixture
def files(tmp_path):
    """A folder for record files."""
    return Collection(tmp_path)


def group(qid, query, *positives, negatives=("n",)):
    """A Tevatron record; a passage is named by its docid, and its text is `text of DOCID`."""

    def passage(docid):
        return {"docid": docid, "title": "", "text": f"text of {docid}"}

    return {
        "query_id": qid,
        "query": query,
        "positive_passages": [passage(p) if isinstance(p, str) else p for p in positives],
        "negative_passages": [passage(n) for n in negatives],
    }


def split(files, records, **rule):
    """Split the records and return the ids of train and dev, and the tally."""
    train, dev = files.path("train.jsonl"), files.path("dev.jsonl")
    tally = split_records(files.jsonl(records, "in.jsonl"), SplitRule(**rule), train=train, dev=dev)
    sides = [[r.get("query_id") or r["id"] for r in files.read(name)] for name in ("train.jsonl", "dev.jsonl")]
    return *sides, tally


def loners(n):
    """Records that share nothing."""
    return [group(f"q{i}", f"question number {i}", f"p{i}") for i in range(n)]


def test_every_record_is_on_one_side_in_the_order_of_the_file(files):
    """Of 1,000 records, 200 go to dev, within five standard deviations (63)."""
    records = loners(1000)
    train, dev, tally = split(files, records, dev_fraction=0.2)
    assert sorted([*train, *dev]) == sorted(r["query_id"] for r in records)
    assert train == [r["query_id"] for r in records if r["query_id"] in set(train)]
    assert 137 < len(dev) < 263
    assert tally.made == {"dev records": len(dev), "train records": len(train)}
    assert tally.read["components"] == 1000


def test_records_are_written_as_they_were(files):
    """Every key and value is kept."""
    records = [r | {"answers": ["x", 1.5, None], "more": {"caf\u00e9": True}} for r in loners(30)]
    split(files, records, dev_fraction=0.5)
    written = files.read("train.jsonl") + files.read("dev.jsonl")
    assert sorted(written, key=lambda r: int(r["query_id"][1:])) == records


def test_a_side_is_a_matter_of_the_query_and_the_seed(files):
    """The side does not depend on order, other records or the fraction: a larger dev set contains the smaller one."""
    records = loners(200)
    _, dev, _ = split(files, records, dev_fraction=0.2)
    shuffled = random.Random(3).sample(records, len(records))
    _, again, _ = split(files, shuffled, dev_fraction=0.2)
    assert sorted(again) == sorted(dev)
    _, half, _ = split(files, records[:100], dev_fraction=0.2)
    assert half == [qid for qid in dev if int(qid[1:]) < 100]
    _, larger, _ = split(files, records, dev_fraction=0.4)
    assert set(dev) < set(larger)
    _, other, _ = split(files, records, dev_fraction=0.2, seed=1)
    assert other != dev


def linked_pairs():
    """Name -> two records that belong together."""
    copy = {"docid": "other", "title": "T", "text": "Text, of P1!"}
    return {
        "the same query": (group("a", "who is it", "p1"), group("b", "who is it", "p2")),
        "in another case": (group("a", "who is it", "p1"), group("b", " Who  is \uff29t?", "p2")),
        "the same docid": (group("a", "one", "p1", "p2"), group("b", "two", "p3", "p2")),
        "the same text": (group("a", "one", "p1"), group("b", "two", copy)),
    }


@pytest.mark.parametrize("name", linked_pairs())
def test_records_that_share_a_query_or_a_positive_stay_together(files, name):
    """They stay together in each of forty half splits; two unrelated records are separated in some."""
    pair = linked_pairs()[name]
    together = {seed: split_of(files, pair, seed) for seed in range(40)}
    assert set(together.values()) == {True}
    apart = (group("a", "one", "p1", negatives=("p2", "n")), group("b", "two", "p2", negatives=("p1", "n")))
    assert False in {split_of(files, apart, seed) for seed in range(40)}


def split_of(files, pair, seed):
    """Return whether two records are on the same side; further records keep both sides non-empty."""
    train, _, _ = split(files, [*loners(30), *pair], dev_fraction=0.5, seed=seed)
    return len({"a", "b"} & set(train)) != 1


def test_links_lead_on(files):
    """Links are transitive: a and c share nothing, but both share something with b; the last record joins two groups
    of two.
    """
    chain = [
        group("a", "one", "p1"),
        group("d", "four", "p4"),
        group("b", "two", "p1", "p2"),
        group("e", "five", "p4", "p5"),
        group("c", "three", "p2", "p5"),
    ]
    for seed in range(20):
        train, dev, tally = split(files, [*loners(30)[6:], *chain], dev_fraction=0.5, seed=seed)
        assert set("abcde") <= set(train) or set("abcde") <= set(dev)
    assert tally.read["components"] == 24 + 1
    assert tally.read["records in the largest"] == tally.read["records held together by a positive"] == 5


def test_queries_alone_may_be_asked_for(files):
    """With that option, records with the same positive may be separated."""
    pair = linked_pairs()["the same docid"]
    sides = set()
    for seed in range(40):
        train, _, _ = split(files, [*loners(30), *pair], dev_fraction=0.5, seed=seed, link_positives=False)
        sides.add(len({"a", "b"} & set(train)))
    assert sides == {0, 1, 2}


def window(number, *, query=None, best="the best passage", docids=None):
    """A listwise record of two passages, of which the second is the best."""
    record = listwise_record(number, n=2)
    human = (
        f"I will provide you with 2 passages.\n[A] what is first\n[B] {best}\n"
        f"Search Query: listwise question {number}.\nRank the 2 passages above."
    )
    record["conversations"][1:] = [{"from": "human", "value": human}, {"from": "gpt", "value": "[B] > [A]"}]
    return record | ({"query": query} if query else {}) | ({"docids": docids} if docids else {})


def keys(record):
    return record_keys(record, path="x", line=1)


def test_a_listwise_record_is_known_by_its_query_and_its_best_passage():
    """The query is a field of the record or follows the passages in the prompt; docids count if present."""
    assert keys(window(1)) == keys(window(1, query="Listwise question 1"))
    assert keys(window(1)).query == keys(group("q", "listwise question 1", "p")).query
    one = keys(window(1, docids=["d1", "d2"]))
    other = keys(window(2, docids=["d2", "d1"], best="another passage"))
    same_docid = keys(window(2, docids=["d1", "d2"], best="another passage"))
    assert not set(one.positives) & set(other.positives)
    assert set(one.positives) & set(same_docid.positives)
    best = {"docid": "x", "title": "", "text": "The best passage."}
    assert set(keys(window(3)).positives) & set(keys(group("q", "one", best)).positives)


def test_every_relevant_passage_of_a_window_links_it(files):
    """Relevant passages ranked below another also count, by docid and by text; without the key, only the best one
    does.
    """
    first = window(1, best="apples", docids=["x1", "x2"]) | {"positive_docids": ["x1", "x2"]}
    second = window(2, best="pears", docids=["x1", "y2"])
    third = window(3, best="what is first", docids=["z1", "z2"])
    assert set(keys(first).positives) & set(keys(second | {"positive_docids": ["y2", "x1"]}).positives)
    assert set(keys(first).positives) & set(keys(third).positives)
    assert not set(keys(first).positives) & set(keys(second).positives)
    records = [first | {"id": "a"}, second | {"id": "b", "positive_docids": ["x1", "y2"]}]
    assert {split_of(files, records, seed) for seed in range(20)} == {True}
    with pytest.raises(DataError, match="x:1: record 'r1': positive_docids: expected an array"):
        keys(window(1) | {"positive_docids": "x1"})


def test_listwise_and_pointwise_records_are_split_alike(files):
    """In one file or in two, records with the same query are on the same side."""
    groups = loners(60)
    windows = [window(i, query=f"question number {i}", best=f"words number {i}") for i in range(60)]
    _, dev, _ = split(files, groups, dev_fraction=0.3)
    _, dev_windows, _ = split(files, windows, dev_fraction=0.3)
    assert [int(name[1:]) for name in dev_windows] == [int(name[1:]) for name in dev]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "1"}, "in.jsonl:3: expected a listwise record (key 'conversations') or a pointwise one"),
        (group("q", "one"), "in.jsonl:3: query 'q': positive_passages is empty"),
        (listwise_record(1) | {"conversations": [{"from": "human", "value": "[A] x"}, {"from": "gpt", "value": "[A]"}]},
         "contains no query"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_an_error_or_skipped(files, record, message):
    """The error gives file and line; skipped records are counted and written to neither side."""
    records = [*loners(2), record, *loners(40)[2:]]
    with pytest.raises(DataError) as caught:
        split(files, records, dev_fraction=0.5)
    assert message in str(caught.value)
    train, dev, tally = split(files, records, dev_fraction=0.5, bad_records="skip")
    assert len(train) + len(dev) == 40
    assert counts(tally) == {("records", "unreadable"): 1}


def test_an_empty_side_is_an_error(files):
    """If all records share one passage, the error says so and suggests what to do."""
    records = [group(f"q{i}", f"question {i}", "same") for i in range(9)]
    with pytest.raises(RankLLMError) as caught:
        split(files, records)
    assert "9 records form 1 components, the largest with 9; use another --dev-fraction or --seed or" in str(
        caught.value
    )
    assert not files.path("train.jsonl").exists()
    with pytest.raises(RankLLMError, match="contains no records"):
        split(files, [])
    with pytest.raises(ConfigError):
        SplitRule(dev_fraction=1.0)


def test_a_side_far_from_what_was_asked_for_is_said(files):
    """With one component of 90 records and 10 single ones, the dev set is far too large or too small."""
    records = [*loners(10), *(group(f"x{i}", f"other {i}", "same") for i in range(90))]
    _, dev, tally = split(files, records, dev_fraction=0.2)
    (note,) = tally.notes
    assert f"Warning: dev has {len(dev)}.0% of the records instead of the requested 20.0%" in note
    assert "the largest component contains 90.0%" in note
    _, _, tally = split(files, loners(100), dev_fraction=0.2)
    assert tally.notes == []


def test_real_records_are_split_without_a_leak(tmp_path):
    """Natural Questions, where more than 300 questions share a paragraph with another one."""
    folder = data("nq_qed")
    sources = JudgedSources(
        run=folder / "runs/bm25.train.top50.run.gz",
        qrels=folder / "qrels.train.txt",
        queries=folder / "queries.train.tsv",
        corpus=folder / "corpus.jsonl.gz",
    )
    mined = mine(sources, MineRule(negatives_per_query=1), output=tmp_path / "all.jsonl.gz")
    tally = split_records(
        tmp_path / "all.jsonl.gz", SplitRule(), train=tmp_path / "train.jsonl", dev=tmp_path / "dev.jsonl"
    )
    shared = []
    for name in ("train", "dev"):
        records = [record.value for record in read_json_records(tmp_path / f"{name}.jsonl")]
        queries = {" ".join(record["query"].lower().split()) for record in records}
        positives = [p for record in records for p in record["positive_passages"]]
        assert len(records) == tally.made[f"{name} records"]
        shared.append((queries, {p["docid"] for p in positives}, {p["text"] for p in positives}))
    assert [one & other for one, other in zip(*shared, strict=True)] == [set(), set(), set()]
    assert mined.made["records"] == tally.made["train records"] + tally.made["dev records"]
    assert 0.08 < tally.made["dev records"] / mined.made["records"] < 0.12
    assert tally.read["records held together by a positive"] > 300
