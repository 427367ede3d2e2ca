"""TREC files: what is accepted, what is rejected, and that written runs cannot be reordered."""

from __future__ import annotations

import gzip
import math
import os
import struct
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_files import data

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_core.trec import (
    decreasing_scores,
    format_score,
    holds_ranks,
    iter_run,
    msmarco_lines,
    read_qrels,
    read_run,
    to_float32,
    trec_lines,
    trec_order,
    tsv_lines,
    write_msmarco,
    write_run,
    write_tsv,
)
from rankllm_core.trec.runs import ScoreError

LEAST = 2.0**-149  # the least positive float32
GREATEST = (2 - 2**-23) * 2.0**127  # the greatest
float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Few different values and many repeats, so that ties are common; some at the edges of the format.
tied = st.lists(st.sampled_from([1.0, 1.0 - 2**-24, 0.0, -0.0, LEAST, -LEAST, 2.0**-126, 1e30, -7.5]), max_size=60)


def write(path, text):
    path.write_bytes(text.encode())
    return path


def float32_bits_apart(high, low):
    """The number of float32 steps between two float32 values, counted on their bit patterns."""

    def place(value):
        (bits,) = struct.unpack("<i", struct.pack("<f", value))
        return bits if bits >= 0 else -(bits & 0x7FFFFFFF)

    return place(high) - place(low)


# Runs, read


@pytest.mark.parametrize(
    "text",
    [
        "q1 Q0 d2 1 5.5 tag\nq1 Q0 d1 2 4 tag\nq2 Q0 d9 1 -1e-3 tag\n",
        "q1\tQ0\td2\t1\t5.5\ttag\nq1\tQ0\td1\t2\t4\ttag\nq2\tQ0\td9\t1\t-1e-3\ttag",
        "q1  Q0 d2\t1   5.5 tag \r\n\r\nq1 Q0 d1 2 4 tag\r\nq2 Q0 d9 1 -1e-3 tag\r\n",
        "q1 d2 _ 5.5\nq1 d1 _ 4\nq2 d9 _ -1e-3\n",
        "q1 d2 5.5\nq1   d1 4\nq2\td9\t-1e-3\n",
        "q1\td2\t5.5\nq1\td1\t4\nq2\td9\t-1e-3\n",
        "\ufeffq1\td2\t5.5\r\nq1\td1\t4\r\nq2\td9\t-1e-3\r\n",
    ],
)
def test_every_layout_of_a_run_reads_the_same(tmp_path, text):
    """Six, four and three columns, tabs, repeated spaces, CRLF, blank lines, a byte-order mark."""
    run = read_run(write(tmp_path / "run", text))
    assert run == {"q1": [("d2", 5.5), ("d1", 4.0)], "q2": [("d9", -0.001)]}


def test_gzipped_runs_are_read(tmp_path):
    """Files ending in .gz are decompressed."""
    path = tmp_path / "run.gz"
    path.write_bytes(gzip.compress(b"q Q0 d 1 2.5 t\n"))
    assert read_run(path) == {"q": [("d", 2.5)]}


def test_candidates_keep_the_order_of_the_file(tmp_path):
    """Rank, score and interleaved queries do not change the order of a query's lines."""
    path = write(tmp_path / "run", "b Q0 d1 9 1 t\na Q0 d2 1 5 t\nb Q0 d3 1 7 t\nb Q0 d2 2 1 t\n")
    run = read_run(path)
    assert list(run) == ["b", "a"]
    assert run["b"] == [("d1", 1.0), ("d3", 7.0), ("d2", 1.0)]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("q1\ta\t1\nq2\tc\t1\nq1\tb\t2\n", [-1.0, -2.0]),  # ranks, queries interleaved
        ("q1\ta\t2.0\nq1\tb\t1.0\n", [2.0, 1.0]),  # whole scores that fall, as listwise results have
        ("q1\ta\t-1\nq1\tb\t2\n", [-1.0, 2.0]),
        ("q1\ta\t3\nq1\tb\t3\nq1\tc\t1\n", [3.0, 3.0, 1.0]),
        ("q1 Q0 a 1 1 t\nq1 Q0 b 2 2 t\n", [1.0, 2.0]),  # six columns say which is the rank
    ],
)
def test_three_columns_are_ranks_only_when_they_count_from_one(tmp_path, text, scores):
    """The MS MARCO layout is detected by 1, 2, 3, ... in every query; scores by a value that cannot be a rank."""
    path = write(tmp_path / "run", text)
    assert [score for _, score in read_run(path)["q1"]] == scores
    assert [line.score for line in iter_run(path) if line.qid == "q1"] == scores


