"""Every option of the command lines of rank_llm and tevatron, as their parsers declare them at the commits named here.

castorini/rank_llm@1b3cabb src/rank_llm/cli/main.py, training/utils/model_utils.py; texttron/tevatron@2e5d00e
src/tevatron/arguments.py, examples/rankllama/prepare_rerank_file.py; texttron/tevatron@dd06310
src/tevatron/reranker/arguments.py, src/tevatron/eval, src/tevatron/utils. Each line: whose, our command, their options.
"""

from __future__ import annotations

RANK_LLM_MODEL = """model_path context_size num_gpus prompt_template_path num_few_shot_examples few_shot_file
 shuffle_candidates print_prompts_responses use_azure_openai use_openrouter use_litellm base_url variable_passages
 num_passes window_size stride system_message populate_invocations_history is_thinking reasoning_token_budget use_logits
 use_alpha pointwise_vllm listwise_vllm_with_openai_sdk sglang_batched reasoning_effort max_passage_words batch_size"""
RANK_LLM_RERANK = (
    RANK_LLM_MODEL
    + """ query dataset requests_file input_json stdin dry_run validate_only batched vllm_batched
 tensorrt_batched step_size retrieval_method top_k_candidates
 top_k_rerank max_queries qrels_file output_jsonl_file output_trec_file invocations_history_file prompt_mode"""
)
RANK_LLM_TRAIN = """model_name_or_path config_name tokenizer_name train_dataset_path cache_dir
 per_device_train_batch_size learning_rate weight_decay noisy_embedding_alpha num_train_epochs max_train_steps
 gradient_accumulation_steps ranking_loss weighted objective lr_scheduler_type num_warmup_steps output_dir seed
 model_type preprocessing_num_workers overwrite_cache trust_remote_code checkpointing_steps
 resume_from_checkpoint with_tracking gradient_checkpointing report_to low_cpu_mem_usage"""
TEVATRON_V1 = """model_name_or_path config_name tokenizer_name cache_dir untie_encoder add_pooler projection_in_dim
 projection_out_dim normalize dtype train_dir dataset_name passage_field_separator dataset_proc_num train_n_passages
 positive_passage_no_shuffle negative_passage_no_shuffle encode_in_path encoded_save_path encode_is_qry encode_num_shard
 encode_shard_index q_max_len p_max_len data_cache_dir warmup_ratio negatives_x_device do_encode grad_cache
 gc_q_chunk_size gc_p_chunk_size"""
TEVATRON_V2 = """model_name_or_path config_name tokenizer_name cache_dir reranker_model_type reranker_pooling lora
 lora_name_or_path lora_r lora_alpha lora_dropout lora_target_modules attn_implementation dataset_name dataset_config
 dataset_path dataset_split dataset_cache_dir dataset_number_of_shards dataset_shard_index train_group_size
 positive_passage_no_shuffle negative_passage_no_shuffle rerank_output_path rerank_max_len query_prefix passage_prefix
 append_eos_token pad_to_multiple_of"""
TEVATRON_VLLM = """model_name_or_path lora_name_or_path tokenizer_name rerank_input rerank_output rerank_max_len
 per_device_eval_batch_size query_prefix passage_prefix append_eos_token pad_to_multiple_of max_model_len
 tensor_parallel_size dtype gpu_memory_utilization max_num_seqs enforce_eager trust_remote_code chunk_size top_logprobs
 missing_fallback_logprob prompt_template attn_implementation"""
