"""Training a decoder as eva does: AdamW on the Dice loss, validation after every epoch, patience, the best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .dice import confusion, dice_cells, dice_loss, mean_dice
from .samples import Crops, Squares

if TYPE_CHECKING:
    from torch import nn

ERAS = ("2024-12", "0.4")


@dataclass(frozen=True)
class Recipe:
    """How a decoder is trained and judged.

    Attributes:
        era: of eva, which chose the learning rate's schedule.
        lr, weight_decay: of AdamW. batch_size, max_steps, patience: in images, optimiser steps, epochs.
        num_classes: that the decoder tells apart, background included.
        ignore: a label that the loss does not see and Dice does not count; at or above num_classes, or one of them.
        ignored_by: which map says where Dice ignores pixels, as `eosin.metrics.dice` takes it.
    """

    era: str
    lr: float
    weight_decay: float
    batch_size: int
    max_steps: int
    patience: int
    num_classes: int
    ignore: int | None = None
    ignored_by: str = "prediction"

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch: eva steps its schedule once an epoch, not once a step.

        2024-12: PolynomialLR(total_iters=max_steps, power=0.9), which therefore hardly decays. 0.4: no schedule named,
        so ConstantLR with torch's defaults, a third of the rate in the first five epochs.
        """
        if self.era == "0.4":
            return self.lr / 3 if epoch < 5 else self.lr
        return self.lr * max(0.0, 1 - epoch / self.max_steps) ** 0.9


@dataclass(frozen=True)
class Checkpoint:
    """The decoder's state after the epoch (from 0) of highest Dice, and how many epochs were trained."""

    state: dict[str, Any]
    epoch: int
    dice: float
    epochs: int


def fit(
    decoder: nn.Module, train: Squares | Crops, val: Squares, recipe: Recipe, rng: np.random.Generator
) -> Checkpoint:
    """Train the decoder in place; the checkpoint of the best epoch, the first of equal ones.

    Epochs are whole: steps after the last one that max_steps leaves room for are never validated, so they are not
    taken. An epoch with more steps than max_steps is cut short and validated.

    Args:
        rng: shuffles the images, and draws the crops.
    """
    import torch

    optimiser = torch.optim.AdamW(decoder.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    epochs = max(1, recipe.max_steps // -(-len(train) // recipe.batch_size))
    best = Checkpoint({}, -1, -1.0, 0)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = recipe.rate(epoch)
        decoder.train()
        for features, image, mask in islice(train.batches(recipe.batch_size, rng), recipe.max_steps):
            loss = dice_loss(decoder(features, image), mask, recipe.ignore)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        dice = mean_dice(judge(decoder, val, recipe))
        if dice > best.dice:
            best = Checkpoint({k: v.clone() for k, v in decoder.state_dict().items()}, epoch, dice, 0)
        elif epoch - best.epoch >= recipe.patience:
            break
    return Checkpoint(best.state, best.epoch, best.dice, epoch + 1)


def judge(decoder: nn.Module, samples: Squares, recipe: Recipe) -> np.ndarray:
    """(n, foreground classes) Dice of each class in each image, nan where the image lacks it."""
    import torch

    K, ignore = recipe.num_classes, recipe.ignore
    spot = None if ignore is None else min(ignore, K)  # a label that the decoder does not know comes after its own
    decoder.eval()
    counts = []
    with torch.inference_mode():
        for features, image, mask in samples.batches(recipe.batch_size):
            if ignore is not None:
                mask = mask.masked_fill(mask == ignore, min(ignore, K))
            counts.append(confusion(mask, decoder(features, image).argmax(1), K + (spot == K)))
    return dice_cells(np.concatenate(counts), spot, recipe.ignored_by)