def test_a_named_format_is_not_guessed(tmp_path):
    """`tsv` reads 1, 2 as scores, `msmarco` reads a list with a gap as ranks, `trec` rejects three columns."""
    path = write(tmp_path / "run", "q\ta\t1\nq\tb\t2\n")
    assert read_run(path, format="tsv") == {"q": [("a", 1.0), ("b", 2.0)]}
    gap = write(tmp_path / "gap", "q\ta\t1\nq\tb\t7\n")
    assert read_run(gap, format="msmarco") == {"q": [("a", -1.0), ("b", -7.0)]}
    with pytest.raises(DataError, match=r"run:1: expected 6 \(qid Q0 docid rank score tag\) columns, found 3"):
        read_run(path, format="trec")
    with pytest.raises(ConfigError, match="run format 'csv'"):
        read_run(path, format="csv")


def test_docids_between_tabs_may_hold_blanks(tmp_path):
    """In tab-separated columns only tabs separate; a no-break space never does."""
    path = write(tmp_path / "run.tsv", "q 1\tLos Angeles\t2.5\nq 1\tRome\t1.5\n")
    assert read_run(path) == {"q 1": [("Los Angeles", 2.5), ("Rome", 1.5)]}
    path = write(tmp_path / "run", "q Q0 Los\u00a0Angeles 1 2.5 t\n")
    assert read_run(path) == {"q": [("Los\u00a0Angeles", 2.5)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 0.5 t\nq Q0 d2 2 0.4\n", r"run:2: expected 6 .* columns, found 5: 'q Q0 d2 2 0.4'"),
        ("q d\n", r"run:1: expected 6 .* or 4 .* or 3 .* columns, found 2"),
        ("q Q0 d 1 0.5 my tag\n", r"run:1: expected .*, found 7"),
        ("q Q0 d 1 0.5 t\n\nq Q0 d2 2 high t\n", r"run:3: query 'q', docid 'd2': score 'high' is not a number"),
        ("q Q0 d 1 nan t\n", r"run:1: query 'q', docid 'd': score is nan, expected a finite number"),
        ("q Q0 d 1 -inf t\n", r"run:1: query 'q', docid 'd': score is -inf"),
        ("q Q0 d 1 1e999 t\n", r"run:1: query 'q', docid 'd': score is 1e999"),
        ("q 1 1964316_5\n", r"run:1: .*score '1964316_5' is not a number"),
        ("q\td\tx\n", r"run:1: query 'q', docid 'd': score 'x' is not a number"),
        ("q Q0 d 1 3 t\nr Q0 d 1 3 t\nq Q0 d 2 2 t\n", r"run:3: query 'q': docid 'd' occurs again \(first on line 1\)"),
        ("\td\t3\n", r"run:1: empty qid"),
        ("q\t\t3\n", r"run:1: empty docid"),
    ],
)
def test_a_bad_run_is_an_error_that_says_where(tmp_path, text, message):
    """Nothing is skipped or guessed; the error gives the line, what was found and what was expected."""
    with pytest.raises(DataError, match=message):
        read_run(write(tmp_path / "run", text))


def test_a_rank_that_is_none_is_an_error(tmp_path):
    """Reading scores as MS MARCO ranks would reverse the list."""
    with pytest.raises(DataError, match=r"run:1: query 'q', docid 'd': rank '2.5' is not an integer"):
        read_run(write(tmp_path / "run", "q\td\t2.5\n"), format="msmarco")


