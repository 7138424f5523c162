"""The processes of one training run, as `torchrun` starts them: their beginning, what they tell each other, their end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import ModelError
from .joint import world

if TYPE_CHECKING:
    import torch


def start(device: str) -> str:
    """Join the other processes where torchrun started several; the device of this one.

    Raises:
        ModelError: they cannot reach each other.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        return device
    import torch
    import torch.distributed as dist

    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"The {os.environ['WORLD_SIZE']} processes cannot reach each other: {error}. Start them with torchrun, and let "
                "its --rdzv-endpoint name a free port of the first machine."
            ) from error
    return device


def end() -> None:
    """Leave the others."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Each gradient becomes its mean over processes: one message for all of one type."""
    if world() == 1:
        return
    import torch
    import torch.distributed as dist

    kinds: dict[torch.dtype, list[torch.Tensor]] = {}
    for p in parameters:
        if p.requires_grad:
            if p.grad is None:  # the same on every process, or they would wait for each other
                p.grad = torch.zeros_like(p)
            kinds.setdefault(p.grad.dtype, []).append(p.grad)
    for gradients in kinds.values():
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for g, mean in zip(gradients, (flat / world()).split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))


def any_process(told: bool) -> bool:
    """Whether it is true of any process."""
    if world() == 1:
        return told
    import torch
    import torch.distributed as dist

    flag = torch.tensor(float(told), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(flag)
    return bool(flag)


def barrier() -> None:
    """Wait until every process is here."""
    if world() > 1:
        import torch.distributed as dist

        dist.barrier()
