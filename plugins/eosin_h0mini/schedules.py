"""Schedules as closed forms of the step, as DINOv2 has them (facebookresearch/dinov2, dinov2/utils/utils.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def ramp(step: int, length: int, start: float, end: float) -> float:
    """`start` at step 0, `end` at step length - 1 and ever after, a straight line between."""
    return end if step >= length else start + (end - start) * step / max(1, length - 1)


def cosine(step: int, steps: int, start: float, end: float, warmup: int = 0) -> float:
    """From 0 to `start` in a straight line over `warmup` steps, then half a cosine, which would reach `end` at `steps`."""
    if step < warmup:
        return ramp(step, warmup, 0.0, start)
    if step >= steps:
        return end
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def in_steps(options: Mapping[str, Any], epochs: float) -> int:
    """How many steps so many epochs are; an epoch is steps / epochs."""
    return round(options["steps"] * epochs / options["epochs"])


def values(options: Mapping[str, Any], step: int) -> dict[str, float]:
    """Learning rate, weight decay, clip and the average's memory at a step; the rate grows with the root of the batch."""
    o, steps = options, options["steps"]
    lr = o["lr"] * math.sqrt(o["batch_size"] / 1024)
    found = {
        "lr": cosine(step, steps, lr, o["min_lr"], in_steps(o, o["warmup_epochs"])),
        "weight_decay": cosine(step, steps, o["weight_decay"], o["weight_decay_end"]),
        "clip": o["clip"],
    }
    return found if o["released"] == "student" else {**found, "ema": memory(o, step)}


def memory(options: Mapping[str, Any], step: int) -> float:
    """What a moving average keeps of itself at a step."""
    return cosine(step, options["steps"], options["ema"], options["ema_end"])


def teacher_temperature(options: Mapping[str, Any], step: int) -> float:
    return ramp(
        step,
        in_steps(options, options["temperature_epochs"]),
        options["teacher_temperature"],
        options["teacher_temperature_end"],
    )
