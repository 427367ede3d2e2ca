"""From chat messages to token ids: untrusted text stays text, and the prompt always ends with the opening of the
model's turn.
"""

from __future__ import annotations

import copy

import pytest
from foreign_texts import HARMLESS, HOSTILE, control_ids

from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import Message, Span, load_template
from rankllm_core.prompts.tokens import MASK
from rankllm_core.text import defuse_identifiers, first_words, passage_text

pytest.importorskip("transformers")


class Target:
    """A template, a tokenizer and a chat layout used together."""

    def __init__(self, tokenizer, template, *, opening="", repair_text=True):
        self.tokenizer = tokenizer
        self.template = load_template(template)
        self.opening = opening
        layout = self.template.chat_layout
        self.encoder = ChatEncoder(tokenizer, layout=layout, repair_text=repair_text)

    def encode(self, query, passage):
        """Encode the prompt as inference does, repeating the passage if the template shows several."""
        if self.template.method == "pointwise":
            return self.encoder.encode(self.template.render(query, passage), opening=self.opening)
        texts = [defuse_identifiers(first_words(passage_text({"text": t}), 300)) for t in (passage, "other", passage)]
        messages = self.template.render(defuse_identifiers(query), texts, labels="123")
        return self.encoder.encode(messages, opening=self.opening)


@pytest.fixture(
    scope="module",
    params=[
        ("smollm2_tokenizer", "rank_zephyr", {}),
        ("smollm2_tokenizer", "rank_zephyr_alpha", {"opening": "["}),
        ("smollm2_tokenizer", "rank_gpt", {}),
        ("smollm2_tokenizer", "yes_no", {"repair_text": False}),
        ("smollm2_tokenizer", "qwen3_reranker", {"repair_text": False, "opening": "<think>\n\n</think>\n\n"}),
        ("llama2_tokenizer", "rank_vicuna", {}),
    ],
    ids=lambda param: f"{param[0].split('_')[0]}-{param[1]}",
)
def target(request):
    """Every kind of prompt with a byte-level and a Metaspace tokenizer."""
    name, template, options = request.param
    return Target(request.getfixturevalue(name), template, **options)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["query", "passage", "inside"])
def test_foreign_text_adds_no_control_token_and_keeps_the_end(target, text, place):
    """Control tokens and the last ids equal those of a harmless prompt, and the ids decode to the text."""
    query = {"query": text, "inside": f"what {text} is"}.get(place, HARMLESS)
    passage = {"passage": text, "inside": f"some {text} words"}.get(place, HARMLESS)
    harmless, prompt = target.encode(HARMLESS, HARMLESS), target.encode(query, passage)
    found = control_ids(target.tokenizer, prompt.token_ids)
    assert found == control_ids(target.tokenizer, harmless.token_ids)
    assert len(found) >= 1
    end = 6 if target.template.chat_layout == "vicuna" else 4
    assert prompt.token_ids[-end:] == harmless.token_ids[-end:]
    decoded = target.tokenizer.decode(prompt.token_ids, clean_up_tokenization_spaces=False)
    assert decoded.removeprefix("<s>").lstrip(" ") == prompt.text
    assert MASK not in prompt.text


def test_foreign_text_is_shown_as_it_was_written(target):
    """Escaping keeps the words visible to the model."""
    shown = target.encode("what does <|im_end|> mean", "the token </s> ends a text").text
    assert "what does <|im_end|> mean" in shown
    assert "the token </s> ends a text" in shown


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "</s><|im_end|>" * 70_000, "&lt;/s&gt; " * 90_000], ids=["word", "tokens", "entities"]
)
def test_a_million_characters_are_only_long(target, text):
    """Long text gives the same result and takes a few seconds at most."""
    harmless, prompt = target.encode(HARMLESS, HARMLESS), target.encode(HARMLESS, text)
    assert control_ids(target.tokenizer, prompt.token_ids) == control_ids(target.tokenizer, harmless.token_ids)
    assert prompt.token_ids[-4:] == harmless.token_ids[-4:]


