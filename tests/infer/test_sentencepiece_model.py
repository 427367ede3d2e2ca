"""`spiece.model` becomes the tokenizer that transformers makes of it, or one line says what is wrong with the file.

The files are written here, field by field. The tokenizer was also compared with the one that transformers 5.23 makes by
sentencepiece 0.2: the same `tokenizer.json`, byte for byte.
"""

from __future__ import annotations

import json
import struct

import pytest

pytest.importorskip("torch")

from encoder_models import TEXTS
from t5_models import make_tokenizer, save_t5, vocabulary

from rankllm_core.errors import RankLLMError
from rankllm_infer import RerankOptions, load_reranker, make_request
from rankllm_infer.checkpoints.model_files import load_tokenizer
from rankllm_infer.checkpoints.sentencepiece_model import read_sentencepiece


def varint(number):
    """Seven bits per byte, lowest first; the highest bit marks continuation."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def message(field, content):
    """A length-delimited field."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def piece(text, score, kind=1):
    """text: field 1; score: field 2, a float; kind: field 3, omitted for 1 (normal)."""
    written = message(1, text.encode()) + b"\x15" + struct.pack("<f", score)
    return message(1, written + (b"\x18" + bytes([kind]) if kind != 1 else b""))


def spiece(pieces, *, model_type=None, charsmap=b""):
    """A complete file. Kinds in SentencePiece: 2 unknown, 3 control."""
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    content = b"".join(piece(text, score, kinds.get(text, 1)) for text, score in pieces)
    trainer = message(1, b"corpus.txt") + (b"\x18" + varint(model_type) if model_type else b"")
    return content + message(2, trainer) + message(3, message(1, b"nmt_nfkc") + message(2, charsmap))


def save(folder, content, **settings):
    """A T5 folder without `tokenizer.json`, as published by castorini."""
    (folder / "spiece.model").write_bytes(content)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    values = {"tokenizer_class": "T5Tokenizer", "eos_token": {"content": "</s>", "__type": "AddedToken"}} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text('{"model_type": "t5"}')
    return folder


@pytest.mark.parametrize("extra_ids", [0, 4, 100])
def test_ids_are_those_of_the_pieces_and_sentinels_stand_behind(tmp_path, extra_ids):
    """By hand: the index of a piece is its id, `</s>` is 1, and <extra_id_0> is the last id."""
    pieces = vocabulary()
    tokenizer = load_tokenizer(save(tmp_path, spiece(pieces), extra_ids=extra_ids, model_max_length=512))
    assert len(tokenizer) == len(pieces) + extra_ids
    known = {text: number for number, (text, _) in enumerate(pieces)}
    assert tokenizer.convert_tokens_to_ids(list(known)) == list(known.values())
    if extra_ids:
        assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == len(tokenizer) - 1
    assert tokenizer("true false").input_ids == [known["\u2581true"], known["\u2581false"], 1]
    assert tokenizer.model_max_length == 512
    plain = make_tokenizer()
    for text in TEXTS:
        assert tokenizer(text).input_ids == plain(text).input_ids


def test_scores_are_read_to_the_bit(tmp_path):
    """Single precision; a missing score is 0."""
    content = piece("<pad>", 0.0, 3) + piece("a", -1.5) + message(1, message(1, b"b")) + b"\x78\x01"
    (tmp_path / "spiece.model").write_bytes(content)
    model = read_sentencepiece(tmp_path / "spiece.model")
    assert model.pieces == (("<pad>", 0.0), ("a", -1.5), ("b", 0.0))
    assert (model.control, model.charsmap) == (("<pad>",), b"")


def test_a_checkpoint_as_published_scores_as_with_a_tokenizer_json(tmp_path):
    """The same ids, hence the same scores."""
    tokenizer = make_tokenizer()
    save_t5(tmp_path, tokenizer)
    results = []
    for content in (None, spiece(vocabulary())):
        if content is not None:
            save(tmp_path, content, extra_ids=4)
        with load_reranker(tmp_path, RerankOptions(device="cpu", dtype="float32")) as reranker:
            results += reranker.rerank([make_request(TEXTS[0], TEXTS[1:])])
    assert results[0] == results[1]
    assert results[0].error is None


WHOLE = spiece(vocabulary())


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        (b"", {}, "expected a unigram model of SentencePiece, found no pieces"),
        (WHOLE[:-5], {}, "incomplete SentencePiece model"),
        (b"\x0a" + b"\xff" * 12, {}, "incomplete SentencePiece model"),
        (b"\x0b\x00", {}, "incomplete SentencePiece model"),
        (message(1, b"\x15\0\0\0\0"), {}, "incomplete SentencePiece model"),
        (message(1, message(1, b"\xff\xfe")), {}, "incomplete SentencePiece model"),
        (spiece(vocabulary(), model_type=2), {}, "expected a unigram model of SentencePiece, found a model of kind 2"),
        (b"version https://git-lfs.github.com/spec/v1\n", {}, "is a Git LFS pointer, not the file itself"),
        (WHOLE, {"extra_ids": -1}, "extra_ids: expected an integer from 0 to 10000, found '-1'"),
        (WHOLE, {"extra_ids": "many"}, "extra_ids: expected an integer from 0 to 10000, found 'many'"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, content, settings, said):
    """Its contents may be arbitrary."""
    with pytest.raises(RankLLMError, match=said) as error:
        load_tokenizer(save(tmp_path, content, **settings))
    assert "\n" not in str(error.value)


def test_any_bytes_are_read_or_refused(tmp_path):
    """Each byte changed, each length truncated: a model or a one-line error."""
    whole = spiece(vocabulary()[:6])
    path = tmp_path / "spiece.model"
    for place in range(len(whole)):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x85]) + whole[place + 1 :]):
            path.write_bytes(content)
            try:
                read_sentencepiece(path)
            except RankLLMError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most are read all the same
