"""Training reads data sets from a hub, including the originals', which contain a loading script."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("datasets")

from data_set_hub import lines, run_with_hub, serving_data_sets, with_script
from training_fakes import pointwise_record

AUG = "Tevatron/msmarco-passage-aug"
READ = """
from rankllm_core.errors import RankLLMError
from rankllm_train.data.sources import pointwise_source
for name in {names!r}:
    try:
        print(name, [(record.line, record.qid, len(record.negatives)) for record in pointwise_source(name, limit=3)])
    except RankLLMError as error:
        print(error)
"""


def parquet(*rows):
    """Return rows as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Map name -> what was read with the hub, and without it."""
    folder = tmp_path_factory.mktemp("hub")
    records = [pointwise_record(number) for number in range(4)]
    converted = with_script("some/converted") | {
        "refs/convert/parquet": {
            "default/train/0000.parquet": parquet(*records[2:]),
            "default/partial-dev/0000.parquet": parquet(*records[:1]),
        }
    }
    repositories = {
        AUG: with_script(AUG, train=lines(*records), dev=lines(records[0])),
        "some/damaged": with_script("some/damaged", train=lines(records[0], {"query": "without an id"})),
        "some/converted": converted,
        "some/nothing": with_script("some/nothing", dev=lines(records[0])),
        "some/plain": {"main": {"README.md": b"# A data set", "train.jsonl.gz": lines(*records[:2])}},
    }
    with serving_data_sets(repositories) as (hub, _):
        online = run_with_hub(READ.format(names=list(repositories)), folder=folder, hub=hub)
    return dict(zip(repositories, online, strict=True)), run_with_hub(
        READ.format(names=[AUG, "no/where"]), folder=folder
    )


def test_the_data_of_rankllama_are_read_from_their_files(read):
    """In file order, split `train`; again offline, from what was downloaded."""
    online, offline = read
    assert online[AUG] == f"{AUG} [(1, 'q0', 6), (2, 'q1', 6), (3, 'q2', 6)]"
    assert offline[0] == online[AUG]


def test_a_data_set_without_a_script_is_read_as_before(read):
    """Through `datasets`."""
    assert read[0]["some/plain"] == "some/plain [(1, 'q0', 6), (2, 'q1', 6)]"


def test_the_hubs_conversion_stands_in_where_there_are_no_files(read):
    """Needed for a repository whose script downloads from elsewhere."""
    assert read[0]["some/converted"] == "some/converted [(1, 'q2', 6), (2, 'q3', 6)]"


def test_what_cannot_be_read_is_one_line(read):
    """A damaged record by its number, a missing split by the files found, an unknown name."""
    online, offline = read
    assert online["some/damaged"].startswith("some/damaged:2: ")
    assert "no data file named for the split 'train' (dev.jsonl.gz)" in online["some/nothing"]
    assert offline[1].startswith("no/where: neither a file nor an available data set on the hub")
