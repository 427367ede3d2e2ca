"""The transformer in PyTerrier itself, without Java: frames, operators, experiments, ties, loading once."""

from __future__ import annotations

import logging
import pickle

import pytest
from framework_fakes import REFUSED, counted_model, examples, listwise, pointwise, unreadable

from rankllm_core.errors import ConfigError, RankLLMError

pytest.importorskip("pyterrier", reason="needs PyTerrier: scripts/test-integrations pyterrier runs these")

import pandas as pd
import pyterrier as pt

from rankllm_infer.integrations.pyterrier import RankLLMReRanker

WORTH = {"q1": [2, 9, 2, 5], "q2": [1, 7]}
"""Worth of each query's documents, in first-stage order."""
BEST = {"q1": ["d2", "d4", "d1", "d3"], "q2": ["d2", "d1"]}


def frame(worth=None, **columns):
    """Results of a first stage, with an additional column."""
    rows = [
        {
            "qid": qid,
            "query": f"query {qid}",
            "docno": f"d{rank + 1}",
            "text": f"worth {value}",
            "score": 20.0 - rank,
            "rank": rank,
            "url": f"{qid}/{rank}",
        }
        for qid, values in (worth or WORTH).items()
        for rank, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**columns)


def order(done):
    """The docnos of each query by rank."""
    return {qid: list(rows.sort_values("rank")["docno"]) for qid, rows in done.groupby("qid", sort=False)}


def test_each_query_is_reranked_and_other_columns_are_kept():
    """Ranks count from 0, scores strictly decrease, rows are sorted, and the original frame is unchanged."""
    given = frame()
    before = given.copy(deep=True)
    done = RankLLMReRanker(reranker=listwise())(given)
    assert list(done["docno"]) == [*BEST["q1"], *BEST["q2"]]
    assert list(done["rank"]) == [0, 1, 2, 3, 0, 1]
    assert list(done["score"]) == [4.0, 3.0, 2.0, 1.0, 2.0, 1.0]
    assert list(done["url"]) == ["q1/1", "q1/3", "q1/0", "q1/2", "q2/1", "q2/0"]
    assert list(done.columns) == [*given.columns, "rankllm_status", "rankllm_defects"]
    assert set(done["rankllm_status"]) == {"ok"}
    pd.testing.assert_frame_equal(given, before)


def test_ties_of_a_pointwise_model_are_told_apart():
    """By the smallest step in single precision, in which trec_eval compares: it would order ties by docno."""
    done = RankLLMReRanker(reranker=pointwise())(frame({"q": [3, 3, 3]}))
    assert order(done) == {"q": ["d1", "d2", "d3"]}
    scores = done["score"].astype("float32")
    assert scores.is_monotonic_decreasing
    assert scores.is_unique
    assert list(scores) == pytest.approx([3.0, 3.0, 3.0])


def test_queries_are_reranked_together():
    """Their prompts share batches: two queries with one window each form one batch of two."""
    reranker = listwise()
    RankLLMReRanker(reranker=reranker)(frame())
    assert reranker.engine.batches == [2]


def test_the_first_stage_order_is_that_of_ranks_then_scores_then_rows():
    """A model with unreadable answers shows it: its order is the previous one."""
    transformer = RankLLMReRanker(reranker=listwise(unreadable))
    shuffled = frame({"q": [1, 2, 3]}).iloc[[2, 0, 1]]
    assert order(transformer(shuffled)) == {"q": ["d1", "d2", "d3"]}
    assert order(transformer(shuffled.drop(columns="rank"))) == {"q": ["d1", "d2", "d3"]}
    assert order(transformer(shuffled.drop(columns=["rank", "score"]))) == {"q": ["d3", "d1", "d2"]}


def test_operators_compose():
    """`>>`, `%`, `|`, `+` and `search`, with PyTerrier's own transformers."""
    reranker = RankLLMReRanker(reranker=listwise())
    retriever = pt.Transformer.from_df(frame()[["qid", "docno", "score", "rank"]])
    texts = {(row.qid, row.docno): row.text for row in frame().itertuples()}
    text = pt.apply.text(lambda row: texts[row["qid"], row["docno"]])
    queries = frame()[["qid", "query"]].drop_duplicates()
    pipeline = retriever >> text >> reranker
    assert order(pipeline(queries)) == BEST
    assert order((pipeline % 1)(queries)) == {"q1": ["d2"], "q2": ["d2"]}
    assert order((retriever % 2 >> text >> reranker)(queries)) == {"q1": ["d2", "d1"], "q2": ["d2", "d1"]}
    assert len((pipeline | retriever)(queries)) == 6
    assert order((pipeline + pipeline)(queries))["q2"] == BEST["q2"]
    assert order(pipeline.compile()(queries)) == BEST
    assert list(pipeline.search("query q1", qid="q1")["docno"]) == BEST["q1"]
    assert list(pd.DataFrame(reranker(frame().to_dict("records")))["docno"]) == [*BEST["q1"], *BEST["q2"]]


