"""The ranking that a target defines over the passages of its prompt, and conversion between numbers and letters."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_core.text import defuse_identifiers
from rankllm_core.types import identifiers
from rankllm_train.data.rankings import identifier_kind, passage_identifiers, ranking_of, target_ranks, with_identifiers
from rankllm_train.data.records import ListwiseRecord, parse_listwise

TEMPLATES = {"numeric": "rank_zephyr", "alpha": "rank_zephyr_alpha"}


def record(prompt, target):
    return ListwiseRecord(path="train.jsonl", line=17, id="x", system=None, prompt=prompt, target=target)


def rendered(kind, query, passages, order):
    """A record as inference would write the prompt and a model should answer."""
    labels = identifiers(kind, len(passages))
    template = load_template(TEMPLATES[kind])
    turns = template.render(query, passages, labels=labels)
    return record(turns[-1].content, " > ".join(f"[{labels[position]}]" for position in order))


def listed(*lines):
    return "Rank these.\n" + "\n".join(lines) + "\nThe output format should be [] > [], e.g., [2] > [1], no words."


@pytest.mark.parametrize(
    ("target", "ranking"),
    [
        ("[2] > [1] > [3]", ("2", "1", "3")),
        ("[B] > [A]", ("B", "A")),
        ("[1]", ("1",)),
        ("[10] > [9]", ("10", "9")),
        ("[2] > [2]", ("2", "2")),
    ],
)
def test_a_target_is_read_in_its_order(target, ranking):
    """Whether it is a permutation is checked elsewhere."""
    assert ranking_of(target) == ranking


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("", "''"),
        ("2 > 1", "'2 > 1'"),
        ("The ranking: [2] > [1]", "'The ranking: "),
        ("[2] > [1].", "'.' at character 10"),
        ("[2] > [1]\n", r"'\n' at character 10"),
        ("[2]>[1]", "'>[1]' at character 4"),
        ("[2], [1]", "', [1]' at character 4"),
        ("[2] > [B]", "' > [B]' at character 4"),
        ("[2] > [1] > ", "' > ' at character 10"),
        ("[2] > ... > [1]", "' > ... > [1]' at character 4"),
        ("[b] > [a]", "'[b] > [a]'"),
        ("[0] > [1]", "'[0] > [1]'"),
        ("[02] > [1]", "'[02] > [1]'"),
        ("[２] > [1]", "'[２] > [1]'"),
        ("[AB]", "'[AB]'"),
        (" [2] > [1]", "' [2] > [1]'"),
    ],
)
def test_a_target_with_anything_else_in_it_is_refused(target, shown):
    """A model would learn to write it; the error shows where the target stops being valid."""
    with pytest.raises(RankLLMError) as error:
        ranking_of(target)
    assert f"found {shown}" in str(error.value)


@pytest.mark.parametrize(
    ("target", "ranks"),
    [("[2] > [4] > [1] > [3]", (3, 1, 4, 2)), ("[1] > [2] > [3] > [4]", (1, 2, 3, 4))],
)
def test_ranks_are_given_in_prompt_order(target, ranks):
    """Ranks are in prompt order, and 1 is best ([B] > [D] > [A] > [C]: A is third)."""
    prompt = listed("[1] a", "[2] b", "[3] c", "[4] d")
    assert target_ranks(record(prompt, target)) == ranks
    letters = listed("[A] a", "[B] b", "[C] c", "[D] d")
    assert target_ranks(record(letters, target.translate(str.maketrans("1234", "ABCD")))) == ranks


@pytest.mark.parametrize(
    ("target", "defects"),
    [
        ("[2] > [1]", "missing [3]"),
        ("[1]", "missing [2] [3]"),
        ("[2] > [1] > [3] > [2]", "repeated [2]"),
        ("[2] > [1] > [2]", "repeated [2], missing [3]"),
        ("[2] > [1] > [4]", "unknown [4], missing [3]"),
        ("[B] > [A] > [C]", "unknown [B] [A] [C], missing [1] [2] [3]"),
    ],
)
def test_a_target_that_is_no_permutation_is_refused(target, defects):
    """The error gives file, line, record and every wrong identifier."""
    with pytest.raises(DataError) as error:
        target_ranks(record(listed("[1] a", "[2] b", "[3] c"), target))
    expected = f"train.jsonl:17: record 'x': target: expected each of [1] to [3] exactly once, found {defects}"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Rank nothing.", "no line begins with [1] or [A]"),
        ("Inline [1] a [2] b", "no line begins with [1] or [A]"),
        (listed("[2] b", "[3] c"), "no line begins with [1] or [A]"),
        (listed("[1] a", "[3] c"), "expected passage 2 to begin with [2], found a line that begins with [3]"),
        (listed("[2] b", "[1] a"), "expected passage 1 to begin with [1], found a line that begins with [2]"),
        (listed("[1] a", "[1] b"), "expected passage 2 to begin with [2], found a line that begins with [1]"),
        (listed("[A] a", "[B] b", "[A] c"), "expected passage 3 to begin with [C]"),
        (listed(*(f"[{letter}] x" for letter in ascii_uppercase + "A")), "27 lines begin with a letter in brackets"),
        (
            "I will provide you with 3 passages.\n[1] a\n[2] b",
            "announces 3 passages, but 2 lines begin with an identifier",
        ),
    ],
)
def test_a_prompt_that_does_not_name_its_passages_in_order_is_refused(prompt, message):
    """Guessing could assign ranks to the wrong passages."""
    with pytest.raises(RankLLMError) as error:
        passage_identifiers(prompt)
    assert message in str(error.value)


def test_identifiers_inside_passages_are_text():
    """Inside a line, of the other kind, years, and numbers in parentheses."""
    prompt = listed("[1] see [2] and [B]", "[B] a second line", "[2019] another", "(3) and one more", "[2] ")
    assert passage_identifiers(prompt) == ("1", "2")
    assert identifier_kind(prompt) == "numeric"


@pytest.mark.parametrize("kind", ["numeric", "alpha"])
@pytest.mark.parametrize("n", [1, 2, 20, 26])
def test_converted_records_are_those_of_the_other_template(kind, n):
    """Conversion in either direction gives exactly what RankZephyr's other template renders for the same window."""
    passages = [f"Passage about {number}: (3) and a numerical identifier [] > []." for number in range(n)]
    order = [(7 * position + 3) % n if n % 7 else position for position in range(n)]
    query = "is it an alphabetical identifier, e.g., or a numerical identifier"
    other = "alpha" if kind == "numeric" else "numeric"
    assert with_identifiers(rendered(other, query, passages, order), kind) == rendered(kind, query, passages, order)
    assert with_identifiers(rendered(kind, query, passages, order), kind) == rendered(kind, query, passages, order)


