"""The engine whose answers come from a function."""

from __future__ import annotations

from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine


def run(engine, n):
    """Tickets in the order of their answers."""
    for ticket in range(n):
        engine.submit(ticket, Prompt(text=str(ticket), read="text"))
    order = []
    while batch := engine.collect():
        assert all(answer.text == f"answer {ticket}" for ticket, answer in batch)
        order += [ticket for ticket, _ in batch]
    return order


def answer(prompt):
    """Identifies the prompt."""
    return Answer(text=f"answer {prompt.text}")


def test_prompts_are_answered_in_batches_oldest_or_newest_first():
    """A real engine may use either order."""
    forward = ScriptedEngine(answer, batch_size=2)
    assert run(forward, 5) == [0, 1, 2, 3, 4]
    assert forward.batches[:3] == [2, 2, 1]
    assert [prompt.text for prompt in forward.asked] == ["0", "1", "2", "3", "4"]
    assert run(ScriptedEngine(answer, batch_size=2, reverse=True), 5) == [4, 3, 2, 1, 0]


def test_closing_drops_what_is_queued():
    """Nothing is answered afterwards."""
    engine = ScriptedEngine(answer)
    engine.submit(0, Prompt(text="0", read="text"))
    engine.close()
    assert engine.collect() == []
