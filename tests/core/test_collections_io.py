"""Corpora and query files: every accepted layout, and every rejected one with its location."""

import gzip
import lzma

import pytest
from shared_files import data

from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.errors import DataError


def written(tmp_path, text, name):
    path = tmp_path / name
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text.encode()))
    return path


def refusal(read, path):
    """The error message with paths relative to the folder."""
    with pytest.raises(DataError) as caught:
        list(read(path))
    return str(caught.value).removeprefix(str(path.parent) + "/")


# Queries


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.tsv", "q1\twhat is aml\n7\tgröße 数\n"),
        ("q.txt", "q1\twhat is aml\r\n7\tgröße 数\r\n"),
        ("q", "q1 \twhat is aml\t\n\n7\tgröße 数\t\t\n"),
        ("q.tsv", "\ufeffqid\ttext\nq1\twhat is aml\n7\tgröße 数\n"),
        ("q.tsv.gz", "query_id\tquery\nq1\twhat is aml\n7\tgröße 数\n"),
        ("q.tsv.xz", "q1\twhat is aml\n7\tgröße 数\n"),
        ("q.jsonl", '{"query_id": "q1", "query": "what is aml"}\n{"query_id": 7, "query": "gr\\u00f6ße 数"}\n'),
        ("q.jsonl", '{"_id": "q1", "text": "what is aml", "metadata": {}}\n{"id": 7, "text": "größe 数"}\n'),
        ("q.json.gz", '{"qid": "q1", "text": "what is aml"}\n{"qid": "7", "query": "größe 数", "text": "other"}\n'),
    ],
)
def test_queries_are_read_from_every_layout(tmp_path, name, text):
    """TSV with and without header, CRLF, a byte-order mark, an empty last column; several JSON Lines layouts."""
    queries = read_queries(written(tmp_path, text, name))
    assert list(queries.items()) == [("q1", "what is aml"), ("7", "größe 数")]


def test_a_query_that_is_listed_twice_with_one_text_is_one_query(tmp_path):
    """Identical repetitions are accepted."""
    assert read_queries(written(tmp_path, "q1\ta\nq2\tb\nq1\ta\n", "q.tsv")) == {"q1": "a", "q2": "b"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "queries.tsv",
            "q1\tfine\nwhat is aml\n",
            "queries.tsv:2: expected 2 tab-separated fields (qid, text), found 1: 'what is aml'",
        ),
        ("q.tsv", "q1\ta\tb\n", "q.tsv:1: expected 2 tab-separated fields (qid, text), found 3: 'q1\\ta\\tb'"),
        ("q.tsv", "q1\tfine\nq2\t \n", "q.tsv:2: query 'q2': expected a text, found an empty one"),
        ("q.tsv", "q1\t\n", "q.tsv:1: query 'q1': expected a text, found an empty one"),
        ("q.tsv", "\tt\n", "q.tsv:1: qid: expected a non-empty string or an integer, found the string ''"),
        ("q.tsv", "q1\ta\n\nq1\tb\n", "q.tsv:3: query 'q1' has two texts: 'a' in line 1, 'b' here"),
        (
            "q.tsv",
            '{"qid": "q1", "text": "t"}\n',
            "q.tsv:1: expected tab-separated lines, found a JSON object; JSON Lines files must be named .jsonl",
        ),
        ("q.jsonl", "q1\tt\n", "q.jsonl:1: not JSON: Expecting value at column 1"),
        ("q.jsonl", '{"qid": "q1"}\n', "q.jsonl:1: query 'q1': expected the key 'query' or 'text', found 'qid'"),
        (
            "q.jsonl",
            '{"text": "t"}\n',
            "q.jsonl:1: query: expected the key 'query_id' or 'qid' or '_id' or 'id', found 'text'",
        ),
        (
            "q.jsonl",
            '{"qid": "q1", "query": {"text": "t"}}\n',
            "q.jsonl:1: query 'q1': query: expected a string, found an object",
        ),
        (
            "q.jsonl",
            '{"qid": null, "query": "t"}\n',
            "q.jsonl:1: qid: expected a non-empty string or an integer, found null",
        ),
    ],
)
def test_an_unusable_query_is_refused_with_its_place(tmp_path, name, text, message):
    """The error gives file, line, what was found and what was expected."""
    assert refusal(read_queries, written(tmp_path, text, name)) == message


@pytest.mark.parametrize(("name", "start"), [("topics.robust04.txt", "'<top>'"), ("topics.cacm.txt", "'<DOC>'")])
def test_trec_markup_is_refused_by_name(name, start):
    """Old TREC topics are not tables; the error says how to convert them."""
    path = data(f"trec_io/topics/{name}")
    assert refusal(read_queries, path) == (
        f"{name}:1: TREC or XML markup ({start}) is not supported; "
        "expected tab-separated lines (id, text) or JSON Lines"
    )