def test_an_experiment_measures_it():
    """Reciprocal rank of the most valuable document: 1 after the reranker, 1/2 before it."""
    text = pt.apply.text(lambda row: f"worth {WORTH[row['qid']][int(row['docno'][1:]) - 1]}")
    retriever = pt.Transformer.from_df(frame()[["qid", "docno", "score", "rank"]])
    queries = frame()[["qid", "query"]].drop_duplicates()
    qrels = pd.DataFrame([{"qid": qid, "docno": "d2", "label": 1} for qid in WORTH])
    found = pt.Experiment(
        [retriever, retriever >> text >> RankLLMReRanker(reranker=listwise())],
        queries,
        qrels,
        ["recip_rank"],
        names=["first", "reranked"],
    )
    assert list(found["recip_rank"]) == [0.5, 1.0]


def test_an_empty_frame_has_the_same_columns():
    """So that PyTerrier can determine a pipeline's columns without running it."""
    reranker = listwise()
    transformer = RankLLMReRanker(reranker=reranker)
    full = transformer(frame())
    empty = transformer(frame().iloc[:0])
    assert list(empty.columns) == list(full.columns)
    assert len(empty) == 0
    assert len(reranker.engine.asked) == 2
    columns = ["qid", "query", "docno", "text"]
    told = [*columns, "score", "rank", "rankllm_status", "rankllm_defects"]
    assert pt.inspect.transformer_outputs(transformer, columns) == told
    assert list(transformer(frame()[columns]).columns) == told


def test_ids_may_be_numbers_and_keep_their_type():
    """As in frames that pandas read from a file."""
    given = frame({"q": [1, 2, 3]}).assign(qid=7, docno=[30, 20, 10])
    done = RankLLMReRanker(reranker=listwise())(given)
    assert (list(done["qid"]), list(done["docno"])) == ([7, 7, 7], [10, 20, 30])


def test_the_columns_of_query_and_text_are_named():
    """After a query expansion, query_0 is the original query."""
    reranker = listwise()
    given = frame({"q": [1, 2]}, query_0="as asked", body=["worth 2", "worth 1"])
    done = RankLLMReRanker(reranker=reranker, query_field="query_0", text_field="body")(given)
    assert order(done) == {"q": ["d1", "d2"]}
    assert "as asked" in reranker.engine.asked[0].text
    with pytest.raises(pt.validate.InputValidationError, match="text"):
        RankLLMReRanker(reranker=reranker)(frame().drop(columns="text"))


def test_titles_are_shown_where_their_column_is_named():
    """Like `rankllm-infer rerank` with a corpus; missing titles are empty."""
    reranker = listwise()
    RankLLMReRanker(reranker=reranker, title_field="title")(frame({"q": [1, 2]}, title=["T", None]))
    assert "[1] Title: T Content: worth 1" in reranker.engine.asked[0].text
    assert "[2] worth 2" in reranker.engine.asked[0].text
    with pytest.raises(pt.validate.InputValidationError, match="title"):
        RankLLMReRanker(reranker=reranker, title_field="title")(frame())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            frame(text=None),
            r"query 'q1', docno 'd1': expected a text in column 'text', found NoneType None; add the texts",
        ),
        (frame(query=" "), r"query 'q1': expected one text in column 'query', found \[' '\]"),
        (frame(query=[*"abcdef"]), r"query 'q1': expected one text in column 'query', found \['a', 'b', 'c', 'd'\]"),
        (frame(docno="d"), r"query 'q1': docid 'd' occurs twice"),
    ],
)
def test_a_frame_that_cannot_be_used_is_one_line(given, message):
    """The line names the query."""
    with pytest.raises(RankLLMError, match=message) as caught:
        RankLLMReRanker(reranker=listwise())(given)
    assert "\n" not in str(caught.value)


def test_an_empty_text_is_ranked():
    """Collections contain such documents, and the model sees them unchanged."""
    done = RankLLMReRanker(reranker=listwise(unreadable))(frame({"q": [1, 2]}, text=["", "a"]))
    assert order(done) == {"q": ["d1", "d2"]}


