"""Encoders with a classification head: transformers' scores in any batch; one-line rejections."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from encoder_models import MODELS, PACKED, POSITIONS, TEXTS, make_model, make_tokenizer, save_encoder, save_modular
from ranking_server import write_jsonl
from safetensors.torch import load_file, save_file
from tiny_models import change_json

from rankllm_core.errors import ContractError, RankLLMError
from rankllm_infer import RerankOptions, load_reranker, make_request, plan_reranking
from rankllm_infer.checkpoints.model_identity import folder_identity
from rankllm_infer.engines.transformers.encoders.cross_encoders import Encoder, ready_encoder
from rankllm_infer.engines.transformers.encoders.encoder_attention import attend_within

QUERY = "How long do llamas live?"
PASSAGES = (*TEXTS, "a", "They live long. " * 4, "llama café")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Architecture -> folder and model in float32; created on request."""
    made = {}

    def checkpoint(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("encoders") / name
            made[name] = (folder, save_encoder(folder, name))
        return made[name]

    return checkpoint


def oracle(name, model, passages=PASSAGES):
    """Plain transformers' output for each pair individually, truncated like CrossEncoder."""
    tokenizer = make_tokenizer(MODELS[name][0])
    with torch.inference_mode():
        pairs = (tokenizer([(QUERY, p)], truncation=True, max_length=POSITIONS, return_tensors="pt") for p in passages)
        return [model(**pair).logits[0, 0].item() for pair in pairs]


def scores(folder, passages=PASSAGES, **options):
    """rankllm's scores in passage order."""
    with load_reranker(folder, RerankOptions(device="cpu", **options)) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, passages)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    return [found[docid] for docid in sorted(found, key=int)]


