"""Prompt templates: the originals' layout, rendered to messages in which untrusted text is marked."""

from __future__ import annotations

import hashlib

import pytest

from rankllm_core.config import load_yaml
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import (
    ListwiseTemplate,
    Message,
    PairwiseTemplate,
    PointwiseTemplate,
    Span,
    listwise_template,
    load_template,
    pointwise_template,
    template_from_dict,
    template_names,
)
from rankllm_core.text import defuse_identifiers, first_words, passage_text

SINGLE = {"method": "singleturn_listwise", "prefix": "{num} for {query}:\n", "body": "[{rank}] {candidate}\n"}
MULTI = {
    "method": "multiturn_listwise",
    "prefix_user": "Q: {query}",
    "prefix_assistant": "ok",
    "body_user": "[{rank}] {candidate}",
    "body_assistant": "got [{rank}]",
    "suffix_user": "rank {num}",
}
POINTWISE = {"method": "pointwise", "body": "Q {query} D {document}"}


def from_dict(values, **changes):
    """A template with these values; a change of None removes the key."""
    merged = values | changes
    return template_from_dict({k: v for k, v in merged.items() if v is not None}, name="t")


def turns(messages):
    """Messages as (role, content)."""
    return [(message.role, message.content) for message in messages]


# Recorded by running castorini/rank_llm@1b3cabb on the input below: sha256 of `repr(messages)`.
REFERENCE = {
    "rank_zephyr": "0726eaedacb81aeaaf9530d21982216e78a47272c541e481caf75b6d58de1ca8",
    "rank_zephyr_alpha": "c199d15991e0e5385bc1015a490a179f7719af983cbea1dc14d4158af6ad7bcb",
    "rank_lrl": "74577e9a966c38a38cd99e6de1de2cfda4a9714438b1794c1a59a00c2d2a6410",
    "insert_rank": "c4c2e4960d24d01e8a9048a1c38b8ad5654bb59d32c085898b080528ddc8adc8",
    "rank_gpt_apeer": "74acbf79ac5c2ecfb89ae2ad68b86c4b8a831fc9b5452a32c17bd0a949dd62fa",
}


@pytest.mark.parametrize("name", REFERENCE)
def test_messages_are_byte_for_byte_those_of_the_original(name):
    """Query, passages, numbers and whitespace equal those of the reference."""
    docs = [
        {"contents": "Paris is [2] the capital\u2019s   city.\nNew line"},
        {"title": "T", "text": " Lyon is a city (L&amp;N) \u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d "},
        {"passage": "word " * 10},
    ]
    messages = load_template(name).render(
        defuse_identifiers("what is [1] the  capital of France?"),
        [defuse_identifiers(first_words(passage_text(doc), 5)) for doc in docs],
        labels="ABC" if name.endswith("alpha") else "123",
        scores=[12.34567, 3, 1.0],
    )
    written = repr([{"role": message.role, "content": message.content} for message in messages])
    assert hashlib.sha256(written.encode("utf-8")).hexdigest() == REFERENCE[name]


ORIGINAL_LAYOUT = r"""
# A file of the originals' repository, as its users have it on disk.
method: "singleturn_listwise"
system_message: "You rank."
prefix: |
  Rank the {num} passages for: {query}.

body: |
  [{rank}] {candidate}
suffix: |-
  Search Query: {query}. Write {{}} like [2] > [1].
output_validation_regex: r"^\[\d+\]( > \[\d+\])*$"
output_extraction_regex: r"\[(\d+)\]"
"""


def test_a_file_in_the_originals_layout_loads_unchanged(tmp_path):
    """Comments and regex keys are ignored; block scalars keep their newlines, and doubled braces become single ones."""
    path = tmp_path / "mine.yaml"
    path.write_text(ORIGINAL_LAYOUT, encoding="utf-8")
    template = load_template(path)
    assert turns(template.render("q {x}", ["p {rank}"], labels="1")) == [
        ("system", "You rank."),
        (
            "user",
            "Rank the 1 passages for: q {x}.\n[1] p {rank}\nSearch Query: q {x}. Write {} like [2] > [1].",
        ),
    ]


