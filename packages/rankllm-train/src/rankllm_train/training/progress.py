"""Progress of a run for the user: a progress bar on a terminal, otherwise one line per entry."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SECONDS_BETWEEN_LINES = 15
_SHOWN = {
    "loss": ("loss", "{:.4f}"),
    "token_loss": ("token", "{:.4f}"),
    "list_loss": ("list", "{:.4f}"),
    "learning_rate": ("lr", "{:.2e}"),
    "grad_norm": ("grad", "{:.2f}"),
    "tokens_per_s": ("tok/s", "{:.0f}"),
    "padding": ("padding", "{:.0%}"),
}


def tracked(records: Sequence[Any], say: Callable[[str], None], *, is_shown: bool) -> Iterator[Any]:
    """Yield the records with a progress bar, or with an occasional line if there is no terminal. is_shown: False:
    neither."""
    on_terminal = is_shown and sys.stderr.isatty()
    shown_at = time.monotonic()
    for number, record in enumerate(tqdm(records, desc="tokenizing", unit="record", disable=not on_terminal)):
        if is_shown and not on_terminal and time.monotonic() - shown_at >= _SECONDS_BETWEEN_LINES:
            shown_at = time.monotonic()
            say(f"tokenizing: {number} of {len(records)} records")
        yield record


class Progress(TrainerCallback):
    """Shows progress, loss and speed of a run. say: called with each line if there is no terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._bar: Any = None
        self._tokens = (0.0, 0.0)
        """Token counts since step 1, over all processes: real tokens, and positions computed."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Open the bar at the step where the run starts or resumes."""
        for entry in state.log_history:
            self._count(entry)
        if state.is_world_process_zero and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **arguments: Any,
    ) -> None:
        """Show the latest values."""
        if not state.is_world_process_zero or not logs:
            return
        if "eval_loss" in logs:
            values = " ".join(f"{key} {logs[key]:.4f}" for key in logs if key.startswith("eval_"))
            self._line(f"step {state.global_step}/{state.max_steps} {values}")
        if "loss" not in logs:
            return
        self._count(logs)
        shown = {name: text.format(logs[key]) for key, (name, text) in _SHOWN.items() if key in logs}
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            values = " ".join(f"{name} {value}" for name, value in shown.items())
            self._say(f"step {state.global_step}/{state.max_steps} {values}")

    def _count(self, logs: Mapping[str, float]) -> None:
        if "tokens" in logs:
            real, computed = self._tokens
            self._tokens = (real + logs["tokens"], computed + logs["tokens"] / (1 - logs["padding"]))

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            self._say(text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Close the bar and report the tokens trained on and the share of padding."""
        if self._bar is not None:
            self._bar.close()
        real, computed = self._tokens
        if state.is_world_process_zero and computed:
            self._say(
                f"trained on {real:,.0f} tokens; {1 - real / computed:.1%} of the computed positions were padding"
            )