def prompts(name):
    """Ids and the number of leading ids of the first type for each pair, from the tokenizer itself."""
    tokenizer = make_tokenizer(MODELS[name][0])
    batch = tokenizer([(QUERY, passage) for passage in PASSAGES], truncation=True, max_length=POSITIONS)
    types = batch.get("token_type_ids", [[0]] * len(PASSAGES))
    return batch["input_ids"], [row.index(1) if 1 in row else 0 for row in types]


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_transformers(checkpoints, name):
    """Without options other than the dtype: card, limits, token types, positions and pooling come from the
    checkpoint."""
    folder, model = checkpoints(name)
    assert scores(folder, dtype="float32") == pytest.approx(oracle(name, model), abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_gives_what_each_pair_gives_alone(name):
    """In a batch with rows of other lengths: packed if the architecture allows it, else padded with a mask."""
    model = make_model(name, make_tokenizer(MODELS[name][0]))
    expected = oracle(name, model)
    rows, n_first = prompts(name)
    ready_encoder(model, "auto")
    encoder = Encoder(model)
    assert (encoder.packing == "rows") == (name in PACKED)
    with torch.inference_mode():
        assert encoder.scores(rows, n_first).tolist() == pytest.approx(expected, abs=1e-5)
        assert encoder.scores(rows[::-1], n_first[::-1]).tolist() == pytest.approx(expected[::-1], abs=1e-5)


@pytest.mark.parametrize("name", ["Bert", "XLMRoberta", "ModernBert"])
def test_flash_attention_is_given_rows_by_their_lengths(name):
    """With a stand-in for its kernel, on a CPU."""
    model = make_model(name, make_tokenizer(MODELS[name][0]))
    expected = oracle(name, model)
    rows, n_first = prompts(name)
    _use_flash_stand_in(model)
    with torch.inference_mode():
        found = Encoder(model, packing="flash").scores(rows, n_first).tolist()
    assert found == pytest.approx(expected, abs=1e-5)


def _use_flash_stand_in(model):
    """Result of flash-attention's varlen kernel for each sequence, bidirectional; its window includes both ends."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    def attend(module, query, key, value, attention_mask, *, cu_seq_lens_q, scaling, sliding_window=None, **options):
        assert attention_mask is None
        assert not module.is_causal
        mixed = []
        for start, end in zip(cu_seq_lens_q[:-1].tolist(), cu_seq_lens_q[1:].tolist(), strict=True):
            row = (states[:, :, start:end] for states in (query, key, value))
            mixed.append(brute_force(*row, window=sliding_window, scale=scaling))
        return torch.cat(mixed, dim=2).transpose(1, 2), None

    AttentionInterface.register("rows_by_lengths", attend)
    AttentionMaskInterface.register("rows_by_lengths", flash_attention_mask)
    model.set_attn_implementation("rows_by_lengths")


def brute_force(query, key, value, *, window, scale):
    """Softmax over all keys except those at a distance of `window` or more."""
    place = torch.arange(query.shape[2])
    weights = query @ key.transpose(2, 3) * scale
    if window is not None:
        weights = weights.masked_fill((place[:, None] - place).abs() >= window, float("-inf"))
    return weights.softmax(-1) @ value


@pytest.mark.parametrize("n_tokens", [1, 4, 5, 6, 127, 128, 129, 300])
@pytest.mark.parametrize("window", [None, 5, 140])
def test_attention_within_a_row_sees_both_ways_as_far_as_the_window(n_tokens, window):
    """Lengths at the boundaries of the window and of the blocks."""
    torch.manual_seed(0)
    states = [torch.randn(1, 2, n_tokens, 8) for _ in range(3)]
    found = attend_within(*states, window=window, scale=0.3)
    assert torch.allclose(found, brute_force(*states, window=window, scale=0.3), atol=1e-5)


@pytest.mark.parametrize("name", ["XLMRoberta", "DebertaV2"])
def test_float32_scores_do_not_depend_on_the_batch(checkpoints, name):
    """Bit-identical, packed or padded, for any batch size and any neighbours."""
    folder, _ = checkpoints(name)
    alone = [scores(folder, [passage], dtype="float32")[0] for passage in PASSAGES[:3]]
    assert scores(folder, dtype="float32", batch_size=8)[:3] == alone
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32", batch_size=8)) as reranker:
        assert reranker.warnings[0].startswith("--batch-size has no effect: float32 on a CPU runs one prompt at a time")


@pytest.mark.parametrize("name", ["Bert", "ModernBert", "DebertaV2"])
def test_bfloat16_scores_are_near_and_finer_than_bfloat16(checkpoints, name):
    """The last product is in float32, so that close passages do not tie."""
    folder, model = checkpoints(name)
    found = scores(folder, dtype="bfloat16")
    assert found == pytest.approx(oracle(name, model), abs=0.3)
    assert torch.tensor(found).bfloat16().tolist() != found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_transformers_own_attention_can_be_asked_for(checkpoints, attention):
    """Rows are then padded."""
    folder, model = checkpoints("ModernBert")
    found = scores(folder, dtype="float32", attn_implementation=attention)
    assert found == pytest.approx(oracle("ModernBert", model), abs=1e-5)
    with pytest.raises(RankLLMError, match="--attn-implementation flash_attention_2: needs a CUDA device"):
        scores(folder, dtype="float32", attn_implementation="flash_attention_2")


def test_long_texts_are_cut_and_long_queries_leave_room(checkpoints):
    """A query takes at most half of the positions, and a passage the rest."""
    folder, _ = checkpoints("Roberta")
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32")) as reranker:
        assert (reranker.card.query_tokens, reranker.card.passage_tokens) == (POSITIONS // 2, POSITIONS)
        prompt = reranker.method.writer.write("llamas " * 200, title="", text="passage " * 200)
        assert len(prompt.token_ids) == POSITIONS
        (result,) = reranker.rerank([make_request("llamas " * 200, ["passage " * 200, "other"])])
        assert result.status == "ok"
    with pytest.raises(RankLLMError, match=f"the model has {POSITIONS} positions; use a smaller --q-max-len or"):
        scores(folder, p_max_len=POSITIONS + 1)


def test_the_command_ranks_with_an_encoder_without_flags(checkpoints, rankllm, tmp_path):
    """In the order of transformers' scores; the trace shows the pair."""
    folder, model = checkpoints("Bert")
    candidates = [{"docid": f"d{number}", "doc": {"text": text}} for number, text in enumerate(TEXTS)]
    asked = {"query": {"qid": "q", "text": QUERY}, "candidates": candidates}
    requests = write_jsonl(tmp_path / "requests.jsonl", asked)
    output, trace = tmp_path / "out.trec", tmp_path / "trace.jsonl"
    output_options = ("--output", output, "--trace", trace, "--dtype", "float32")
    done = rankllm("rerank", "--model-path", folder, "--requests", requests, *output_options)
    assert done.code == 0, done.err
    assert "[CLS] " in trace.read_text(encoding="utf-8")
    scored = sorted(zip(oracle("Bert", model, TEXTS), candidates, strict=True), key=lambda pair: -pair[0])
    ranked = [line.split()[2] for line in output.read_text(encoding="utf-8").splitlines()]
    assert ranked == [candidate["docid"] for _, candidate in scored]
    shown = rankllm("prompts", "render", "--requests", requests, "--model-path", folder)
    assert shown.out.count("[SEP]") == 2, shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "listwise"}, "--method listwise: .* is an encoder .*; leave it out"),
        ({"method": "pairwise"}, "--method pairwise: .* is an encoder .*; leave it out"),
        ({"compile": True}, "--compile: .* is an encoder .*; leave it out"),
        ({"free_decoding": True}, "--free-decoding has no effect on a pointwise reranker"),
        ({"use_logits": True}, "--use-logits has no effect on a pointwise reranker"),
        ({"template": "yes_no"}, "template yes_no: .* is an encoder.*; use --prompt-template-path pair"),
        ({"template": "rankllama"}, "template rankllama: .* is an encoder.*; use --prompt-template-path pair"),
    ],
)
def test_what_an_encoder_cannot_do_is_one_line_before_weights_are_read(checkpoints, options, message):
    """Reported by the plan, which reads no weights."""
    folder, _ = checkpoints("Bert")
    with pytest.raises(RankLLMError, match=message) as error:
        plan_reranking(folder, RerankOptions(**options))
    assert "\n" not in str(error.value)


