"""One line in place of whatever a library raises while it loads a model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from rankllm_core.errors import ContractError, RankLLMError, first_line

_LENGTH = 240


@contextlib.contextmanager
def readable_load(source: object, *, problem: str = "the model cannot be loaded") -> Iterator[None]:
    """Turn any error of the libraries that load a model into a RankLLMError that names the folder and the cause.

    Only calls into such libraries belong inside: damaged files make them raise KeyError, TypeError, RuntimeError,
    errors of their own and, from Rust, panics. Errors that are already one line pass. The cause stays attached.
    source: the folder. problem: what cannot be done, for the message.
    """
    try:
        yield
    except RankLLMError:
        raise
    except Exception as error:
        raise _explained(source, error, problem) from error
    except BaseException as error:
        # A panic in Rust derives from BaseException, so that nobody catches it by accident.
        if type(error).__name__ != "PanicException":
            raise
        raise _explained(source, error, problem) from error


def _explained(source: object, error: BaseException, problem: str) -> RankLLMError:
    text = str(error)
    if "size mismatch" in text or "ignore_mismatched_sizes" in text:
        shapes = next((f" ({line.strip()[:_LENGTH]})" for line in text.splitlines() if "size mismatch" in line), "")
        return ContractError(f"{source}: {problem}: the weights are of other sizes than its settings say{shapes}")
    if "Weights only load failed" in text:
        return RankLLMError(
            f"{source}: {problem}: its pickled weights hold more than tensors, or are damaged, and are not unpickled; "
            "get or save them as safetensors"
        )
    if "trust_remote_code" in text:
        return RankLLMError(
            f"{source}: {problem} without code of its own (auto_map), which is not run; --trust-remote-code allows it, "
            "for a local folder or a pinned revision"
        )
    if "Unrecognized configuration class" in text:
        kind = re.search(r"\.(\w+)Config'", text)
        what = "score head over a decoder" if "SequenceClassification" in text else "causal language model"
        return ContractError(f"{source}: {problem}: transformers has no {what} for {kind[1] if kind else 'its kind'}")
    if isinstance(error, ImportError):
        return RankLLMError(f"{source}: {problem}: it needs a package that is not installed ({first_line(error)})")
    if isinstance(error, MemoryError):
        return RankLLMError(f"{source}: {problem}: not enough memory")
    return RankLLMError(f"{source}: {problem} ({first_line(error)})")
