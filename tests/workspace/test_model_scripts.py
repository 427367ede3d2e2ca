"""The scripts that produce the bundled rerankers: what becomes a record, and what is checked."""

from __future__ import annotations

import pytest


@pytest.fixture
def pieces(model_script):
    """The module that splits passages for training."""
    return model_script("pieces")


def test_pieces_end_with_sentences(pieces):
    """Ten words per sentence, five are enough; a long piece is split at 80 words, and a rest under 12 joins the
    previous piece.
    """
    sentence = "one two three four five six seven eight nine ten."
    assert [len(p.split()) for p in pieces.split_passage(" ".join([sentence] * 12))] == [50, 50, 20]
    assert [len(p.split()) for p in pieces.split_passage(" ".join([sentence] * 11))] == [50, 60]
    assert [len(p.split()) for p in pieces.split_passage("word " * 200)] == [80, 80, 40]
    assert pieces.split_passage(sentence) == [sentence]
    assert pieces.split_passage(" ") == []


def test_the_best_piece_of_a_relevant_passage_is_the_answer(pieces):
    """Chosen by the teacher; the passage's other pieces are no candidates, and a query without an answer is skipped."""
    teacher = {"q1": [("d2#0", 0.9), ("d1#1", 0.8), ("d1#0", 0.7), ("d3#0", 0.1)], "q2": [("d3#0", 0.5)]}
    best, kept = pieces.judge_pieces(teacher, {"q1": {"d1": 1, "d3": 0}, "q2": {"d9": 1}})
    assert best == {"q1": "d1#1"}
    assert kept == {"q1": [("d2#0", 0.9), ("d1#1", 0.8), ("d3#0", 0.1)]}


def test_text_is_as_it_was_before_a_tokenizer(pieces):
    """Punctuation is reattached to its word; punctuation without spaces is unchanged."""
    tokenized = "It 's ( also ) `` Röntgen '' , he said ; 98 % of self - made $ 5 notes do n't burn ."
    assert pieces.plain(tokenized) == "It's (also) \"Röntgen\", he said; 98% of self-made $5 notes don't burn."
    assert pieces.plain("1940 -- 1942: a plain sentence, it's said.") == "1940 -- 1942: a plain sentence, it's said."


def test_a_made_up_question_needs_its_passage_near_the_top(pieces):
    """Within the teacher's top three with a cosine of .4; the best answer may be another passage."""
    ranked = [("d3#0", 0.8), ("d1#0", 0.5), ("d2#0", 0.41), ("d4#0", 0.4)]
    teacher = {"d1#0": ranked, "d2#0": ranked, "d4#0": ranked, "d9#0": [("d9#0", 0.39)]}
    best, kept = pieces.judge_answers(teacher)
    assert best == {"d1#0": "d3#0", "d2#0": "d3#0"}
    assert kept == {"d1#0": ranked, "d2#0": ranked}
    assert list(pieces.judge_answers(teacher, {"d1"})[0]) == ["d2#0"]


@pytest.fixture
def make_queries(model_script):
    """The script that generates questions."""
    return model_script("make_queries")


@pytest.mark.parametrize(
    ("query", "is_one"),
    [
        ("who ruled kanishka", True),
        ("kanishka", False),
        ("who ruled what and when and where and why and whom and how kanishka", False),
        ("what is the meaning of life", False),
        ("the era of the shakas began when kanishka ascended", False),
        ("what causes tendinitis", False),
        ("", False),
    ],
)
def test_what_may_be_a_question(make_queries, query, is_one):
    """Not a single word, too long, off topic, copied, an example from the prompt, or empty."""
    passage = "The era of the Shakas began when Kanishka ascended, and tendinitis is named to be of this passage."
    assert make_queries.is_question(query, passage) == is_one


def test_what_was_asked_is_not_asked_again(make_queries, tmp_path):
    """An interruption loses one batch at most; passages without a question are recorded too."""
    asked = []

    def ask(texts):
        asked.append(list(texts))
        return ["" if text == "text 17" else f"what is {text}" for text in texts]

    texts = [(f"d{number}", f"text {number}") for number in range(20)]
    progress = tmp_path / "queries.tsv.progress"
    make_queries.ask_about(texts[:18], progress, lambda: ask)
    found = make_queries.ask_about(texts, progress, lambda: ask)
    assert [len(batch) for batch in asked] == [16, 2, 2]
    assert found.pop("d17") == make_queries.NONE
    assert found == {f"d{number}": f"what is text {number}" for number in range(20) if number != 17}