def test_a_head_of_two_labels_or_of_words_is_refused_by_the_configuration(tmp_path):
    """A two-class classifier has no score to sort by; a BERT language model has no such head."""
    save_encoder(tmp_path / "two", "Bert", num_labels=2)
    with pytest.raises(ContractError, match="its head returns 2 labels per passage, expected one score"):
        plan_reranking(tmp_path / "two")
    change_json(tmp_path / "two" / "config.json", architectures=["BertForMaskedLM"])
    with pytest.raises(ContractError, match="BertForMaskedLM is not a decoder and has no sequence-classification head"):
        plan_reranking(tmp_path / "two", RerankOptions(method="pointwise"))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("classifier.", r"no sequence-classification head \(classifier.bias\) in the checkpoint; its scores would be"),
        ("bert.encoder.layer.1.output.dense.", r"no weights of its layers \(bert.encoder.layer.1.output.dense.bias\)"),
    ],
)
def test_weights_that_would_be_random_are_refused(tmp_path, lost, message):
    """transformers only logs what a checkpoint lacks."""
    save_encoder(tmp_path, "Bert")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file({name: w for name, w in weights.items() if not name.startswith(lost)}, file, metadata={"format": "pt"})
    with pytest.raises(ContractError, match=message):
        load_reranker(tmp_path, RerankOptions(device="cpu"))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_head_of_modules_is_read_as_ettin_rerankers_keep_it(tmp_path, pooling):
    """Next to a plain encoder: pooling, a dense layer, a norm and a dense layer, each in its own folder."""
    backbone, head = save_modular(tmp_path, pooling=pooling)
    rows, _ = prompts("ModernBert")
    with torch.inference_mode():
        states = [backbone(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows]
        expected = [head(row_LD.mean(0) if pooling == "mean" else row_LD[0]).item() for row_LD in states]
    assert scores(tmp_path, dtype="float32") == pytest.approx(expected, abs=1e-5)
    assert scores(tmp_path, dtype="bfloat16") == pytest.approx(expected, abs=0.3)


def test_a_head_of_modules_is_part_of_a_models_identity(tmp_path):
    """A run is not resumed with a different head."""
    save_modular(tmp_path)
    before = folder_identity(tmp_path)
    file = tmp_path / "4_Dense" / "model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file)
    assert folder_identity(tmp_path) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "1_Pooling/config.json: pooling_mode: expected one of cls, mean; found 'max'"),
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "4_Dense/config.json: expected the activation"),
        ({"out_features": 2}, "ModernBertModel is not a decoder and has no sequence-classification head"),
    ],
)
def test_modules_that_give_no_score_or_another_one_are_refused(tmp_path, changes, message):
    """By their settings, before weights are read."""
    save_modular(tmp_path, **changes)
    with pytest.raises(ContractError, match=message):
        plan_reranking(tmp_path)


def test_damaged_modules_are_one_line(tmp_path):
    """A malformed list, a path outside the folder, and weights of a different size."""
    save_modular(tmp_path)
    listed = (tmp_path / "modules.json").read_text(encoding="utf-8")
    for text, message in (
        ("{", "modules.json: not JSON"),
        ("{}", "modules.json: expected a list of modules"),
        (
            listed.replace("4_Dense", "../4_Dense"),
            "modules.json: path: expected a folder inside the model's, found '../4_Dense'",
        ),
        (listed.replace("3_LayerNorm", "2_Dense"), "3_LayerNorm|2_Dense: the head's weights"),
    ):
        (tmp_path / "modules.json").write_text(text, encoding="utf-8")
        with pytest.raises(RankLLMError, match=message):
            load_reranker(tmp_path, RerankOptions(device="cpu"))


def test_relative_positions_are_projected_once():
    """DeBERTa-v2: later passes give identical bits and reuse the projections."""
    model = make_model("DebertaV2", make_tokenizer("deberta"))
    rows, n_first = prompts("DebertaV2")
    ready_encoder(model, "auto")
    encoder = Encoder(model)
    linears = [layer.attention.self.key_proj._linear for layer in model.deberta.encoder.layer]
    calls = []
    for linear in linears:
        linear.register_forward_hook(lambda layer, inputs, output: calls.append(inputs[0].shape[1]))
    with torch.inference_mode():
        first = encoder.scores(rows[:1], n_first[:1]).tolist()
        n_first_calls = len(calls)
        assert encoder.scores(rows[:1], n_first[:1]).tolist() == first
    # Each layer multiplies positions and tokens in the first pass, tokens alone in the second.
    assert (n_first_calls, len(calls)) == (2 * len(linears), 3 * len(linears))