def test_the_originals_pointwise_layout_loads():
    """The originals call the document `{doc_content}`, and their files have no layout key."""
    template = from_dict(POINTWISE, body="Query: {query} Document: {doc_content} Relevant: ")
    assert template.layout == "yes-no"
    assert turns(template.render("q", "d")) == [("user", "Query: q Document: d Relevant: ")]


@pytest.mark.parametrize("name", template_names())
def test_every_shipped_template_loads_and_survives_a_round_trip(name):
    """A template written into a card reads back unchanged."""
    template = load_template(name)
    assert template.name == name
    assert template_from_dict(template.to_dict(), name=name) == template


@pytest.mark.parametrize("spelling", ["rank_zephyr", "rank_zephyr.yaml", "rank_zephyr_template.yaml"])
def test_a_shipped_template_is_found_under_the_originals_file_names(spelling):
    """Commands in the papers' repositories use `rank_zephyr_template.yaml`."""
    assert load_template(spelling) == load_template("rank_zephyr")


def test_a_folder_of_the_same_name_does_not_hide_a_shipped_template(tmp_path, monkeypatch):
    """Output folders are often named after the model; `--prompt-template-path rank_zephyr` still works there."""
    (tmp_path / "rank_zephyr").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_template("rank_zephyr").name == "rank_zephyr"


def test_an_unknown_name_is_an_error_with_the_nearest_one():
    """Neither a file nor a bundled template."""
    with pytest.raises(ConfigError, match=r"rank_zefyr: no such template.*did you mean 'rank_zephyr'"):
        load_template("rank_zefyr")


def test_foreign_text_is_marked_and_never_read_as_a_template():
    """Braces in a query or passage are unchanged; each untrusted text is a separate span."""
    (message,) = from_dict(SINGLE).render("{rank} {0}", ["{candidate}"], labels="1")
    assert message.spans == (
        Span("1"),
        Span(" for "),
        Span("{rank} {0}", untrusted=True),
        Span(":\n"),
        Span("["),
        Span("1"),
        Span("] "),
        Span("{candidate}", untrusted=True),
        Span("\n"),
    )


def test_scores_are_shown_with_three_decimals():
    """InsertRank shows first-stage scores; other templates do not need them."""
    template = from_dict(SINGLE, body="{rank}: {candidate} ({score})\n")
    (message,) = template.render("q", ["a", "b"], labels="12", scores=[12.34567, 3])
    assert message.content == "2 for q:\n1: a (12.346)\n2: b (3.000)\n"


def test_few_shot_turns_stand_between_system_and_question():
    """A given system message replaces the template's own; an empty one removes it."""
    template = from_dict(SINGLE, system_message="own")
    shots = (Message("user", (Span("u"),)), Message("assistant", (Span("a"),)))
    messages = template.render("q", ["p"], labels="1", system_message="given", few_shot=shots)
    assert turns(messages) == [("system", "given"), ("user", "u"), ("assistant", "a"), ("user", "1 for q:\n[1] p\n")]
    assert turns(template.render("q", ["p"], labels="1"))[0] == ("system", "own")
    assert turns(template.render("q", ["p"], labels="1", system_message=""))[0][0] == "user"


def test_one_turn_a_passage():
    """RankGPT's layout: the prefix pair, one pair per passage, the question."""
    assert turns(from_dict(MULTI).render("q", ["a", "b"], labels="12")) == [
        ("user", "Q: q"),
        ("assistant", "ok"),
        ("user", "[1] a"),
        ("assistant", "got [1]"),
        ("user", "[2] b"),
        ("assistant", "got [2]"),
        ("user", "rank 2"),
    ]


def test_without_body_assistant_bodies_and_suffix_are_one_turn():
    """They are joined without separator, as in the original."""
    assert turns(from_dict(MULTI, body_assistant=None).render("q", ["a", "b"], labels="12")) == [
        ("user", "Q: q"),
        ("assistant", "ok"),
        ("user", "[1] a[2] brank 2"),
    ]