def test_streaming_gives_the_lines_of_the_whole(tmp_path):
    """`iter_run` yields every line with its number and keeps none in memory."""
    path = write(tmp_path / "run", "q Q0 d1 1 2 t\n\nr Q0 d2 1 3 t\nq Q0 d3 2 1 t\n")
    assert list(iter_run(path)) == [(1, "q", "d1", 2.0), (3, "r", "d2", 3.0), (4, "q", "d3", 1.0)]


def test_an_empty_run_has_no_queries(tmp_path):
    """An empty file is a valid empty run; the caller decides whether that is acceptable."""
    path = write(tmp_path / "run", "\n")
    assert read_run(path) == {}
    assert list(iter_run(path)) == []


@pytest.mark.parametrize(
    ("name", "n_queries", "n_lines", "first"),
    [
        ("rank_llm.REP_LLAMA.dl19.trec.txt.gz", 43, 43_000, ("1037798", "3620986", 0.861)),
        ("rank_llm.BM25.dl19.trec.txt", 43, 4_300, ("264014", "5611210", 15.780599594116211)),
        ("anserini.cacm-bm25.txt", 64, 1_920, ("1", "CACM-1938", 12.033)),
        ("webis.rank-distillm-rankzephyr.msmarco-train100q.run", 100, 10_000, ("1002990", "3227618", 100.0)),
    ],
)
def test_real_runs_are_read_whole(name, n_queries, n_lines, first):
    """Runs of other systems, compared with wc and their first line."""
    run = read_run(data(f"trec_io/runs/{name}"))
    assert len(run) == n_queries
    assert sum(map(len, run.values())) == n_lines
    qid = next(iter(run))
    assert (qid, *run[qid][0]) == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q\ta\t1\nq\tb\t2\nr\ta\t1\n", True),
        ("q\ta\t1\nq\tb\t-3\n", False),
        ("q\ta\t2.5\n", False),
        ("q Q0 a 1 1 t\nq Q0 b 2 2 t\n", False),
        ("", False),
    ],
)
def test_a_run_that_tells_an_order_only_is_known(tmp_path, text, expected):
    """Three columns, of which the last counts from 1 in every query."""
    assert holds_ranks(write(tmp_path / "run", text)) is expected


def test_a_real_msmarco_run_is_read_as_ranks():
    """The first two documents of its first query have ranks 1 and 2."""
    run = read_run(data("trec_io/runs/msmarco-format.ans_small.run.dev.small.tsv.gz"))
    assert run["188714"][:2] == [("2133570", -1.0), ("4321742", -2.0)]


# Judgements


@pytest.mark.parametrize(
    "text",
    [
        "1 0 a 2\n1 0 b -1\n2 0 a 0\n",
        "1\tQ0\ta\t2\r\n1\tU0\tb\t-1\r\n2\tE0\ta\t0\r\n",
        "1 4.5  a 2\n\n1 4 b -1\n2 0.5 a 0.0\n",
        "query-id\tcorpus-id\tscore\r\n1\ta\t2\r\n1\tb\t-1\r\n2\ta\t0\r\n",
        "1\ta\t2\n1\tb\t-1\n2\ta\t0\n",
        "1 0 a 2\n1 0 b -1\n2 0 a 0\n1 0 a 2\n",  # the same judgement again
    ],
)
def test_every_layout_of_qrels_reads_the_same(tmp_path, text):
    """Four columns with any iteration column, BEIR's three with and without header, tabs, spaces, CRLF."""
    assert read_qrels(write(tmp_path / "qrels", text)) == {"1": {"a": 2, "b": -1}, "2": {"a": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 d 1 1 1.0\n", r"qrels:1: expected 4 columns .*, found 5; prels .* are not supported"),
        ("1 d\n", r"qrels:1: expected 4 columns .*, found 2"),
        ("1 0 a 2\n1 0 b\n", r"qrels:2: expected 4 columns like the lines before, found 3"),
        ("1 0 a yes\n", r"qrels:1: grade 'yes' is not an integer"),
        ("1 0 a 0.5\n", r"qrels:1: grade '0.5' is not an integer"),
        ("1 0 a nan\n", r"qrels:1: grade 'nan' is not an integer"),
        ("1 0 1 7067032\n", r"qrels:1: grade 7067032 is beyond 10000; are the columns in order"),
        ("1 1 a 2\n2 0 a 1\n1 2 a 0\n", r"qrels:3: query '1', docid 'a': grade 0, but 2 on line 1"),
    ],
)
def test_bad_qrels_are_an_error_that_says_where(tmp_path, text, message):
    """Conflicting judgements of one document are rejected, as in trec_eval."""
    with pytest.raises(DataError, match=message):
        read_qrels(write(tmp_path / "qrels", text))


