"""Datasets and first stages by name: rank_llm's names, other common names, and unknown ones."""

from __future__ import annotations

import pytest

from rankllm_core.errors import ConfigError
from rankllm_infer.retrieval.retrieval_data import DATASETS, METHODS, find_dataset, find_method, index_of


@pytest.mark.parametrize(
    ("name", "dataset", "topics", "qrels", "bm25"),
    [
        ("dl19", "dl19", "dl19-passage", "dl19-passage", "msmarco-v1-passage"),
        ("DL20-passage", "dl20", "dl20-passage", "dl20-passage", "msmarco-v1-passage"),
        ("dl23", "dl23", "dl23", "dl23-passage", "msmarco-v2-passage"),
        *(
            (name, "covid", "beir-v1.0.0-trec-covid-test", "beir-v1.0.0-trec-covid-test", "beir-v1.0.0-trec-covid.flat")
            for name in ("covid", "trec-covid", "beir-trec-covid", "beir-v1.0.0-trec-covid-test")
        ),
        ("mrtydi-sw", "mrtydi-sw", "mrtydi-v1.1-swahili-test", "mrtydi-v1.1-swahili-test", "mrtydi-v1.1-swahili"),
    ],
)
def test_data_sets_have_the_names_in_use(name, dataset, topics, qrels, bm25):
    """rank_llm's short ones, BEIR's, and Pyserini's own; case is ignored."""
    found = find_dataset(name)
    assert (found.name, found.topics, found.qrels, found.texts) == (dataset, topics, qrels, bm25)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("bm25", "BM25"),
        ("bm25_rm3", "BM25_RM3"),
        ("bm25+rm3", "BM25_RM3"),
        ("SPLADE++_EnsembleDistil_ONNX", "SPLADE_P_P_ENSEMBLE_DISTIL"),
        ("SPLADE_P_P_ENSEMBLE_DISTIL", "SPLADE_P_P_ENSEMBLE_DISTIL"),
        ("splade-v3", "SPLADE_V3"),
        ("distilbert_tas_b", "D_BERT_KD_TASB"),
        ("openai-ada2", "OPEN_AI_ADA2"),
        ("rep-llama", "REP_LLAMA"),
    ],
)
def test_methods_have_the_names_in_use(name, folder):
    """The originals' options and folders, with dashes or underscores."""
    assert find_method(name).folder == folder


def test_there_are_as_many_data_sets_as_the_original_has():
    """5 of TREC, 29 of BEIR (cqadupstack counts as 12), 11 of Mr. TyDi; every name refers to one of them."""
    assert len(DATASETS) == 5 + 29 + 11
    for known in (DATASETS, METHODS):
        names = [name.lower() for one in known for name in {one.name, *one.aliases}]
        assert len(names) == len(set(names))


def test_each_method_has_its_index():
    """SPLADE's in addition to BM25's, if Pyserini has one."""
    assert index_of(find_dataset("dl20"), find_method("splade++")) == "msmarco-v1-passage.splade-pp-ed-text"
    assert index_of(find_dataset("nfc"), find_method("splade_v3")) == "beir-v1.0.0-nfcorpus.splade-v3"
    assert index_of(find_dataset("dl21"), find_method("bm25_rm3")) == "msmarco-v2-passage"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: find_dataset("nfcorpsu"),
            "dataset 'nfcorpsu': unknown; did you mean 'nfcorpus'\\? known names: dl19",
        ),
        (
            lambda: find_method("bm52"),
            "retrieval method 'bm52': unknown; did you mean 'bm25'\\? known names: bm25, bm25_r",
        ),
        (
            lambda: index_of(find_dataset("dl21"), find_method("splade_v3")),
            "splade_v3 has no prebuilt index for dataset dl21; choose one of bm25, bm25_rm3$",
        ),
        (
            lambda: index_of(find_dataset("dl19"), find_method("rep-llama")),
            "rep-llama is available only as stored results for dataset dl19; choose one of bm25, bm25_rm3, SPLADE",
        ),
    ],
)
def test_what_is_not_there_is_told_with_what_is(call, message):
    """One line that helps."""
    with pytest.raises(ConfigError, match=message):
        call()
