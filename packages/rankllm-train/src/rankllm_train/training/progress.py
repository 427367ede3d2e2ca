"""What a person sees of a run: a progress bar on a terminal, a line an entry elsewhere."""

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
    """The records, with a bar on a terminal, and elsewhere a line now and then. is_shown: False shows nothing."""
    on_terminal = is_shown and sys.stderr.isatty()
    shown_at = time.monotonic()
    for number, record in enumerate(tqdm(records, desc="tokenising", unit="record", disable=not on_terminal)):
        if is_shown and not on_terminal and time.monotonic() - shown_at >= _SECONDS_BETWEEN_LINES:
            shown_at = time.monotonic()
            say(f"tokenising: {number} of {len(records)} records")
        yield record


class Progress(TrainerCallback):
    """Shows how far the run is, its loss and its speed. say: writes a line where there is no terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._bar: Any = None
        self._tokens = (0.0, 0.0)
        """Since step 1, by whatever process: real ones, and positions computed."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Open the bar at the step the run begins or goes on from."""
        for entry in state.log_history:
            self._count(entry)
        if state.is_world_process_zero and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **arguments: Any
    ) -> None:
        """Move the bar."""
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
        """Show the newest values."""
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
        """Close the bar; say what was computed, and how much of it for nothing."""
        if self._bar is not None:
            self._bar.close()
        real, computed = self._tokens
        if state.is_world_process_zero and computed:
            self._say(
                f"trained on {real:,.0f} tokens; {1 - real / computed:.1%} of the positions computed were padding"
            )
