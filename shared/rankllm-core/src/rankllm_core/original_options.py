"""Command lines of rank_llm and tevatron, translated to ours: options are renamed, ignored or rejected with a hint.

Each program keeps one table for its commands (`rankllm_infer.cli.originals`, `rankllm_train.cli.originals`). It is read
only when a command line contains something that our own commands do not declare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rankllm_core.errors import ConfigError

Takes = Literal["switch", "value", "values"]
"""What follows an option: nothing (or true or false, as in Hugging Face's parser), one value, or several."""

_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
"""Boolean values accepted by Hugging Face's argument parser, in any case.
Source: huggingface/transformers@fd79833 src/transformers/hf_argparser.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalOption:
    """One option of an original program, and its translation."""

    takes: Takes = "value"
    becomes: tuple[str, ...] = ()
    """Our arguments that replace it; `{}` is its value."""
    instead: str = ""
    """What to do instead, for the error. If this and `becomes` are empty, the option is ignored with a warning."""
    defaults: tuple[str, ...] = ()
    """Default values, for which the option is dropped silently."""
    covered_by: tuple[str, ...] = ()
    """Our options and aliases with the same effect: if one of them is given, the option is dropped silently."""


def renamed(*becomes: str, takes: Takes = "value", defaults: Sequence[str] = ()) -> OriginalOption:
    """Return an option with another name in rankllm."""
    return OriginalOption(takes=takes, becomes=becomes, defaults=tuple(defaults))


def replaced(instead: str, *, takes: Takes = "value", defaults: Sequence[str] = ()) -> OriginalOption:
    """Return an option without an equivalent. instead: what to do, in the imperative."""
    return OriginalOption(takes=takes, instead=instead, defaults=tuple(defaults))


def idle(takes: Takes = "value") -> OriginalOption:
    """Return an option without effect in rankllm: it is accepted with a warning."""
    return OriginalOption(takes=takes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Originals:
    """The options and commands of the originals that a program supports."""

    options: Mapping[str, Mapping[str, OriginalOption]]
    """Command -> option in kebab case -> its translation. The command `""` is the program itself."""
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The originals' commands, one or two words -> our words that replace them."""
    replaced_commands: Mapping[str, str] = field(default_factory=dict)
    """The originals' commands without an equivalent -> what to do instead."""


def adapt_command(arguments: Sequence[str], originals: Originals) -> list[str]:
    """Translate an original's command in a program's arguments. Raises ConfigError that names the replacement."""
    for n_words in (2, 1):
        name = " ".join(arguments[:n_words])
        if name in originals.commands:
            return [*originals.commands[name], *arguments[n_words:]]
        if name in originals.replaced_commands:
            raise ConfigError(f"{name}: is a command of rank_llm; {originals.replaced_commands[name]}")
    _refuse(arguments, originals.options.get("", {}))
    return list(arguments)


def _refuse(arguments: Sequence[str], table: Mapping[str, OriginalOption]) -> None:
    """Raise ConfigError if an option of the originals precedes the command."""
    if arguments and (found := table.get(arguments[0].partition("=")[0])) is not None:
        raise ConfigError(f"{arguments[0].partition('=')[0]}: {found.instead}")


def adapt_options(
    arguments: Sequence[str], own: Mapping[str, Takes], table: Mapping[str, OriginalOption] | None
) -> tuple[list[str], list[str]]:
    """Translate the originals' options in a command's arguments; also return a warning for each one that is ignored.

    own: the command's own option names -> what follows them. These are kept, except that a switch followed by true or
    false is rewritten. Unknown options are left to click. Raises ConfigError for an option that needs a replacement.
    """
    adapted, warnings, rest = list[str](), list[str](), list(arguments)
    while rest:
        token = rest.pop(0)
        if token == "--":
            return [*adapted, token, *rest], warnings
        name, equals, value = token.partition("=")
        name = name.replace("_", "-")
        foreign = _entry(name, table or {})
        takes = own.get(name, foreign.takes if foreign else None)
        values = [value] if equals else _values_behind(rest, takes)
        if not equals:
            del rest[: len(values)]
        if foreign is not None and _asks_for_nothing(foreign, values, arguments):
            continue
        if name in own:
            adapted += _of_ours(token, name, values, takes=own[name], is_joined=bool(equals))
        elif foreign is None:
            adapted.append(token)
        elif foreign.becomes or foreign.instead:
            adapted += _of_theirs(name, values, foreign)
        else:
            warnings.append(f"Warning: {name} has no effect in rankllm and is ignored")
    return adapted, warnings


def _entry(name: str, table: Mapping[str, OriginalOption]) -> OriginalOption | None:
    """Return the row of an option; Hugging Face's parser also has a `--no-` form of each switch."""
    if (found := table.get(name)) is not None:
        return found
    positive = table.get(f"--{name.removeprefix('--no-')}") if name.startswith("--no-") else None
    return positive if positive is not None and positive.takes == "switch" else None


def _asks_for_nothing(foreign: OriginalOption, values: Sequence[str], arguments: Sequence[str]) -> bool:
    """Return whether an option can be dropped: it has its default value, or another option covers it."""
    given = {token.partition("=")[0].replace("_", "-") for token in arguments}
    is_default = bool(values) and all(value in foreign.defaults for value in values)
    return is_default or not given.isdisjoint(foreign.covered_by)


def _values_behind(rest: Sequence[str], takes: Takes | None) -> list[str]:
    """Return the arguments that are values of an option."""
    if takes == "value":
        return list(rest[:1])
    if takes == "switch":
        return [rest[0]] if rest and rest[0].lower() in ("true", "false") else []
    if takes == "values":
        end = next((number for number, token in enumerate(rest) if token.startswith("--")), len(rest))
        return list(rest[:end])
    return []


def _of_ours(token: str, name: str, values: Sequence[str], *, takes: Takes, is_joined: bool) -> list[str]:
    """Return one of our options; a switch followed by true or false becomes `--NAME` or `--no-NAME`."""
    if takes != "switch":
        return [token] if is_joined else [token, *values]
    said = values[0].lower() if values else ""
    if said in _TRUE:
        return [name]
    return [f"--no-{name.removeprefix('--')}"] if said in _FALSE else [token]


def _of_theirs(name: str, values: Sequence[str], foreign: OriginalOption) -> list[str]:
    """Translate an option of the originals. Raises ConfigError if the user has to replace it."""
    is_off = name.startswith("--no-") or (bool(values) and values[0].lower() in _FALSE)
    if foreign.takes == "switch" and is_off:
        return []
    if foreign.instead:
        raise ConfigError(f"{name}: is an option of the original programs; {foreign.instead}")
    return [part.replace("{}", values[0] if values else "") for part in foreign.becomes]


_HUGGING_FACE: Mapping[Takes, str] = {
    "switch": """
        activation_checkpointing adafactor auto_find_batch_size average_tokens_across_devices
        batch_eval_metrics bf16 bf16_full_eval dataloader_drop_last dataloader_in_order
        dataloader_persistent_workers dataloader_pin_memory ddp_broadcast_buffers
        ddp_find_unused_parameters ddp_static_graph disable_tqdm dispatch_batches do_eval
        do_predict do_train enable_jit_checkpoint eval_do_concat_batches eval_on_start
        eval_use_gather_object fp16 fp16_full_eval full_determinism gradient_checkpointing
        greater_is_better group_by_length hub_always_push hub_private_repo ignore_data_skip
        include_inputs_for_metrics include_num_input_tokens_seen include_tokens_per_second
        jit_mode_eval load_best_model_at_end log_on_each_node logging_first_step
        logging_nan_inf_filter no_cuda overwrite_output_dir prediction_loss_only push_to_hub
        remove_unused_columns restore_callback_states_from_checkpoint save_on_each_node
        save_only_model save_safetensors skip_memory_metrics split_batches tf32 torch_compile
        tpu_metrics_debug use_cache use_cpu use_ipex use_legacy_prediction_loop use_liger_kernel
        use_mps_device
    """,
    "value": """
        accelerator_config activation_checkpointing_kwargs adam_beta1 adam_beta2 adam_epsilon
        data_seed dataloader_multiprocessing_context dataloader_num_workers
        dataloader_prefetch_factor ddp_backend ddp_bucket_cap_mb ddp_timeout deepspeed
        eval_accumulation_steps eval_delay eval_steps eval_strategy evaluation_strategy
        fp16_backend fp16_opt_level fsdp fsdp_config fsdp_min_num_params
        fsdp_transformer_layer_cls_to_wrap gradient_accumulation_steps
        gradient_checkpointing_kwargs half_precision_backend hub_model_id hub_revision
        hub_strategy hub_token label_smoothing_factor learning_rate length_column_name
        liger_kernel_config local_rank log_level log_level_replica logging_dir logging_steps
        logging_strategy lr_scheduler_kwargs lr_scheduler_type max_grad_norm max_steps
        metric_for_best_model mp_parameters neftune_noise_alpha num_train_epochs optim
        optim_args output_dir parallelism_config past_index per_device_eval_batch_size
        per_device_train_batch_size per_gpu_eval_batch_size per_gpu_train_batch_size project
        push_to_hub_model_id push_to_hub_organization push_to_hub_token ray_scope
        resume_from_checkpoint run_name save_steps save_strategy save_total_limit seed
        sharded_ddp torch_compile_backend torch_compile_mode torch_empty_cache_steps torchdynamo
        tpu_num_cores trackio_bucket_id trackio_space_id trackio_static_space_id
        train_sampling_strategy warmup_ratio warmup_steps weight_decay xpu_backend
    """,
    "values": """
        debug include_for_metrics label_names optim_target_modules report_to
    """,
}
HUGGING_FACE_ARGUMENTS: Mapping[str, Takes] = {
    f"--{name.replace('_', '-')}": takes for takes, names in _HUGGING_FACE.items() for name in names.split()
}
"""Arguments of transformers' `TrainingArguments`, which all programs of tevatron accept, including the rerankers.

Source: transformers 4.33.0 (tevatron v1), 5.9 (tevatron's HEAD) and the release locked here.
"""
