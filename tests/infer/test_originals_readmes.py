"""The inference lines of both original READMEs, run: program names and paths mapped as docs/coming-from.md says.

castorini/rank_llm@1b3cabb training/README.md and texttron/tevatron@130ed2c examples/rankllama/README.md. Models and
data that the lines name lie here under those names, tiny; nothing is downloaded.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest

pytest.importorskip("torch")

from tiny_models import change_json, save_causal

from rankllm_core.trec import read_run

RANK_ZEPHYR = """python src/rank_llm/scripts/run_rank_llm.py  --model_path=training/models/ranking/RankZephyr/epoch_2 \
--top_k_candidates=100 --dataset=dl20 \
--retrieval_method=SPLADE++_EnsembleDistil_ONNX \
--prompt_template_path=src/rank_llm/rerank/prompt_templates/rank_zephyr_template.yaml --context_size=4096 \
--variable_passages --num_gpus 1"""
FIRST_MISTRAL = """python src/rank_llm/scripts/run_rank_llm.py  \
--model_path=training/models/ranking/FirstMistral/epoch_2 \
--top_k_candidates=100 --dataset=dl20 --retrieval_method=SPLADE++_EnsembleDistil_ONNX \
--prompt_template_path=src/rank_llm/rerank/prompt_templates/rank_zephyr_alpha_template.yaml --context_size=4096 \
--variable_passages --use_logits --use_alpha --num_gpus 1"""
RANKLLAMA = (
    """python prepare_rerank_file.py \
    --query_data_name Tevatron/msmarco-passage \
    --query_data_split dl19 \
    --corpus_data_name Tevatron/msmarco-passage-corpus \
    --retrieval_results run.repllama.psg.dl19.txt \
    --output_path rerank_input.repllama.psg.dl19.jsonl \
    --depth 200""",
    """CUDA_VISIBLE_DEVICES=0 python reranker_inference.py \
  --output_dir=temp \
  --model_name_or_path castorini/rankllama-v1-7b-lora-passage \
  --tokenizer_name meta-llama/Llama-2-7b-hf \
  --encode_in_path rerank_input.repllama.psg.dl19.jsonl \
  --fp16 \
  --per_device_eval_batch_size 64 \
  --q_max_len 32 \
  --p_max_len 164 \
  --dataset_name json \
  --encoded_save_path run.rankllama.psg.dl19.txt""",
    """python -m tevatron.utils.format.convert_result_to_trec \
              --input run.rankllama.psg.dl19.txt \
              --output run.rankllama.psg.dl19.trec""",
    "python -m pyserini.eval.trec_eval -c -m ndcg_cut.10 dl19-passage run.rankllama.psg.dl19.trec",
)
PROGRAMS = {
    "src/rank_llm/scripts/run_rank_llm.py": "rerank",
    "prepare_rerank_file.py": "prepare",
    "reranker_inference.py": "rerank",
    "-m tevatron.utils.format.convert_result_to_trec": "convert",
    "-m pyserini.eval.trec_eval": "evaluate",
}
"""The originals' programs -> our commands: what docs/coming-from.md states."""


