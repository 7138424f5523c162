"""torchvision's RandomResizedCrop of an image and its mask: boxes drawn by a numpy generator, pixels as torchvision v2.

torchvision/transforms/v2/_geometry.py (RandomResizedCrop), with its defaults, which are eva's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SCALE = (0.08, 1.0)  # share of the image's area
RATIO = (3 / 4, 4 / 3)  # width / height

Box = tuple[int, int, int, int]  # top, left, height, width


def random_box(height: int, width: int, rng: np.random.Generator) -> Box:
    """A box of random area and ratio inside the image; the largest central one of an allowed ratio if ten draws fail."""
    for _ in range(10):
        area = height * width * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def crop(values: np.ndarray, box: Box, size: int) -> torch.Tensor:
    """The box resized to (size, size): a mask (H, W) by the nearest pixel, an image (H, W, 3) bilinear with antialias."""
    import torch
    from torch.nn.functional import interpolate

    top, left, h, w = box
    part = torch.from_numpy(values[top : top + h, left : left + w].copy())
    if values.ndim == 2:
        return interpolate(part[None, None], (size, size), mode="nearest")[0, 0]
    image = part.movedim(-1, 0)[None]
    return interpolate(image, (size, size), mode="bilinear", antialias=True)[0].movedim(0, -1).contiguous()
