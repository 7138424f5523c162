"""What the models see of a tile: DINOv2's two global views and small ones, and which patches are hidden from the student."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eosin import augment

if TYPE_CHECKING:
    import torch

RATIO = (3 / 4, 4 / 3)  # width / height of a crop
BLOCKS = 20  # rectangles that a mask of blocks tries
LEAST = 4.0  # patches of the smallest of them
ASPECT = 0.3  # height / width of the flattest


def views(tiles: torch.Tensor, o: Mapping[str, Any], generator: torch.Generator) -> list[torch.Tensor]:
    """Two batches (n, 3, global_size, global_size) and `local_crops` smaller ones, by the options `o`."""
    size, scale = o["global_size"], (o["global_scale"], 1.0)
    first = _view(tiles, size, scale, o["blur_first"], 0.0, o, generator)
    second = _view(tiles, size, scale, o["blur_second"], o["solarise"], o, generator)
    scale = (o["local_low"], o["local_high"])
    small = [_view(tiles, o["local_size"], scale, o["blur_local"], 0.0, o, generator) for _ in range(o["local_crops"])]
    return [first, second, *small]


def _view(tiles, size, scale, blur, solarise, o, generator) -> torch.Tensor:
    x = augment.resized_crop(tiles, size, scale, RATIO, generator)
    x = augment.flip(x, generator, o["flip"])
    x = augment.jitter(x, generator, o["jitter"], o["brightness"], o["contrast"], o["saturation"], o["hue"])
    x = augment.grey(x, generator, o["grey"])
    x = augment.blur(x, generator, blur, o["blur_kernel"], (o["sigma_low"], o["sigma_high"]))
    return augment.solarise(x, generator, solarise) if solarise else x


def masks(n: int, grid: tuple[int, int], o: Mapping[str, Any], generator: torch.Generator) -> torch.Tensor:
    """(n, h, w) booleans on the CPU, true where a patch is hidden: of no patch, or of a share mask_low to mask_high.

    Blocks are rectangles laid until the share is reached and never exceeded, as BEiT and iBOT do, each of
    at least four patches where they fit; the random shape reaches the share exactly.
    """
    import torch

    height, width = grid
    some = augment.uniform(generator, n) < o["mask_probability"]
    share = augment.uniform(generator, n, low=o["mask_low"], high=o["mask_high"])
    wanted = torch.where(some, (share * height * width).long(), 0)
    if o["mask_shape"] == "random":
        order = augment.uniform(generator, n, height * width).argsort(dim=1).argsort(dim=1)
        return (order < wanted[:, None]).reshape(n, height, width)
    hidden = torch.zeros(n, height, width, dtype=torch.bool)
    for drawn in augment.uniform(generator, n, BLOCKS, 4).unbind(dim=1):
        left = wanted - hidden.sum(dim=(1, 2))
        block = _rectangles(drawn, left, height, width)
        fits = (block & ~hidden).sum(dim=(1, 2)) <= left
        hidden |= block & fits[:, None, None]
    return hidden


def _rectangles(drawn: torch.Tensor, left: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(n, height, width) booleans: a rectangle each, of LEAST to `left` (n,) patches, from four numbers in 0..1."""
    import torch

    area = LEAST + drawn[:, 0] * (left - LEAST).clamp(min=0)
    aspect = (math.log(ASPECT) * (1 - 2 * drawn[:, 1])).exp()
    h = (area * aspect).sqrt().round().clamp(1, height)
    w = (area / aspect).sqrt().round().clamp(1, width)
    top, start = (drawn[:, 2] * (height - h + 1)).floor(), (drawn[:, 3] * (width - w + 1)).floor()
    y, x = torch.arange(height), torch.arange(width)
    rows = (y >= top[:, None]) & (y < (top + h)[:, None])
    columns = (x >= start[:, None]) & (x < (start + w)[:, None])
    return rows[:, :, None] & columns[:, None, :]