def test_plain_prompts_get_the_tokenizers_own_ids(smollm2_tokenizer, llama2_tokenizer):
    """If nothing needs protection, the ids are those of the complete text, as in the originals."""
    for target in (Target(smollm2_tokenizer, "rank_zephyr"), Target(llama2_tokenizer, "rank_vicuna")):
        prompt = target.encode("what is llama?", "The llama is a camelid.")
        assert list(prompt.token_ids) == target.tokenizer.encode(prompt.text)


def test_few_shot_turns_keep_their_control_tokens(llama2_tokenizer):
    """In Vicuna's layout, an example's answer ends with EOS, also if a passage needs protection."""
    encoder = ChatEncoder(llama2_tokenizer, layout="vicuna")
    shots = [Message("user", (Span("u"),)), Message("assistant", (Span("[1]"),))]
    question = Message("user", (Span("about "), Span("</s>", untrusted=True)))
    prompt = encoder.encode([Message("system", (Span("S"),)), *shots, question])
    assert prompt.text == "S USER: u ASSISTANT: [1]</s>USER: about </s> ASSISTANT:"
    assert control_ids(llama2_tokenizer, prompt.token_ids) == [1, 2]


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("vicuna", "S USER: hi ASSISTANT: yo</s>USER: q ASSISTANT:["),
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[",
        ),
        ("plain", "S\nhi\nyo\nq\n["),
        (
            None,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[",
        ),
    ],
)
def test_chat_layouts(smollm2_tokenizer, layout, text):
    """Each layout is the one its models were trained with; the opening of the answer comes last."""
    turns = [("system", "S"), ("user", "hi"), ("assistant", "yo"), ("user", "q")]
    messages = [Message(role, (Span(content),)) for role, content in turns]
    prompt = ChatEncoder(smollm2_tokenizer, layout=layout).encode(messages, opening="[")
    assert prompt.text == text
    assert list(prompt.token_ids) == smollm2_tokenizer.encode(text)


def with_chat_template(tokenizer, template):
    """Copy the tokenizer with another chat template."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


INSTRUCT = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


@pytest.mark.parametrize(
    ("template", "bos", "expected"),
    [
        (INSTRUCT, "single", 1),
        (INSTRUCT, "double", 2),
        (INSTRUCT.removeprefix("{{ bos_token }}"), "single", 1),
        (INSTRUCT.removeprefix("{{ bos_token }}"), "double", 1),
    ],
)
@pytest.mark.parametrize("query", ["what", "</s>"])
def test_how_many_bos_open_a_prompt(llama2_tokenizer, template, bos, expected, query):
    """One, whether it comes from the chat template or the tokenizer; two for models trained with two."""
    encoder = ChatEncoder(with_chat_template(llama2_tokenizer, template), bos=bos)
    ids = encoder.encode([Message("user", (Span(query, untrusted=True),))]).token_ids
    assert list(ids[: expected + 1]).count(1) == expected
    assert control_ids(llama2_tokenizer, ids) == [1] * expected


def test_double_bos_is_what_the_originals_encode(llama2_tokenizer):
    """The originals render the chat template to text and tokenize that with special tokens."""
    tokenizer = with_chat_template(llama2_tokenizer, INSTRUCT)
    messages = [Message("user", (Span("what is llama?"),))]
    text = tokenizer.apply_chat_template([{"role": "user", "content": "what is llama?"}], tokenize=False)
    assert list(ChatEncoder(tokenizer, bos="double").encode(messages).token_ids) == tokenizer.encode(text)


def test_a_chat_template_without_a_system_role_gets_it_in_the_first_user_turn(llama2_tokenizer):
    """As in the originals' training: system, newline and space, user. Untrusted text stays protected there."""
    encoder = ChatEncoder(with_chat_template(llama2_tokenizer, INSTRUCT))
    messages = [Message("system", (Span("S"),)), Message("user", (Span("about "), Span("</s>", untrusted=True)))]
    prompt = encoder.encode(messages)
    assert prompt.text == "<s>[INST] S\n about </s> [/INST]"
    assert control_ids(llama2_tokenizer, prompt.token_ids) == [1]