HUGGING_FACE_4_33 = """output_dir overwrite_output_dir do_train do_eval do_predict evaluation_strategy
 prediction_loss_only per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size
 per_gpu_eval_batch_size gradient_accumulation_steps eval_accumulation_steps eval_delay learning_rate weight_decay
 adam_beta1 adam_beta2 adam_epsilon max_grad_norm num_train_epochs max_steps lr_scheduler_type warmup_ratio warmup_steps
 log_level log_level_replica log_on_each_node logging_dir logging_strategy logging_first_step logging_steps
 logging_nan_inf_filter save_strategy save_steps save_total_limit save_safetensors save_on_each_node no_cuda
 use_mps_device seed data_seed jit_mode_eval use_ipex bf16 fp16 fp16_opt_level half_precision_backend bf16_full_eval
 fp16_full_eval tf32 local_rank ddp_backend tpu_num_cores tpu_metrics_debug debug dataloader_drop_last eval_steps
 dataloader_num_workers past_index run_name disable_tqdm remove_unused_columns label_names load_best_model_at_end
 metric_for_best_model greater_is_better ignore_data_skip sharded_ddp fsdp fsdp_min_num_params fsdp_config
 fsdp_transformer_layer_cls_to_wrap deepspeed label_smoothing_factor optim optim_args adafactor group_by_length
 length_column_name report_to ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers dataloader_pin_memory
 skip_memory_metrics use_legacy_prediction_loop push_to_hub resume_from_checkpoint hub_model_id hub_strategy hub_token
 hub_private_repo hub_always_push gradient_checkpointing include_inputs_for_metrics fp16_backend push_to_hub_model_id
 push_to_hub_organization push_to_hub_token mp_parameters auto_find_batch_size full_determinism torchdynamo ray_scope
 ddp_timeout torch_compile torch_compile_backend torch_compile_mode dispatch_batches xpu_backend
 no_logging_nan_inf_filter no_dataloader_pin_memory no_skip_memory_metrics no_remove_unused_columns
 no_save_safetensors"""
"""Of `transformers.TrainingArguments` 4.33.0, which tevatron v1 was tested with. The `no_` forms are its parser's."""

INFER = [
    ("rank_llm", "rerank", RANK_LLM_RERANK),
    ("rank_llm", "serve", f"{RANK_LLM_MODEL} host port"),
    ("rank_llm", "mcp", "transport port"),
    ("rank_llm", "evaluate", "model_name context_size rerank_results_dirname"),
    ("rank_llm", "prepare", "trec_file collection_file query_file output_file output_trec_file topk"),
    ("tevatron", "rerank", f"{TEVATRON_V1} {TEVATRON_V2} {TEVATRON_VLLM} {HUGGING_FACE_4_33}"),
    (
        "tevatron",
        "prepare",
        """query_data_name query_data_split query_data_config corpus_data_name corpus_data_config retrieval_results
 output_path depth cache_dir dataset rank_file query_dataset query_jsonl corpus_dataset query_split corpus_split
 no_dataset_config""",
    ),
    ("tevatron", "convert", "input output remove_query"),
    ("tevatron", "evaluate", "dataset ranklist output benchmark beir_cache_dir k_values"),
    (
        "tevatron",
        "serve",
        """backend model tokenizer lora_name_or_path prompt_template score_mode rerank_max_len dtype host port
 tensor_parallel_size max_model_len gpu_memory_utilization max_num_seqs enforce_eager trust_remote_code top_logprobs
 missing_fallback_logprob attn_implementation hf_batch_size device_map""",
    ),
]
TRAIN = [
    ("rank_llm", "listwise", RANK_LLM_TRAIN),
    ("tevatron", "pointwise", f"{TEVATRON_V1} {TEVATRON_V2} {HUGGING_FACE_4_33}"),
]


def answer_to(group, *words):
    """What a program says to a command line: an error of one line, or nothing where it is taken.

    The words are put into ours and parsed; nothing runs.
    """
    import click

    above = click.Context(group, info_name="program", **group.context_settings)
    try:
        group.parse_args(above, list(words))
        _, found, rest = group.resolve_command(above, [*above._protected_args, *above.args])
        if not isinstance(found, click.Group):
            found.make_parser(click.Context(found, parent=above, **found.context_settings)).parse_args(rest)
    except click.UsageError as error:
        return error.format_message()
    return ""