@pytest.mark.parametrize(
    ("name", "n_judgements", "least"),
    [
        ("qrels.dl20-passage.txt", 11_386, 0),
        ("qrels.web.51-100.txt.gz", 25_329, -2),
        ("qrels.msmarco-doc.dev.txt", 5_193, 1),
        ("beir-format.fiqa.test.tsv", 1_706, 1),
        ("qrels.antique_test.txt", 6_589, 0),
        ("qrels.microblog2011.txt.gz", 60_129, -2),
    ],
)
def test_real_qrels_are_read_whole(name, n_judgements, least):
    """Judgements of several tracks, counted by line."""
    qrels = read_qrels(data(f"trec_io/qrels/{name}"))
    assert sum(map(len, qrels.values())) == n_judgements
    assert min(grade for grades in qrels.values() for grade in grades.values()) == least


def test_two_layouts_of_one_collection_agree():
    """FiQA as TREC qrels and in BEIR's layout."""
    beir = read_qrels(data("trec_io/qrels/beir-format.fiqa.test.tsv"))
    assert beir == read_qrels(data("trec_io/qrels/qrels.beir-v1.0.0-fiqa.test.txt"))


def test_diversity_judgements_are_refused_with_the_reason():
    """They have a grade per subtopic, and choosing one would be a guess."""
    with pytest.raises(DataError, match="the second column is a subtopic"):
        read_qrels(data("trec_io/qrels/qrels.web.201-250.ndeval.txt.gz"))


# Scores


def test_trec_order_is_score_then_docid_descending_in_single_precision():
    """1.00000001 and 1 are the same float32, so the greater docid comes first, as in trec_eval."""
    candidates = [("a", 1.00000001), ("b", 1.0), ("c", 2.0), ("é", 1.0), ("Z", 1.0)]
    assert [docid for docid, _ in trec_order(candidates)] == ["c", "é", "b", "a", "Z"]
    assert trec_order(candidates)[3] == ("a", 1.00000001)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], []),
        ([3.0, 2.0, 1.0], [3.0, 2.0, 1.0]),
        ([1.0, 1.0, 1.0], [1.0, 1 - 2**-24, 1 - 2 * 2**-24]),
        ([1.0, 1.0, 1 - 2**-24, 0.5], [1.0, 1 - 2**-24, 1 - 2 * 2**-24, 0.5]),
        ([1.00000001, 1.0], [1.0, 1 - 2**-24]),
        ([0.0, -0.0, 0.0], [0.0, -LEAST, -2 * LEAST]),
        ([-0.0], [0.0]),
        ([LEAST, LEAST, LEAST], [LEAST, 0.0, -LEAST]),
        ([1e-60, 0.0], [0.0, -LEAST]),
        ([-1.0, -1.0], [-1.0, -1 - 2**-23]),
        ([2.0**-126, 2.0**-126], [2.0**-126, 2.0**-126 - LEAST]),
        ([GREATEST, GREATEST], [GREATEST, GREATEST - 2.0**104]),
        ([16777217, 16777216], [16777216.0, 16777215.0]),
    ],
)
def test_ties_are_lowered_by_the_least_step(scores, expected):
    """Steps computed by hand: 2**-24 below 1, 2**-23 below -1, 2**-149 around 0, 2**104 at the top."""
    lowered = decreasing_scores(scores)
    assert lowered == expected
    assert [math.copysign(1, score) for score in lowered] == [math.copysign(1, score) for score in expected]


