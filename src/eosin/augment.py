"""Augmentations of a batch of tiles (n, 3, height, width) in 0..1, on its device, each tile with parameters of its own.

All random numbers come from one torch.Generator on the CPU through `uniform`, which draws for the joint batch and keeps
this process's rows: W processes with the same generator see what one would. Tiles change as by torchvision's
functionals of these names, applied to floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import UsageError
from .joint import rank, world

if TYPE_CHECKING:
    import torch

TRIES = 10  # boxes that resized_crop draws before it falls back to the middle, as torchvision does


def uniform(generator: torch.Generator, n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """(n, *shape) float32 on the CPU, uniform in [low, high): this process's rows of a draw for all processes."""
    import torch

    drawn = torch.rand(world() * n, *shape, generator=generator)
    return low + (high - low) * drawn[rank() * n : (rank() + 1) * n]


def integers(generator: torch.Generator, n: int, below: int | torch.Tensor) -> torch.Tensor:
    """(n,) whole numbers 0 .. below - 1, on the CPU; `below` is one number or one a tile."""
    import torch

    below = torch.as_tensor(below)
    return (uniform(generator, n) * below).long().minimum(below - 1)  # u * below may round up to below


def random_crop(x: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """(n, 3, size, size): a square of every tile, all places alike.

    Raises:
        UsageError: the tiles are smaller than the crop.
    """
    import torch

    n, _, height, width = x.shape
    if min(height, width) < size:
        raise UsageError(f"A crop of {size} px does not fit in tiles of {width}x{height} px. Cut larger tiles.")
    top = integers(generator, n, height - size + 1).to(x.device)
    left = integers(generator, n, width - size + 1).to(x.device)
    steps = torch.arange(size, device=x.device)
    tiles = torch.arange(n, device=x.device)[:, None, None]
    cut = x[tiles, :, (top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None, :]]
    return cut.permute(0, 3, 1, 2).contiguous()


def resized_crop(
    x: torch.Tensor, size: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """(n, 3, size, size): a rectangle of every tile, resized (see `resize`).

    Args:
        scale: the rectangle's share of the tile's area, from and to.
        ratio: its width / height, from and to; the logarithm is uniform.
    """
    return resize(x, crop_boxes(len(x), x.shape[-2], x.shape[-1], scale, ratio, generator), size)


def crop_boxes(
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """(n, 4) whole numbers on the CPU: top, left, height, width, drawn as torchvision's RandomResizedCrop does.

    The first of ten rectangles that fits in the tile, else the largest in its middle that has an allowed ratio.
    """
    import torch

    area = height * width * uniform(generator, n, TRIES, low=scale[0], high=scale[1])
    shape = uniform(generator, n, TRIES, low=math.log(ratio[0]), high=math.log(ratio[1])).exp()
    w, h = (area * shape).sqrt().round().long(), (area / shape).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    wide, tall = width, height
    if width < height * ratio[0]:
        tall = round(width / ratio[0])
    elif width > height * ratio[1]:
        wide = round(height * ratio[1])
    some = fits.any(dim=1)
    w = torch.where(some, w.gather(1, first)[:, 0], wide)
    h = torch.where(some, h.gather(1, first)[:, 0], tall)
    top, left = integers(generator, n, height - h + 1), integers(generator, n, width - w + 1)
    top, left = torch.where(some, top, (height - h) // 2), torch.where(some, left, (width - w) // 2)
    return torch.stack([top, left, h, w], dim=1)


def resize(x: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """(n, 3, size, size): the rectangle of each tile by bicubic interpolation with antialiasing, clamped to 0..1.

    Args:
        boxes: (n, 4) whole numbers: top, left, height, width in pixels.
    """
    boxes = boxes.to(x.device)
    rows = _bicubic(boxes[:, 0], boxes[:, 2], x.shape[-2], size).to(x.dtype)
    columns = _bicubic(boxes[:, 1], boxes[:, 3], x.shape[-1], size).to(x.dtype)
    return (rows[:, None] @ x @ columns[:, None].transpose(-1, -2)).clamp(0, 1)


def _bicubic(start: torch.Tensor, length: torch.Tensor, side: int, size: int) -> torch.Tensor:
    """(n, size, side) weights that resize a piece (start, length) of a line of `side` pixels to `size` pixels.

    Keys' cubic with a = -0.5, widened where pixels become fewer, no pixel from outside the piece.
    """
    import torch

    step = (length.float() / size)[:, None, None]
    wide = step.clamp(min=1)
    place = torch.arange(side, device=start.device)[None, None, :] - start[:, None, None]
    centre = step * (torch.arange(size, device=start.device)[None, :, None] + 0.5)
    first = (centre - 2 * wide + 0.5).long().clamp(min=0)
    last = (centre + 2 * wide + 0.5).long().minimum(length[:, None, None])
    t = ((place - centre + 0.5) / wide).abs()
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    weight = torch.where(t < 1, near, torch.where(t < 2, far, 0.0)) * ((place >= first) & (place < last))
    return weight / weight.sum(dim=-1, keepdim=True)


def flip(x: torch.Tensor, generator: torch.Generator, p: float = 0.5, axis: int = -1) -> torch.Tensor:
    """Mirrors each tile with probability `p`: left and right (axis -1) or up and down (axis -2)."""
    return _some(x, uniform(generator, len(x)) < p, lambda part: part.flip(axis))


def grey(x: torch.Tensor, generator: torch.Generator, p: float) -> torch.Tensor:
    """Takes the colour from each tile with probability `p`."""
    return _some(x, uniform(generator, len(x)) < p, lambda part: luma(part).expand_as(part))


def solarise(x: torch.Tensor, generator: torch.Generator, p: float, threshold: float = 128 / 255) -> torch.Tensor:
    """Turns values of `threshold` and more into one minus themselves, in each tile with probability `p`."""
    return _some(x, uniform(generator, len(x)) < p, lambda part: part.where(part < threshold, 1 - part))


def blur(
    x: torch.Tensor, generator: torch.Generator, p: float, kernel: int, sigma: tuple[float, float]
) -> torch.Tensor:
    """Blurs each tile with probability `p`, its sigma (in pixels) uniform from and to; see `gaussian`."""
    chosen, sigmas = uniform(generator, len(x)) < p, uniform(generator, len(x), low=sigma[0], high=sigma[1])
    return _some(x, chosen, lambda part, sigma: gaussian(part, kernel, sigma), sigmas)


def jitter(
    x: torch.Tensor,
    generator: torch.Generator,
    p: float,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> torch.Tensor:
    """Changes the colours of each tile with probability `p`, as torchvision's ColorJitter does.

    Four changes in an order of the tile's own; factors uniform in 1 - b .. 1 + b (not below 0), the turn of the hue
    uniform in -h .. h of a circle.
    """
    n = len(x)
    chosen = uniform(generator, n) < p
    order = uniform(generator, n, len(CHANGES)).argsort(dim=1)
    ranges = [(max(0.0, 1 - b), 1 + b) for b in (brightness, contrast, saturation)] + [(-hue, hue)]
    factors = [uniform(generator, n, low=low, high=high) for low, high in ranges]
    for place in range(len(CHANGES)):
        for i, change in enumerate(CHANGES):
            x = _some(x, chosen & (order[:, place] == i), change, factors[i])
    return x


def luma(x: torch.Tensor) -> torch.Tensor:
    """(n, 1, h, w): the grey value, ITU-R 601."""
    return (x * x.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)


def change_brightness(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards black (factor (n,) below 1) or away from it."""
    return (_each(factor, x) * x).clamp(0, 1)


def change_contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards the mean grey value of the tile, or away from it."""
    f = _each(factor, x)
    return (f * x + (1 - f) * luma(x).mean(dim=(1, 2, 3), keepdim=True)).clamp(0, 1)


def change_saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Towards the grey value of the pixel, or away from it."""
    f = _each(factor, x)
    return (f * x + (1 - f) * luma(x)).clamp(0, 1)


def change_hue(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """The hue turned by `turn` (n,) of a circle, saturation and value of HSV kept."""
    import torch

    r, g, b = x.unbind(dim=1)
    value = x.amax(dim=1)
    chroma = value - x.amin(dim=1)
    safe = torch.where(chroma > 0, chroma, 1)
    of_green = torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    sixths = torch.where(value == r, (g - b) / safe, of_green) + 6 * _each(turn, x)[:, 0]
    turned = []
    for corner in (5, 3, 1):
        k = (corner + sixths) % 6
        turned.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(turned, dim=1).clamp(0, 1)


CHANGES = (change_brightness, change_contrast, change_saturation, change_hue)


def gaussian(x: torch.Tensor, kernel: int, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur with a kernel of `kernel` (odd) pixels a side and a sigma (n,) in pixels each, edges mirrored."""
    import torch

    half = kernel // 2
    place = torch.arange(kernel, device=x.device) - half
    weight = (-0.5 * (place / sigma.to(x.device)[:, None]).square()).exp().to(x.dtype)
    weight = (weight / weight.sum(dim=1, keepdim=True))[:, :, None, None, None]
    height, width = x.shape[-2:]
    x = torch.nn.functional.pad(x, [half] * 4, mode="reflect")
    x = torch.stack([weight[:, j] * x[..., j : j + height, :] for j in range(kernel)]).sum(dim=0)
    return torch.stack([weight[:, j] * x[..., j : j + width] for j in range(kernel)]).sum(dim=0)


def _each(factor: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return factor.to(x)[:, None, None, None]


def _some(
    x: torch.Tensor, chosen: torch.Tensor, change: Callable[..., torch.Tensor], *each: torch.Tensor
) -> torch.Tensor:
    """`x` with the chosen tiles replaced by change(those tiles, their parameters). Draws lie on the CPU: no device is
    waited for."""
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return x
    there = rows.to(x.device)
    return x.index_copy(0, there, change(x[there], *(values[rows] for values in each)))