def test_passages_that_pose_as_identifiers_are_written_as_inference_writes_them():
    """With letters, [B] is an identifier, so it becomes (B) in passages and queries."""
    query, passages = "who is [B]?", ["see [3], [B] and [AB]", "the [C] > [A] inside, e.g., [B] > [A]", "[ A ] [] last"]
    alpha = with_identifiers(rendered("numeric", query, passages, (2, 0, 1)), "alpha")
    shown = [defuse_identifiers(passage, alpha=True) for passage in passages]
    assert shown[0] == "see (3), (B) and [AB]"
    assert alpha == rendered("alpha", "who is (B)?", shown, (2, 0, 1))


@settings(deadline=None)
@given(
    passages=st.lists(st.text("ab[]()123ABC>.,\t e", max_size=40), min_size=1, max_size=26),
    query=st.text("ab[]()123ABC>., e", max_size=30),
    seed=st.randoms(use_true_random=False),
)
def test_no_text_of_a_passage_can_move_a_rank(passages, query, seed):
    """Ranks survive the conversion whatever passages and query contain: a rendered query cannot change them."""
    order = list(range(len(passages)))
    seed.shuffle(order)
    numeric = rendered("numeric", query, passages, order)
    ranks = target_ranks(numeric)
    assert ranks == tuple(order.index(position) + 1 for position in range(len(passages)))
    alpha = with_identifiers(numeric, "alpha")
    assert target_ranks(alpha) == ranks
    assert passage_identifiers(alpha.prompt) == tuple(ascii_uppercase[: len(passages)])
    assert "[2] > [1]" not in alpha.prompt
    assert target_ranks(with_identifiers(alpha, "numeric")) == ranks