def test_thousands_of_equal_scores_move_by_as_many_steps():
    """The last of 40,001 ties is lowered by 40,000 float32 steps: 0.0024 for a score of 1."""
    lowered = decreasing_scores([1.0] * 40_001)
    assert lowered[-1] == 1 - 40_000 * 2**-24


@given(st.one_of(st.lists(float32, max_size=60), tied))
def test_scores_strictly_decrease_as_float32_and_hardly_move(scores):
    """A score is lowered by at most as many float32 steps as there are scores before it, and never raised."""
    ranked = sorted(scores, reverse=True)
    if ranked and ranked[-1] < -GREATEST / 2:
        ranked = [score / 2 for score in ranked]  # ties at the very end cannot be lowered
    ranked = to_float32(ranked)
    lowered = decreasing_scores(ranked)
    assert to_float32(lowered) == lowered
    assert all(high > low for high, low in pairwise(lowered))
    for position, (before, after) in enumerate(zip(ranked, lowered, strict=True)):
        assert 0 <= float32_bits_apart(before, after) <= position


def test_a_tie_at_the_end_of_the_range_is_an_error():
    """There is no float32 below the smallest one."""
    with pytest.raises(ScoreError, match="cannot be lowered: it is tied at the end of the float32 range") as error:
        decreasing_scores([0.0, -GREATEST, -GREATEST])
    assert error.value.position == 2


@given(st.lists(st.floats(min_value=-3e38, max_value=3e38), max_size=40, unique=True))
def test_scores_that_differ_enough_are_only_rounded(scores):
    """Scores that are distinct in float32 are only rounded."""
    rounded = sorted(set(to_float32(scores)), reverse=True)
    assert decreasing_scores(rounded) == rounded


@given(float32)
def test_a_printed_score_reads_back_exactly(value):
    """Parsed in double precision and rounded, the text gives the same float32."""
    assert to_float32([float(format_score(value))]) == [value]


@given(float32)
def test_printed_neighbours_stay_in_order_in_double_precision(value):
    """Readers that do not round get the same order."""
    if value > -GREATEST:
        high, low = decreasing_scores([value, value])
        assert float(format_score(high)) > float(format_score(low))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.5, "5.5"),
        (1, "1.0"),
        (0.861, "0.861"),
        (2310938.0, "2310938.0"),
        (-0.001, "-0.001"),
        (100, "100.0"),
        (999_999.0, "999999.0"),
        (-1e6, "-1000000.0"),
        (1e20, "1e+20"),
        (-0.0, "-0.0"),
    ],
)
def test_scores_are_printed_short(value, text):
    """The shortest decimal number that identifies the float32."""
    assert format_score(value) == text


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, math.nan], r"rank 2: is nan; expected a finite number"),
        ([math.inf], r"rank 1: is inf"),
        ([1.0, -math.inf], r"rank 2: is -inf"),
        ([1e39], r"rank 1: 1e\+39 is outside the float32 range"),
        ([3.0, 1.0, 2.0], r"rank 3: 2.0 is higher than the previous score 1.0"),
        ([-GREATEST, -GREATEST], r"rank 2: cannot be lowered"),
    ],
)
def test_scores_that_cannot_stand_in_a_run_are_an_error(scores, message):
    """NaN cannot be sorted, and unsorted scores are not sorted silently."""
    with pytest.raises(RankLLMError, match=message):
        decreasing_scores(scores)


# Runs, written


def test_the_three_layouts_are_written_in_the_order_given(tmp_path):
    """Ranks from 1, ties lowered, one line per candidate."""
    results = [("q1", [("b", 5.5), ("a", 5.5), ("c", 4.0)]), ("q2", []), ("q3", [("x", 1)])]
    write_run(tmp_path / "run", results, tag="mine")
    write_tsv(tmp_path / "tsv", results)
    write_msmarco(tmp_path / "msmarco", iter(results))
    # The float32 below 5.5 is 5.5 - 2**-21 = 5.49999952...
    assert (tmp_path / "run").read_text() == (
        "q1 Q0 b 1 5.5 mine\nq1 Q0 a 2 5.4999995 mine\nq1 Q0 c 3 4.0 mine\nq3 Q0 x 1 1.0 mine\n"
    )
    assert (tmp_path / "tsv").read_text() == "q1\tb\t5.5\nq1\ta\t5.4999995\nq1\tc\t4.0\nq3\tx\t1.0\n"
    assert (tmp_path / "msmarco").read_text() == "q1\tb\t1\nq1\ta\t2\nq1\tc\t3\nq3\tx\t1\n"


