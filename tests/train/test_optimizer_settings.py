"""The recipe's settings replace those restored with the optimizer and the schedule from a checkpoint."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rankllm_train.training.optimizer_settings import settings_of, use_settings  # noqa: E402


def made(rate, *, decay, betas, empty=False):
    """AdamW with two parameter groups, the second optionally empty, and a schedule that halves the rate."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [
        {"params": weights[:1], "weight_decay": decay},
        {"params": [] if empty else weights[1:], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, eps=1e-6)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


def loaded(source, target):
    """The target at the third step, after loading the source's state."""
    optimizer, schedule = source
    for _ in range(3):
        optimizer.step()
        schedule.step()
    target[0].load_state_dict(optimizer.state_dict())
    target[1].load_state_dict(schedule.state_dict())
    return target


@pytest.mark.parametrize("empty", [False, True])
def test_the_recipes_settings_are_in_force(empty):
    """Learning rate x factor at the current step and at later ones, weight decay per group, and betas are replaced;
    the step count is kept.
    """
    old, new = (
        made(r, decay=d, betas=b, empty=empty) for r, d, b in ((1.0, 0.1, (0.9, 0.999)), (3.0, 0.7, (0.5, 0.6)))
    )
    settings = settings_of(new[0])
    optimizer, schedule = loaded(old, new)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1, "loading replaces what was new"
    use_settings(optimizer, schedule, settings=settings, learning_rate=3.0)
    assert [group["lr"] for group in optimizer.param_groups] == [3.0 / 8] * 2 == schedule.get_last_lr()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.7, 0.0]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.5, 0.6)] * 2
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [3.0 / 16] * 2
    assert schedule.last_epoch == 4


def test_unchanged_settings_change_no_bit_and_no_object():
    """The next checkpoint is byte-identical to that of an uninterrupted run."""
    old, new = (made(1e-3, decay=0.1, betas=(0.9, 0.999)) for _ in range(2))
    settings = settings_of(new[0])
    optimizer, schedule = loaded(old, new)
    before, pairs = (
        [dict(group) for group in optimizer.param_groups],
        [group["betas"] for group in optimizer.param_groups],
    )
    use_settings(optimizer, schedule, settings=settings, learning_rate=1e-3)
    assert [dict(group) for group in optimizer.param_groups] == before
    assert all(group["betas"] is pair for group, pair in zip(optimizer.param_groups, pairs, strict=True))


def test_groups_that_deepspeed_drops_are_left_out():
    """Empty groups are ignored at any position."""

    class Wrapped:
        """The remaining groups, as ZeRO presents them."""

        def __init__(self, optimizer):
            self.param_groups = [group for group in optimizer.param_groups if group["params"]]

    optimizer, _ = made(1.0, decay=0.3, betas=(0.9, 0.999), empty=True)
    settings, wrapped = settings_of(optimizer), Wrapped(optimizer)
    wrapped.param_groups[0]["weight_decay"] = 0.9
    kept = torch.optim.AdamW([{"params": wrapped.param_groups[0]["params"]}], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(kept, lambda step: 1.0)
    use_settings(wrapped, schedule, settings=settings, learning_rate=2.0)
    assert [(group["weight_decay"], group["lr"]) for group in wrapped.param_groups] == [(0.3, 2.0)]
