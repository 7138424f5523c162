"""Sums over the joint batch: what a loss must share between processes, differentiably.

Every process computes the same joint loss from its own share of the batch, and gradients are averaged over processes
(as DistributedDataParallel does). The gradient of `total` is therefore summed over processes: averaged, it is the
gradient that one process would have on the joint batch. Shares are of equal size.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """The number of this process, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes share a batch; 1 when there is no process group."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def merged(found: dict[str, str]) -> dict[str, str]:
    """The dictionaries of all processes as one, the same everywhere."""
    import torch.distributed as dist

    if world() == 1:
        return found
    everyone: list[Any] = [None] * world()
    dist.all_gather_object(everyone, found)
    return {key: value for one in everyone for key, value in one.items()}


def total(x: torch.Tensor) -> torch.Tensor:
    """The sum of `x` over processes, of the same shape and the same everywhere."""
    return x if world() == 1 else _sum().apply(x)


@functools.cache
def _sum() -> type[torch.autograd.Function]:
    """The sum over processes as torch differentiates it. (torch.distributed.nn has the same, deprecated.)"""
    import torch
    import torch.distributed as dist

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            x = x.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(x)
            return x

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return Sum.apply(gradient)

    return Sum


def mean(x: torch.Tensor) -> torch.Tensor:
    """The mean of `x` over processes: of batch means, it is the mean of the joint batch."""
    return total(x) / world()


def batch_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """(n, d) to (n, d): (x - mean) / sqrt(variance + eps) a column, over the joint batch, variance without correction.

    `torch.nn.BatchNorm1d(d, eps, affine=False)` in training, in float32 at least, without running statistics.
    """
    import torch

    x = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = x - mean(x.mean(dim=0))
    return centred / (mean(centred.square().mean(dim=0)) + eps).sqrt()