@given(st.lists(float32.filter(lambda score: score > -1e38), min_size=1, max_size=30), st.randoms())
def test_no_tie_rule_can_reorder_a_written_run(scores, random):
    """For any docids, trec_eval's order of the lines is the order written."""
    docids = [f"d{number}" for number in range(len(scores))]
    random.shuffle(docids)
    ranking = list(zip(docids, sorted(scores, reverse=True), strict=True))
    for lines, docid_column, score_column in [(trec_lines("q", ranking), 2, 4), (tsv_lines("q", ranking), 1, 2)]:
        read = [(line.split()[docid_column], float(line.split()[score_column])) for line in lines]
        random.shuffle(read)
        assert [docid for docid, _ in trec_order(read)] == docids


def test_a_written_run_reads_back_and_writes_the_same_bytes(tmp_path):
    """Lowered scores are stable: a second pass changes nothing."""
    ranking = [(f"d{number}", score) for number, score in enumerate([3.3, 3.3, 1e-40, 0, 0, -7.7])]
    write_run(tmp_path / "one", [("q", ranking)])
    write_run(tmp_path / "two", read_run(tmp_path / "one").items())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_blanks_in_ids_are_refused_where_blanks_separate():
    """A TREC line would read back as another docid; in tab-separated files the docid is valid."""
    ranking = [("Los Angeles", 1.0)]
    with pytest.raises(RankLLMError, match="query 'q': docid 'Los Angeles': contains whitespace"):
        trec_lines("q", ranking)
    with pytest.raises(RankLLMError, match="qid 'q 1': contains whitespace"):
        trec_lines("q 1", [("d", 1.0)])
    assert tsv_lines("q 1", ranking) == ["q 1\tLos Angeles\t1.0\n"]
    assert msmarco_lines("q 1", ranking) == ["q 1\tLos Angeles\t1\n"]


@pytest.mark.parametrize("docid", ["a\tb", "a\nb", " a", "a\r", "", "\ud800"])
def test_ids_that_no_file_can_carry_are_refused(docid):
    """They would break the line or be read back as another ID."""
    for lines in (trec_lines, tsv_lines, msmarco_lines):
        with pytest.raises(RankLLMError, match="query 'q': docid"):
            lines("q", [(docid, 1.0)])


def test_a_bad_score_names_query_and_docid():
    """The error for NaN names its query and docid."""
    with pytest.raises(RankLLMError, match=r"query 'q7', docid 'd2', rank 2: score is nan"):
        trec_lines("q7", [("d1", 1.0), ("d2", math.nan)])


def test_a_docid_or_query_is_written_once(tmp_path):
    """trec_eval rejects a run that lists a document twice, so such a run is never written."""
    with pytest.raises(RankLLMError, match="query 'q': docid 'd' occurs twice"):
        write_run(tmp_path / "run", [("q", [("d", 2.0), ("d", 1.0)])])
    with pytest.raises(RankLLMError, match="query 'q' occurs twice"):
        write_run(tmp_path / "run", [("q", [("d", 2.0)]), ("q", [("e", 1.0)])])
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_tag_is_one_word():
    """A tag with a space would add a seventh column."""
    with pytest.raises(ConfigError, match="tag 'my run'"):
        trec_lines("q", [("d", 1.0)], tag="my run")


def test_a_run_through_a_pipe_is_refused_where_it_is_read_twice(tmp_path):
    """A pipe cannot be read again. With a given format, one pass is enough."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RankLLMError, match=r"pipe: is a pipe, but must be read twice; give a file$"):
        next(iter_run(tmp_path / "pipe"))
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("q Q0 d 1 2.5 t\n"))
    writer.start()
    assert [row.docid for row in iter_run(tmp_path / "pipe", format="trec")] == ["d"]
    writer.join()
