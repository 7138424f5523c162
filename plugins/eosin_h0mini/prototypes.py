"""Prototypes of a frozen teacher: spherical k-means on its tokens, in place of the head that nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosin import joint
from eosin.errors import UsageError

if TYPE_CHECKING:
    import torch


def gathered(x: torch.Tensor) -> torch.Tensor:
    """(world * n, …) of every process's (n, …), in the order of the joint batch, the same everywhere."""
    out = x.new_zeros(joint.world(), *x.shape)
    out[joint.rank()] = x
    return joint.total(out).flatten(0, 1)


def spherical_kmeans(x: torch.Tensor, k: int, rounds: int, seed: int = 0, chunk: int = 4096) -> torch.Tensor:
    """(k, d) unit vectors: those to which the rows of `x` (n, d), taken as directions, are near in cosine.

    Starts from k rows drawn without replacement; a prototype that nobody chose moves to the row that is worst served
    (Dhillon & Modha 2001, with reseeding). Deterministic on a CPU.

    Raises:
        UsageError: fewer rows than prototypes.
    """
    import torch
    from torch.nn import functional as F

    if len(x) < k:
        raise UsageError(
            f"{k} prototypes cannot be fitted to {len(x)} tokens of the teacher. Raise fit_tiles or fit_patches, or lower "
            "class_prototypes or patch_prototypes."
        )
    x = F.normalize(x.float(), dim=1)
    start = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:k]
    centres = x[start.to(x.device)]
    for _ in range(rounds):
        near, chosen = (torch.cat(both) for both in zip(*[(part @ centres.T).max(dim=1) for part in x.split(chunk)]))
        sums = torch.zeros_like(centres).index_add_(0, chosen, x)
        empty = (torch.bincount(chosen, minlength=k) == 0).nonzero().flatten()
        sums[empty] = x[near.argsort()[: len(empty)]]
        centres = F.normalize(sums, dim=1)
    return centres
