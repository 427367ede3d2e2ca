"""A chat template is a program from the model's folder: it must not hang, exhaust memory or cause a traceback."""

from __future__ import annotations

import copy
import sys
import time

import pytest

from rankllm_core.errors import ContractError
from rankllm_core.prompts import chat_limits
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.chat_limits import ChatTemplateLimitError, check_power, ends_by_itself, rendered
from rankllm_core.prompts.template import Message, Span

pytest.importorskip("transformers")

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
FORKED = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
TURNS = "{% for m in messages %}{{ m.content }}{% endfor %}"


def encode(tokenizer, template, text="a long question"):
    """The prompt that a chat template renders for one user turn."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return ChatEncoder(changed).encode([Message("user", (Span(text, untrusted=True),))])


@pytest.mark.parametrize(
    "when", ["{}", "{{% if messages[0].content|length > 5 %}}{}{{% endif %}}"], ids=["load", "prompt"]
)
@pytest.mark.parametrize("endless", [ENDLESS, FORKED], ids=["loop", "macro"])
def test_a_template_that_never_ends_is_stopped(smollm2_tokenizer, monkeypatch, when, endless):
    """At load time, and in a prompt that reaches the loop."""
    monkeypatch.setattr(chat_limits, "MAX_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(ChatTemplateLimitError, match=r"^the tokenizer's chat template takes more than 0\.3 s"):
        encode(smollm2_tokenizer, when.format(endless))
    assert time.monotonic() - start < 10


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux")
@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 4900000000 }}",
        "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ (range(99999)|list) * 999999 }}",
        "{{ '%4900000000s'|format('x') }}",
    ],
)
def test_a_template_that_writes_gigabytes_is_refused_at_load(smollm2_tokenizer, template):
    """The error is one line, and the memory is never allocated."""
    with pytest.raises(ChatTemplateLimitError, match="needs too much memory; use another chat template"):
        encode(smollm2_tokenizer, template)


def test_a_template_that_writes_far_more_than_its_messages_is_refused(smollm2_tokenizer):
    """The limit is a million characters plus four times the messages."""
    assert encode(smollm2_tokenizer, "{{ 'x' * 900000 }}").text == "x" * 900_000
    with pytest.raises(ChatTemplateLimitError, match="wrote 2,000,000 characters for messages of 1, expected at most"):
        encode(smollm2_tokenizer, "{{ 'x' * 2000000 }}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError: division by zero"),
        ("{{ foo.bar }}", "fails: UndefinedError: 'foo' is undefined"),
        ("{% for", "fails: TemplateSyntaxError: "),
        ("{{ messages[7].content }}", "fails: UndefinedError"),
        ("{{ messages + 1 }}", "fails: TypeError"),
        ("{{ ''.__class__.__mro__ }}", "fails: SecurityError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails: RecursionError"),
        ("{{ raise_exception('no\\nway\\x1b[31m') }}", r"rejects the prompt: no way\\x1b\[31m$"),
        ("{{ range(999999) }}", "fails: OverflowError: Range too big"),
    ],
)
def test_a_template_that_fails_is_one_line(smollm2_tokenizer, template, message):
    """Whatever the template raises, the error names its origin."""
    with pytest.raises(ContractError, match=f"^the tokenizer's chat template {message}") as caught:
        encode(smollm2_tokenizer, template)
    assert str(caught.value).isprintable()


def test_a_template_that_wants_other_turns_is_not_refused_at_load(smollm2_tokenizer):
    """The turn used for the trial differs from those of a run."""
    template = "{% if messages|length < 2 %}{{ raise_exception('two turns') }}{% endif %}" + TURNS
    changed = copy.deepcopy(smollm2_tokenizer)
    changed.chat_template = template
    turns = [Message("user", (Span("a"),)), Message("assistant", (Span("b"),))]
    assert ChatEncoder(changed).encode(turns).text == "ab"


def test_errors_from_elsewhere_keep_their_traceback():
    """A bug in our code is not attributed to the template."""

    def write():
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        rendered(write, n_characters=1)


def test_whoever_traces_goes_on_tracing():
    """Debuggers and coverage tools keep their own trace function."""

    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert rendered(lambda: "x", n_characters=1) == "x"
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    "template", ["{{ (9**(9**8))|string|length }}", "{% set x = messages|length ** 9 %}", "{{ [2][0] ** 3 }}"]
)
def test_a_power_is_refused_before_it_is_tried(template):
    """Exponentiation is a single C operation that cannot be interrupted."""
    with pytest.raises(ChatTemplateLimitError, match="uses exponentiation"):
        check_power(template)


@pytest.mark.parametrize(
    "template", ["**bold** {{ 'a ** b' }}", '{{ m["content"] + "2**3" }}', "{{ f(**kwargs) }}", "{{ 3 * 4 }}"]
)
def test_stars_in_texts_are_no_power(template):
    """Markdown around expressions, asterisks in strings, and keyword arguments are accepted."""
    check_power(template)


ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
FOR = "{% for m in messages %}"
END = "{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        ZEPHYR,
        TURNS,
        "a {text} without steps",
        "{{- \"a 'quoted' }} %} {{ text\" -}}{%- if not bos_token -%}{{ messages[0]['content'] ~ '' }}{%+ endif +%}",
        f"{FOR}{{{{ m.content }}}}{END}{FOR}{{{{ m.role }}}}{{% else %}}{END}",
    ],
)
def test_a_template_that_goes_once_through_the_messages_ends_by_itself(template):
    """Each of its lines runs at most once per message."""
    assert ends_by_itself(template)


@pytest.mark.parametrize(
    "template",
    [
        ENDLESS,
        FORKED,
        f"{FOR}{FOR}{END}{END}",
        f"{FOR}{{% if m %}}{FOR}{END}{{% endif %}}{END}",
        f"{{% set messages = messages + messages %}}{FOR}{END}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% for m in messages if f(m) %}{% endfor %}",
        "{% for m in messages[0] %}{% endfor %}",
        "{% for m in messages_and_more %}{% endfor %}",
        "{{ range(99999)|list }}",
        "{{ messages|map('upper')|list }}",
        "{{ 'x' * 99999 }}",
        "{{ 9 ** 9 }}",
        "{{ raise_exception('no') }}",
        "{{{ 'a': f }}",
        "{#" + FOR + "#}",
        "{% raw %}" + FOR + "{% endraw %}",
        "{{ '" + FOR + "{{ f() }}",
        "{% include 'other' %}",
        "{% generation %}{% endgeneration %}",
        TURNS + " " * 5000,
    ],
)
def test_a_template_that_may_do_more_is_watched(template):
    """Anything not known to be harmless is traced."""
    assert not ends_by_itself(template)


def test_a_template_that_ends_by_itself_runs_without_a_watch(smollm2_tokenizer):
    """Tracing is slower than such a template, and would replace this trace function."""
    traced = []

    def trace(frame, event, argument):
        traced.append(frame.f_code.co_filename)

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        encode(smollm2_tokenizer, TURNS)
    finally:
        sys.settrace(before)
    assert "<template>" in traced