@pytest.mark.parametrize(
    ("name", "count", "qid", "text"),
    [
        ("trec_io/topics/topics.dl20.txt", 200, "1037496", "who is rep scalise?"),  # CRLF
        ("trec_io/topics/topics.dl19-passage.txt", 43, "156493", "do goldfish grow"),
        ("medquad/queries.tsv.gz", 16407, "1-0000001_1-1", "What is (are) Adult Acute Lymphoblastic Leukemia ?"),
        ("nfcorpus/queries.tsv", 323, "PLAIN-12", "Exploiting Autophagy to Live Longer"),
    ],
)
def test_real_query_files_are_read_whole(name, count, qid, text):
    """The number of queries is that of the lines (wc -l), and one query is compared with the file."""
    queries = read_queries(data(name))
    assert len(queries) == count
    assert queries[qid] == text


# Corpora


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.jsonl", '{"docid": "d1", "title": "T", "text": "x"}\n{"docid": 2, "title": "", "text": "y"}\n'),
        ("c.json.gz", '{"_id": "d1", "title": "T", "text": "x"}\n{"_id": "2", "title": "", "text": "y"}\n'),
        ("c.tsv", "d1\tT\tx\n2\ty\n"),
        ("c.txt.gz", "d1\tT\tx\r\n2\t\ty\r\n"),
        ("c.tsv.xz", "d1 \tT\tx\n2\ty\t\n"),
        ("c.tsv", "docid\ttitle\ttext\nd1\tT\tx\n2\t\ty\n"),
    ],
)
def test_passages_are_read_from_every_layout(tmp_path, name, text):
    """Tevatron and BEIR JSON Lines; TSV with two and three columns, with header, with CRLF; compressed."""
    passages = list(read_corpus(written(tmp_path, text, name)))
    assert passages == [("d1", {"title": "T", "text": "x"}), ("2", {"title": "", "text": "y"})]


@pytest.mark.parametrize(
    ("line", "passage"),
    [
        ('{"id": "d", "contents": "x"}', ("d", {"contents": "x"})),
        ('{"_id": "d", "text": "x", "metadata": {"url": "u"}}', ("d", {"text": "x", "metadata": {"url": "u"}})),
        ('{"docid": "d#0", "url": "u", "segment": "x"}', ("d#0", {"url": "u", "segment": "x"})),
        ('{"pid": "p", "passage": "x", "docid": "d"}', ("p", {"passage": "x", "docid": "d"})),
        ('{"docid": "d", "text": null, "title": "\\ud83d"}', ("d", {"text": None, "title": "\ud83d"})),
    ],
)
def test_a_record_keeps_its_other_keys(tmp_path, line, passage):
    """Anserini, BEIR, MS MARCO v2.1 segments, and MS MARCO v2 passages, which also name their document."""
    assert list(read_corpus(written(tmp_path, line, "c.jsonl"))) == [passage]


def test_columns_are_read_by_the_names_that_the_first_line_gives(tmp_path):
    """DPR's Wikipedia dump has the text before the title; missing trailing fields are empty."""
    path = written(tmp_path, "id\ttext\ttitle\n1\tx\tT\n2\ty\n", "c.tsv")
    assert list(read_corpus(path)) == [("1", {"text": "x", "title": "T"}), ("2", {"text": "y", "title": ""})]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "c.tsv",
            "d1\tx\nd2\n",
            "c.tsv:2: expected 2 or 3 tab-separated fields (docid, text or docid, title, text), found 1: 'd2'",
        ),
        (
            "c.tsv",
            "d1\ta\tb\tc\n",
            "c.tsv:1: expected 2 or 3 tab-separated fields (docid, text or docid, title, text), "
            "found 4: 'd1\\ta\\tb\\tc'",
        ),
        ("c.tsv", "id\ttext\n1\ta\tb\n", "c.tsv:2: expected 2 tab-separated fields (id, text), found 3: '1\\ta\\tb'"),
        (
            "c.jsonl",
            '{"text": "x"}\n',
            "c.jsonl:1: passage: expected the key 'pid' or 'docid' or '_id' or 'id', found 'text'",
        ),
        (
            "c.jsonl",
            '{"docid": "d", "title": "x"}\n',
            "c.jsonl:1: passage 'd': expected the key 'text' or 'segment' or 'contents' or 'content' or 'body' or "
            "'passage', found 'docid', 'title'",
        ),
        (
            "c.jsonl",
            '{"docid": [1], "text": "x"}\n',
            "c.jsonl:1: docid: expected a non-empty string or an integer, found an array",
        ),
        ("c.jsonl", '["d", "x"]\n', "c.jsonl:1: expected a JSON object, found list"),
    ],
)
def test_an_unusable_passage_is_refused_with_its_place(tmp_path, name, text, message):
    """The error gives file, line, what was found and what was expected."""
    assert refusal(read_corpus, written(tmp_path, text, name)) == message


def test_a_corpus_is_streamed(tmp_path):
    """The first passage is returned before the second line is read."""
    passages = read_corpus(written(tmp_path, "d1\tx\nd2\n", "c.tsv"))
    assert next(passages) == ("d1", {"title": "", "text": "x"})
    with pytest.raises(DataError, match=r"c\.tsv:2"):
        next(passages)


@pytest.mark.parametrize(("name", "count"), [("nfcorpus/corpus.jsonl.gz", 3633), ("wikiqa/corpus.jsonl", 11406)])
def test_real_corpora_are_read_whole(name, count):
    """The number of passages is that in the collection's README, and docids are unique."""
    docids = [docid for docid, _ in read_corpus(data(name))]
    assert len(docids) == len(set(docids)) == count