def test_a_system_role_that_the_chat_template_knows_is_kept(smollm2_tokenizer):
    """SmolLM2 has the role, and adds a default system turn if none is given."""
    messages = [Message("system", (Span("S"),)), Message("user", (Span("u"),))]
    text = ChatEncoder(smollm2_tokenizer).encode(messages).text
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"


def test_the_whole_prompt_is_repaired_where_asked(smollm2_tokenizer):
    """The listwise originals apply ftfy to the complete prompt; the pointwise ones do not."""
    messages = [Message("user", (Span("\u201cq\u201d", untrusted=True),))]
    assert '"q"' in ChatEncoder(smollm2_tokenizer).encode(messages).text
    assert "\u201cq\u201d" in ChatEncoder(smollm2_tokenizer, repair_text=False).encode(messages).text


def test_a_model_without_a_chat_template_needs_a_layout(llama2_tokenizer):
    """The error says where to specify one."""
    with pytest.raises(ContractError, match="no chat template; give the prompt template a chat_layout"):
        ChatEncoder(llama2_tokenizer)
    with pytest.raises(ConfigError, match="chat_layout: expected one of vicuna, chatml, plain; found 'llama'"):
        ChatEncoder(llama2_tokenizer, layout="llama")
    with pytest.raises(ConfigError, match="bos: expected one of single, double; found 'none'"):
        ChatEncoder(llama2_tokenizer, layout="plain", bos="none")


ANSWER = "[2] > [1]"


@pytest.mark.parametrize("layout", [None, "chatml", "plain"])
@pytest.mark.parametrize("text", ["what is it?", "an <|im_end|> and a </s> written in it"])
def test_an_answer_is_told_from_its_prompt(smollm2_tokenizer, llama2_tokenizer, layout, text):
    """The ids are those of prompt and answer together, and the prompt has as many as on its own."""
    for tokenizer in (smollm2_tokenizer, llama2_tokenizer)[: 1 if layout is None else 2]:
        encoder = ChatEncoder(tokenizer, layout=layout)
        messages = [Message("system", (Span("S"),)), Message("user", (Span(text, untrusted=True),))]
        ids, n_prompt = encoder.encode_answered(messages, answer=ANSWER)
        assert ids == encoder.encode(messages, opening=ANSWER).token_ids
        assert ids[:n_prompt] == encoder.encode(messages).token_ids
        assert tokenizer.decode(ids[n_prompt:]).strip() == ANSWER


def test_an_answer_that_grows_into_its_prompt_is_refused(llama2_tokenizer):
    """Vicuna's prompt ends in `ASSISTANT:`, and Llama 2 has a token `:[`."""
    encoder = ChatEncoder(llama2_tokenizer, layout="vicuna")
    with pytest.raises(ContractError, match="merges the end of the prompt with the start of the answer"):
        encoder.encode_answered([Message("user", (Span("hi"),))], answer=ANSWER)


def test_what_an_encoder_remembers_of_one_prompt_decides_no_other(smollm2_tokenizer):
    """Template text with control tokens in one prompt and none in the next is encoded as by a new encoder."""
    foreign = Span("a <|im_end|> b", untrusted=True)
    prompts = [
        [Message("user", (Span(f"{own}: "), foreign))] for own in ("ours", "<|im_end|> ours", "ours", "<|im_start|>")
    ]
    encoder = ChatEncoder(smollm2_tokenizer)
    encoded = [encoder.encode(messages) for messages in prompts]
    assert encoded == [ChatEncoder(smollm2_tokenizer).encode(messages) for messages in prompts]
    added = [len(control_ids(smollm2_tokenizer, prompt.token_ids)) for prompt in encoded]
    assert [n - added[0] for n in added] == [0, 1, 0, 1]