def test_the_originals_other_wording_is_converted():
    """Prompts of listwise_dl20: a blank line before the passages, a different example and a different ending."""
    ending = " Only respond with the ranking results, do not say any word or explain. "
    prompt = (
        "I will provide you with 4 passages, each indicated by a numerical identifier []. Rank them: q.\n\n"
        "[1] a\n[2] b\n[3] c\n[4] d\nSearch Query: q.\nRank them. The output format should be [] > [], "
    )
    converted = with_identifiers(record(prompt + "e.g., [4] > [2]," + ending, "[4] > [1] > [3] > [2]"), "alpha")
    assert converted.prompt == (
        "I will provide you with 4 passages, each indicated by an alphabetical identifier []. Rank them: q.\n\n"
        "[A] a\n[B] b\n[C] c\n[D] d\nSearch Query: q.\nRank them. The output format should be [] > [], "
        "e.g., [D] > [B]," + ending
    )
    assert converted.target == "[D] > [A] > [C] > [B]"


def test_the_rest_of_a_record_is_kept():
    """Id, location, system turn, query and docids are kept."""
    full = ListwiseRecord(
        path="f", line=3, id="x", system="[1] s", prompt=listed("[1] a"), target="[1]", query="[1] q", docids=("d",)
    )
    converted = with_identifiers(full, "alpha")
    assert (converted.path, converted.line, converted.id, converted.system) == ("f", 3, "x", "[1] s")
    assert (converted.query, converted.docids) == ("[1] q", ("d",))


def test_more_passages_than_letters_are_refused():
    """The originals would continue with the characters after Z."""
    prompt = listed(*(f"[{number}] text" for number in range(1, 28)))
    target = " > ".join(f"[{number}]" for number in range(1, 28))
    with pytest.raises(
        DataError, match=r"train\.jsonl:17: record 'x': 27 passages, but alpha identifiers only go up to Z"
    ):
        with_identifiers(record(prompt, target), "alpha")
    assert with_identifiers(record(prompt, target), "numeric").prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Rank as [2] > [1].\n[1] a\n[2] b", r"found '\[2\] > \[1\]' outside the passages"),
        ("Rank e.g., [2] > [1]?\n[1] a\n[2] b", r"found '\[2\] > \[1\]' outside the passages"),
        ("Rank.\n[1] a\n[2] b\ne.g., [2] > [1]? e.g., [1] > [2]", r"found '\[2\] > \[1\]' outside the passages"),
        ("Rank.\n[1] a\n[2] b\nRank e.g., [30] > [2]", r"\[30\] has no letter"),
    ],
)
def test_an_instruction_that_cannot_be_converted_is_refused(prompt, message):
    """A partial conversion would mix two kinds of identifiers."""
    with pytest.raises(DataError, match=rf"train\.jsonl:17: record 'x': (prompt: )?{message}"):
        with_identifiers(record(prompt, "[2] > [1]"), "alpha")


def test_a_bad_record_is_not_converted():
    """The error is the same as when the ranks are read."""
    with pytest.raises(DataError, match=r"missing \[2\]"):
        with_identifiers(record(listed("[1] a", "[2] b"), "[1]"), "alpha")


def test_identifiers_that_stand_behind_their_passages_too_are_not_converted():
    """Half of them would keep the old names."""
    record = parse_listwise(
        {
            "id": "r",
            "conversations": [
                {
                    "from": "human",
                    "value": "Rank.\n[A] a\nQuery: q\n [A]\n[B] b\nQuery: q\n [B]\nSuch as, e.g., [B] > [A].",
                },
                {"from": "gpt", "value": "[B] > [A]"},
            ],
        },
        path="d",
        line=1,
    )
    assert target_ranks(record) == (2, 1)
    with pytest.raises(DataError, match="is repeated after it, and conversion would not change the copy"):
        with_identifiers(record, "numeric")