def test_passages_and_labels_must_be_as_many():
    """With too few labels, a passage would have no identifier."""
    with pytest.raises(ValueError, match="shorter"):
        from_dict(SINGLE).render("q", ["a", "b"], labels="1")


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (SINGLE, {"prefixx": "x"}, r"template t: prefixx: unknown key; did you mean 'prefix'\?"),
        (SINGLE, {"prefix_user": "x"}, r"template t: prefix_user: unknown key; did you mean 'prefix'\?"),
        (SINGLE, {"body_assistant": "x"}, "template t: body_assistant: unknown key"),
        (MULTI, {"body": "x"}, "template t: body: unknown key"),
        (SINGLE, {"body": None}, "template t: body: missing, expected the format of one passage"),
        (MULTI, {"body_user": None}, "template t: body_user: missing"),
        (SINGLE, {"body": "{rank}"}, r"template t: body: expected the placeholder \{candidate\}"),
        (SINGLE, {"body": "{candidate}"}, r"template t: body: expected the placeholder \{rank\}"),
        (SINGLE, {"body": "{rank} {candidate} {qwery}"}, r"template t: body: unknown placeholder \{qwery\}; expected "),
        (SINGLE, {"prefix": "{query} {}"}, r"template t: prefix: unknown placeholder \{\}"),
        (SINGLE, {"prefix": "{query} {rank}"}, r"template t: prefix: unknown placeholder \{rank\}"),
        (SINGLE, {"prefix": "{query} {"}, "write a literal brace twice"),
        (SINGLE, {"prefix": "none"}, r"expected \{query\} in the prefix or the suffix"),
        (SINGLE, {"prefix": None}, r"expected \{query\} in the prefix or the suffix"),
        (SINGLE, {"prefix": 3}, "template t: prefix: expected str, found int 3"),
        (SINGLE, {"chat_layout": "llama"}, "template t: chat_layout: expected one of vicuna, chatml, plain"),
        (MULTI, {"body_assistant": None, "prefix_assistant": None}, "needs prefix_assistant or body_assistant"),
        (MULTI, {"prefix_user": None, "suffix_user": "{query}"}, "prefix_assistant needs prefix_user"),
        (MULTI, {"prefix_assistant": None}, "body_assistant with prefix_user needs prefix_assistant"),
        (POINTWISE, {"body": "{query}"}, r"body: expected the placeholder \{document\}"),
        (POINTWISE, {"body": None}, r"body: expected the placeholder"),
        (
            POINTWISE,
            {"layout": "segment"},
            "layout: expected one of segments, joined, chat, yes-no, raw, pair; found 'segment'",
        ),
        (POINTWISE, {"layout": "segments", "query": "q", "passage": "{text}"}, r"query: expected the placeholder"),
        (POINTWISE, {"message_roles": "reranker", "body": None}, "reranker needs an instruction"),
        (SINGLE, {"method": "rankfid"}, "method: 'rankfid' is not supported"),
        (SINGLE, {"method": "pairwise"}, "template t: .*: unknown key"),
        (SINGLE, {"method": "listwise"}, "method: expected one of singleturn_listwise, .*; found 'listwise'"),
        (SINGLE, {"method": None}, "method: expected one of .*; found None"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_what_to_mend(values, changes, message):
    """Keys, placeholders and turns are validated when the template is loaded, not during a run."""
    with pytest.raises(ConfigError, match=message):
        from_dict(values, **changes)


def test_a_bad_file_is_named(tmp_path):
    """The message begins with the file name given by the user."""
    path = tmp_path / "mine.yaml"
    path.write_text("method: singleturn_listwise\nbody: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: body: expected the placeholder"):
        load_template(path)
    assert load_yaml(path) == {"method": "singleturn_listwise", "body": "x"}


def test_yes_no_questions_can_be_turns_of_their_own_roles():
    """`message_roles: reranker` sends instruction, query and document in separate turns, as some servers expect."""
    template = from_dict(POINTWISE, message_roles="reranker", instruction="I", body=None)
    assert turns(template.render("q", "d")) == [("system", "I"), ("query", "q"), ("document", "d")]


@pytest.mark.parametrize("name", template_names())
def test_a_shipped_template_is_of_the_kind_that_its_method_says(name):
    """The class determines the kind, so callers need not check the method."""
    template = load_template(name)
    kinds = {"pointwise": PointwiseTemplate, "pairwise": PairwiseTemplate}
    assert isinstance(template, kinds.get(template.method, ListwiseTemplate))
    assert template.kind == (template.method if template.method in kinds else "listwise")


def test_the_query_may_stand_behind_each_passage():
    """It is untrusted text there too, and braces in it are unchanged."""
    template = from_dict(SINGLE, body="[{rank}] {candidate}\nQuery: {query} [{rank}]\n")
    (turn,) = template.render("w{h}o", ["a", "b"], labels=["1", "2"])
    assert turn.content == "2 for w{h}o:\n[1] a\nQuery: w{h}o [1]\n[2] b\nQuery: w{h}o [2]\n"
    assert [span.text for span in turn.spans if span.untrusted] == ["w{h}o", "a", "w{h}o", "b", "w{h}o"]


def test_small_models_are_shown_pairs_alike():
    """What a pointwise adapter learned about a passage with its query also applies within a window."""
    pair = load_template("yes_no_short").render("q?", "a passage")
    window = load_template("query_behind_alpha").render("q?", ["a passage"], labels=["A"])
    assert turns(pair) == [("user", "Passage: a passage\nQuery: q?\nRelevant?")]
    assert "\n[A] a passage\nQuery: q?\nRelevant?\n [A]\n" in turns(window)[0][1]


PAIRWISE = {"method": "pairwise", "body": "{query}: {passage_a} or {passage_b}?"}


def test_two_passages_are_untrusted_text_in_their_order():
    """Braces in them are unchanged; the default layout is chat."""
    template = from_dict(PAIRWISE, system_message="Compare.")
    system, turn = template.render("w{h}o", "one {passage_b}", "two")
    assert (system.role, system.content, turn.content) == ("system", "Compare.", "w{h}o: one {passage_b} or two?")
    assert [span.text for span in turn.spans if span.untrusted] == ["w{h}o", "one {passage_b}", "two"]
    assert (template.kind, template.is_chat, template.first, template.second) == ("pairwise", True, "A", "B")


def test_rank_llms_duot5_file_is_read():
    """Its placeholders are {doc1} and {doc2}, and it has no method, which must be added."""
    body = "Query: {query} Document0: {doc1} Document1: {doc2} Relevant: "
    template = from_dict({"method": "pairwise", "body": body}, layout="raw", first="true", second="false")
    (turn,) = template.render("q", "a", "b")
    assert turn.content == "Query: q Document0: a Document1: b Relevant: "
    assert from_dict(template.to_dict()) == template


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body": None}, "body: missing, expected a text with {query}, {passage_a} and {passage_b}"),
        ({"body": "{query} {passage_a}"}, r"body: expected the placeholder \{passage_b\}"),
        (
            {"body": "{query} {passage_a} {passage_a} {passage_b}"},
            r"the placeholder \{passage_a\} exactly once, found it 2 times",
        ),
        ({"body": "{query} {passage_a} {passage_b} {document}"}, r"unknown placeholder \{document\}"),
        ({"layout": "segments"}, "layout: expected one of chat, raw; found 'segments'"),
        ({"layout": "raw", "answer_prefix": "Passage"}, "answer_prefix: has no effect with the layout raw"),
        ({"layout": "raw", "system_message": "x"}, "system_message: has no effect with the layout raw"),
        ({"first": "A", "second": "A"}, "expected two different tokens, found 'A' and 'A'"),
        ({"second": " "}, "expected two different tokens"),
        ({"positive": "A"}, "positive: unknown key"),
        ({"first": 1}, "first: expected str, found int 1"),
    ],
)
def test_a_pairwise_template_that_cannot_work_is_refused(changes, message):
    """The error is raised when the template is loaded."""
    with pytest.raises(ConfigError, match=message):
        from_dict(PAIRWISE, **changes)


def test_training_refuses_a_template_of_another_kind_in_one_line():
    """The loaders used by `rankllm-train` report it with the recipe's key."""
    for load, kind in ((listwise_template, "listwise"), (pointwise_template, "pointwise")):
        with pytest.raises(
            ConfigError, match=rf"^prompt.template: duot5 is a pairwise template; expected a {kind} one$"
        ):
            load("duot5", where="prompt.template: ")