def our_words(line):
    """A README's line behind our program's name; nothing behind the original's program is changed."""
    _, _, line = re.sub(r"\s+", " ", line).partition("python ")
    theirs, ours = next(item for item in PROGRAMS.items() if line.startswith(item[0] + " "))
    return [ours, *shlex.split(line.removeprefix(theirs))]


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def rank_llm_folder(tmp_path, monkeypatch, smollm2_tokenizer):
    """A clone of rank_llm after training: two models of two epochs' names, a stored first stage and its judgements."""
    for name in ("RankZephyr", "FirstMistral"):
        folder = tmp_path / "training" / "models" / "ranking" / name / "epoch_2"
        save_causal(folder, smollm2_tokenizer)
        change_json(folder / "config.json", max_position_embeddings=4096)
    candidates = [{"docid": f"d{n}", "score": 9.0 - n, "doc": {"contents": f"passage {n}"}} for n in range(4)]
    requests = [{"query": {"qid": "23849", "text": "are naturalization records public"}, "candidates": candidates}]
    stored = tmp_path / "retrieve_results" / "SPLADE_P_P_ENSEMBLE_DISTIL" / "retrieve_results_dl20_top100.jsonl"
    write_lines(stored, requests)
    write_lines(tmp_path / "qrels" / "qrels_dl20.json", [{"23849": {"d2": "3"}}])
    monkeypatch.delenv("RANK_LLM_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "name"), [(RANK_ZEPHYR, "RankZephyr"), (FIRST_MISTRAL, "FirstMistral")])
def test_the_lines_of_rank_llm_run_and_write_where_it_does(rank_llm_folder, rankllm, line, name):
    """Run and results in rerank_results/METHOD, named for model, context, depth, data set, time, window and engine."""
    done = rankllm(*our_words(line))
    assert done.code == 0, done.err
    (run,) = rank_llm_folder.glob("rerank_results/*/*.txt")
    assert run.parent.name == "SPLADE_P_P_ENSEMBLE_DISTIL"
    time = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d"
    assert re.fullmatch(rf"{name}_epoch_2_4096_100_dl20_{time}_window_20_transformers", run.stem)
    assert f"Outputs: {run.relative_to(rank_llm_folder)} and {run.stem}.jsonl\n" in done.err
    assert sorted(docid for docid, _ in read_run(run)["23849"]) == ["d0", "d1", "d2", "d3"]
    (line,) = run.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    assert len(json.loads(line)["candidates"]) == 4
    assert "nDCG@10" in done.out  # of the judgements beside the stored first stage
    assert (", 0 generated" in done.err) == (name == "FirstMistral")  # --use_logits: one token is read


def test_the_lines_of_rankllamas_readme_run_one_after_the_other(
    tmp_path, rankllm, monkeypatch, tiny_adapter, tiny_causal
):
    """From the first-stage run to nDCG@10: the last number is that of the scores that the model gave."""
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "castorini" / "rankllama-v1-7b-lora-passage"
    shutil.copytree(tiny_adapter, adapter)
    base = "meta-llama/Llama-2-7b-hf"
    shutil.copytree(tiny_causal, tmp_path / base)
    change_json(adapter / "adapter_config.json", base_model_name_or_path=base)
    (tmp_path / "Tevatron").mkdir()
    # A name without an ending is read as TSV.
    texts = {
        "msmarco-passage": "264014\thow long is the life cycle of a flea\n",
        "msmarco-passage-corpus": "".join(f"{n}\tpassage {n} of fleas\n" for n in range(5)),
    }
    for name, text in texts.items():
        (tmp_path / "Tevatron" / name).write_text(text, encoding="utf-8")
    first_stage = "".join(f"264014 {n} {9.0 - n}\n" for n in range(5))
    (tmp_path / "run.repllama.psg.dl19.txt").write_text(first_stage, encoding="utf-8")
    (tmp_path / "qrels.dl19-passage.txt").write_text("264014 0 3 1\n", encoding="utf-8")
    outputs = [rankllm(*our_words(line)) for line in RANKLLAMA]
    assert [done.code for done in outputs] == [0] * 4, [done.err for done in outputs]
    trec = [line.split() for line in (tmp_path / "run.rankllama.psg.dl19.trec").read_text().splitlines()]
    assert [fields[:2] + fields[3:4] for fields in trec] == [["264014", "Q0", str(rank)] for rank in range(1, 6)]
    scores = read_run(tmp_path / "run.rankllama.psg.dl19.txt", format="tsv")["264014"]
    assert [fields[2] for fields in trec] == [docid for docid, _ in sorted(scores, key=lambda one: -one[1])]
    rank = [fields[2] for fields in trec].index("3") + 1
    gain = {1: "1.0000", 2: "0.6309", 3: "0.5000", 4: "0.4307", 5: "0.3869"}[rank]  # 1 / log2(rank + 1)
    assert outputs[-1].out == f"run.rankllama.psg.dl19.trec\tndcg_cut.10\t{gain}\n"
    assert not (tmp_path / "temp").exists()