def test_a_model_is_loaded_once_when_the_transformer_is_made():
    """Whatever is run."""
    with counted_model() as (model, loads):
        transformer = RankLLMReRanker(model["model"], options=model["options"])
        assert loads() == 1
        assert order(transformer(frame())) == BEST
        assert order((transformer % 1)(frame())) == {"q1": ["d2"], "q2": ["d2"]}
        assert loads() == 1
        assert repr(transformer) == "RankLLMReRanker('oracle')"
        assert order(pickle.loads(pickle.dumps(transformer))(frame())) == BEST  # as parallel runs do
        assert loads() == 2


def test_pyterrier_can_look_inside():
    """Its inputs and its settings, under the names of the arguments."""
    transformer = RankLLMReRanker(reranker=listwise(), text_field="body")
    assert pt.inspect.transformer_inputs(transformer) == [["qid", "docno", "query", "body"]]
    settings = {found.name: found.value for found in pt.inspect.transformer_attributes(transformer)}
    assert (settings["text_field"], settings["model"], settings["verbose"]) == ("body", None, False)
    assert repr(transformer) == "RankLLMReRanker('reranker')"
    with pytest.raises(AttributeError):
        transformer.set_parameter("model", "another")
    transformer.set_parameter("text_field", "text")
    assert order(transformer(frame())) == BEST


def test_the_same_frame_gives_the_same_frame(capsys):
    """With and without a progress bar."""
    one, other = (RankLLMReRanker(reranker=listwise(), verbose=verbose)(frame()) for verbose in (False, True))
    pd.testing.assert_frame_equal(one, other)
    assert "2/2" in capsys.readouterr().err


def test_a_fallback_is_in_the_frame_and_in_the_log(caplog):
    """For the affected query."""

    def answer(prompt):
        return unreadable(prompt) if "query q2" in prompt.text else fine(prompt)

    fine = listwise().engine._answer
    with caplog.at_level(logging.WARNING, logger="rankllm_infer.integrations"):
        done = RankLLMReRanker(reranker=listwise(answer))(frame())
    assert done.groupby("qid")["rankllm_status"].unique().explode().to_dict() == {"q1": "ok", "q2": "fallback"}
    assert done.loc[done["qid"] == "q2", "rankllm_defects"].str.len().min() > 0
    assert "query 'q2': some of the model's answers could not be read" in caplog.text


def test_a_query_that_fails_is_an_error():
    """The error names it, even if its qid equals the default qid of unnamed requests."""
    for qid in ("q1", "1"):
        with pytest.raises(RankLLMError, match=f"query '{qid}': out of order"):
            RankLLMReRanker(reranker=listwise(lambda prompt: REFUSED))(frame({qid: [1, 2]}))


def test_scores_of_the_first_stage_are_fused_in():
    """If the card says so: with weight 1 they decide alone."""
    given = frame({"q": [1, 2, 3]}, score=[1.0, 3.0, 2.0]).drop(columns="rank")
    assert order(RankLLMReRanker(reranker=pointwise(fuse_weight=1.0))(given)) == {"q": ["d2", "d3", "d1"]}


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({}, ConfigError, "expected either model"),
        ({"model": "m", "options": {"windowsize": 3}}, ConfigError, "windowsize: unknown key; did you mean 'window_s"),
        ({"model": "no/such/folder"}, RankLLMError, "no/such/folder: no such model folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(fields, kind, message):
    """When the transformer is created."""
    with pytest.raises(kind, match=message) as caught:
        RankLLMReRanker(**fields)
    assert "\n" not in str(caught.value)


def test_no_java_was_started():
    """By any previous test."""
    assert not pt.java.started()


@pytest.mark.usefixtures("smollm2_path")
def test_the_examples_of_the_page_run(capsys):
    """With the bundled reranker."""
    text = pt.apply.text(lambda row: f"worth {row['rank']}")
    retriever = pt.Transformer.from_df(frame()[["qid", "docno", "score", "rank"]]) >> text
    qrels = pd.DataFrame([{"qid": "q1", "docno": "d1", "label": 1}])
    scope = {"retriever": retriever, "topics": frame()[["qid", "query"]].drop_duplicates(), "qrels": qrels}
    for program in examples("integrations/pyterrier.md"):
        exec(program, scope)
    assert "d2" in capsys.readouterr().out.splitlines()[1]
