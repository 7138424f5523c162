"""Dice as a loss on logits, and Dice as a score from counts of pixels: on the device that the maps are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SMOOTH = 1e-5


def dice_loss(logits: torch.Tensor, target: torch.Tensor, ignore: int | None = None) -> torch.Tensor:
    """One minus the mean over classes, background included, of the Dice of softmax and target over the whole batch.

    MONAI's DiceLoss(softmax=True, batch=True) as kaiko-ai/eva (vision/losses/dice.py) uses it.

    Args:
        logits: (n, c, h, w). target: (n, h, w) whole numbers below c, or `ignore`.
        ignore: a label whose pixels get logits 0 and target 0: they still count, as background of even probability.
            Where background itself is ignored, they do not count: MONAI 1.6, told to ignore 0 as well, masks them.
    """
    import torch

    seen = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    seen, target = seen[:, None], target * seen
    p = (logits * seen).softmax(1)
    true = target[:, None] == torch.arange(p.shape[1], device=p.device)[:, None, None]
    if ignore == 0:
        p, true = p * seen, true & seen
    both, sizes = (p * true).sum((0, 2, 3)), p.sum((0, 2, 3)) + true.sum((0, 2, 3))
    return (1 - (2 * both + SMOOTH) / (sizes + SMOOTH)).mean()


def confusion(target: torch.Tensor, prediction: torch.Tensor, classes: int) -> np.ndarray:
    """(n, classes, classes) pixel counts of (true, predicted) in each image, of maps (n, h, w) of numbers < classes."""
    import torch

    cell = (target.long() * classes + prediction).flatten(1)
    cell += torch.arange(len(cell), device=cell.device)[:, None] * classes**2
    return torch.bincount(cell.flatten(), minlength=len(cell) * classes**2).view(-1, classes, classes).cpu().numpy()


def dice_cells(counts: np.ndarray, ignore: int | None = None, ignored_by: str = "prediction") -> np.ndarray:
    """(n, foreground classes) Dice of each class in each image, nan where the target lacks it: `eosin.metrics.dice` from
    counts.

    Args:
        counts: as `confusion` gives them. ignore, ignored_by: as `eosin.metrics.dice` takes them.
    """
    counts = counts.copy()
    if ignore is not None:
        counts[:, :, ignore] = 0
        if ignored_by == "target":
            counts[:, ignore] = 0
    true, predicted, both = counts.sum(2), counts.sum(1), np.einsum("icc->ic", counts)
    value = np.where(true > 0, 2 * both / np.maximum(true + predicted, 1), np.nan)
    return value[:, [c for c in range(1, counts.shape[1]) if c != ignore]]


def mean_dice(cells: np.ndarray) -> float:
    """Mean over the classes of an image, then over the images that have any; 0.0 when none has."""
    images = nanmean(cells, axis=1)
    images = images[np.isfinite(images)]
    return float(images.mean()) if len(images) else 0.0


def nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean without nan; nan (and no warning) where all are."""
    there = np.isfinite(values).sum(axis)
    return np.where(there > 0, np.nansum(values, axis) / np.maximum(there, 1), np.nan)
