"""Published models known by name: which card belongs to a name, and the facts about each model."""

from __future__ import annotations

from importlib import resources

import pytest

from rankllm_core.card import PointwiseCard, card_from_dict, published_card
from rankllm_core.config import load_yaml
from rankllm_core.errors import ConfigError
from rankllm_core.known_models import VERIFIED, known_model, known_model_from_dict, known_models

FOLDER = resources.files("rankllm_core") / "cards"
FILES = sorted(item.name.removesuffix(".yaml") for item in FOLDER.iterdir() if item.name.endswith(".yaml"))
ABOUT = {
    "licence": "MIT",
    "parameters": "7B",
    "source": "me/mine@1234567 README.md",
    "engines": ["transformers"],
    "verified": "from its documentation",
    "how": "It was read.",
}
VALUES = {"models": ["me/mine"], "about": ABOUT, "format": 1, "kind": "listwise", "template": "rank_zephyr"}


def test_every_file_is_a_known_model():
    """Each file has facts and a card that loads."""
    models = known_models()
    assert [known.name for known in models] == FILES
    assert len(models) > 5
    for known in models:
        assert card_from_dict(known.card, where=known.name) == published_card(known.patterns[0].replace("*", "x"))
        assert known.verified in VERIFIED
        assert known.paper or known.source
        for text in (known.how, *known.notes, *known.unconfirmed):
            assert text.endswith("."), text
            assert "\n" not in text


@pytest.mark.parametrize("file", FILES)
def test_the_names_that_are_looked_up_are_those_of_the_file(file):
    """The lookup reads the `models:` line only, without a YAML parser; the list is the same."""
    patterns = load_yaml(FOLDER / f"{file}.yaml")["models"]
    for pattern in patterns:
        found = known_model(pattern.replace("*", "x"))
        assert found is not None
        assert (found.name, list(found.patterns)) == (file, patterns)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("castorini/first_mistral", "first_mistral"),
        ("/models/First_Mistral/", "first_mistral"),
        ("castorini/first_qwen3_0.6b", "first_qwen3"),
        ("castorini/first_qwen3_14b", "first_qwen3"),
        ("castorini/rank_vicuna_7b_v1_noda_fp16", "rank_vicuna"),
        ("Qwen/Qwen3-Reranker-8B", "qwen3_reranker"),
        ("castorini/rankllama-v1-7b-lora-passage", "rankllama"),
        ("castorini/rankllama-v1-13b-lora-passage", "rankllama_13b"),
        ("castorini/rankllama-v1-7b-lora-doc", "rankllama_doc"),
        ("Qwen/Qwen3-0.6B", None),
        ("first_mistral/other", None),
        ("", None),
    ],
)
def test_the_last_part_of_a_name_finds_its_card(name, file):
    """Case is ignored; a name that matches no pattern has no card."""
    found = known_model(name)
    assert (found and found.name) == file


def test_rankllama_adapters_differ_in_base_and_length():
    """Llama 2 in the size given by the model cards; 2,048 tokens for documents (arXiv:2310.08319)."""
    expected = {
        "castorini/rankllama-v1-7b-lora-passage": ("meta-llama/Llama-2-7b-hf", 32, 164),
        "castorini/rankllama-v1-13b-lora-passage": ("meta-llama/Llama-2-13b-hf", 32, 164),
        "castorini/rankllama-v1-7b-lora-doc": ("meta-llama/Llama-2-7b-hf", 32, 2048),
    }
    for name, wanted in expected.items():
        card = published_card(name)
        assert isinstance(card, PointwiseCard)
        assert (card.base_model, card.query_tokens, card.passage_tokens) == wanted
        assert (card.template.name, card.head) == ("rankllama", "sequence-classification")


def test_first_over_qwen3_is_read_as_first_over_mistral_with_one_bos():
    """Qwen's tokenizer has no BOS token to duplicate."""
    card, mistral = published_card("castorini/first_qwen3_4b"), published_card("castorini/first_mistral")
    assert (card.bos, mistral.bos) == ("single", "double")
    assert card.to_dict() | {"bos": "double"} == mistral.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": None}, "mine: models: expected a list of strings, found None"),
        ({"models": []}, r"mine: models: expected a list of strings, found \[\]"),
        ({"about": None}, "mine: about: expected a mapping of names to values, found NoneType"),
        ({"about": ABOUT | {"license": "MIT"}}, "mine: about: license: unknown key; did you mean 'licence'"),
        ({"about": {k: v for k, v in ABOUT.items() if k != "how"}}, "mine: about: how: missing"),
        ({"about": {k: v for k, v in ABOUT.items() if k != "source"}}, "mine: about: expected a paper or a source"),
        ({"about": ABOUT | {"verified": "surely"}}, "mine: about: verified: expected one of against published weights"),
        ({"about": ABOUT | {"engines": "vllm"}}, "mine: about: engines: expected a list of strings, found 'vllm'"),
        ({"about": ABOUT | {"notes": [1]}}, r"mine: about: notes: expected a list of strings, found \[1\]"),
        ({"about": ABOUT | {"licence": 2}}, "mine: about: licence: expected str, found int 2"),
    ],
)
def test_a_mistake_in_a_file_names_it(changes, message):
    """The error gives the location, what was found and what was expected."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        known_model_from_dict(VALUES | changes, name="mine")


def test_what_is_said_about_a_model_is_no_part_of_its_card():
    """`models` and `about` are not allowed in a checkpoint's own card."""
    known = known_model_from_dict(VALUES, name="mine")
    assert known.card == {"format": 1, "kind": "listwise", "template": "rank_zephyr"}
    with pytest.raises(ConfigError, match="c: about: unknown key"):
        card_from_dict({**known.card, "about": ABOUT}, where="c")