SEVEN = [f"n{number}" for number in range(7)]


def group(query, positive, negatives=SEVEN):
    """A pointwise record."""
    return {
        "query": query,
        "positive_passages": [{"docid": positive}],
        "negative_passages": [{"docid": docid} for docid in negatives],
    }


def window(query, docids):
    """A listwise record whose first passage is relevant."""
    return {"query": query, "docids": docids, "positive_docids": docids[:1]}


@pytest.fixture
def make_records(model_script):
    """The script that creates the records."""
    return model_script("make_records")


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (group("why", "p1"), SEVEN),
        (group("What, is it?", "p1"), None),
        (group("why", "held"), None),
        (group("why", "held#2"), None),
        (group("why", "dev#0"), None),
        (group("why", "p1", [*SEVEN, "held", "held#1", "dev"]), [*SEVEN, "dev"]),
        (group("why", "p1", [*SEVEN[1:], "held"]), None),
        (window("why", ["p1", "p2", "dev#1"]), ["p1", "p2", "dev#1"]),
        (window("What, is it?", ["p1", "p2"]), None),
        (window("why", ["p1", "p2", "held#7"]), None),
        (window("why", ["dev", "p2"]), None),
    ],
)
def test_nothing_that_is_measured_on_is_in_a_record(make_records, record, kept):
    """Excluded: a question in any spelling, a passage or part of it that is held out anywhere, a dev passage as the
    answer. Negatives of a group are removed individually unless fewer than seven remain.
    """
    forbidden = make_records.Forbidden(queries={"what is it"}, passages={"held"}, answers={"held", "dev"})
    found = list(make_records.allowed([record], forbidden))
    if kept is None:
        assert found == []
    else:
        (only,) = found
        assert only.get("docids", [p["docid"] for p in only.get("negative_passages", ())]) == kept


@pytest.fixture
def leaks(model_script):
    """The module that detects evaluation data in training data."""
    return model_script("leaks")


def test_a_copy_is_found_by_its_words(leaks):
    """Contained in a longer text, part of a longer one, or with other punctuation; not six words of fourteen."""
    text = " ".join(f"word{number}" for number in range(14))
    corpus = {
        "longer": f"Before it. {text}! After it.",
        "part": " ".join(text.split()[2:12]),
        "same": text.upper().replace(" ", ", "),
        "half": " ".join([*text.split()[:6], *(f"other{number}" for number in range(8))]),
        "short": "word1 word2",
        "none": "",
    }
    assert leaks.copies(((d, {"text": t}) for d, t in corpus.items()), [text, "Two words."]) == {
        "longer",
        "part",
        "same",
    }


def test_the_held_out_splits_are_those_of_the_results(leaks, model_script):
    """Everything on the results page is held out, with its questions and the passages relevant at the page's grade."""
    sets = model_script("result_sets").SETS
    held_out = {held.folder: held for held in leaks.HELD_OUT}
    for test_set in sets:
        held = held_out[test_set.folder]
        assert ("queries.tsv" in held.queries, held.qrels) == (True, "qrels.txt")
        assert (held.corpus, held.relevance_level) == (test_set.corpus, test_set.relevance_level)


def test_relevant_is_from_a_grade_on(leaks, tmp_path):
    """In any of the files."""
    (tmp_path / "a.txt").write_text("q1 0 d1 2\nq1 0 d2 1\nq2 0 d3 0\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("q3 0 d4 3\n", encoding="utf-8")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert leaks.relevant_docids(files) == {"d1", "d2", "d4"}
    assert leaks.relevant_docids(files, 2) == {"d1", "d4"}


def test_pairs_are_counted_by_hand(model_script):
    """Grades 2, 0, 1 with scores 3, 2, 1: of the pairs (2 over 0, 2 over 1, 1 over 0) two are correct. With 2.5
    subtracted from the second score, all are. A window without different grades has no pairs.
    """
    place_bias = model_script("place_bias")
    windows = [
        place_bias.Window(grades=(2, 0, 1), scores=(3.0, 2.0, 1.0)),
        place_bias.Window(grades=(0, 0, 0), scores=(1.0, 2.0, 3.0)),
    ]
    assert place_bias.pairs_in_order(windows, ()) == 2 / 3
    assert place_bias.pairs_in_order(windows, (0.0, 2.5, 0.0)) == 1.0
