"""Where the tiles of a slide lie: tissue told from glass, a grid laid over it, the tiles kept that hold enough tissue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .coordinates import Coordinates
from .errors import DataError, UsageError

if TYPE_CHECKING:
    from .slides import Slide


@dataclass(frozen=True)
class Rule:
    """How tissue is told from glass, by the saturation (HSV, 0 to 255) of each pixel of a mask.

    Attributes:
        above: a pixel is tissue when its saturation is above this; None: Otsu's threshold of the slide.
        least: what Otsu's threshold may not fall below (a slide that shows only glass). dark: pixels whose brightest
            channel is below this are ink or the scanner's frame, not tissue.
        share: the share of tissue that a tile must reach.
        edge: a tile's edge in mask pixels, at least. smooth: the mask's pixels are means, so many that the edge is hardly
            longer; else they are those of the level as it is.
        whole: a tile's level-0 edge is cut off to a whole number, not rounded.
    """

    above: int | None
    share: float
    edge: int
    least: int = 0
    dark: int = 0
    smooth: bool = False
    whole: bool = False


RULES = {
    # Otsu 1979. A share of .2 is that of the sampler which G2L cites (CocoSungMin/Pathology-WSI-Tile-Sampling-System).
    "otsu": Rule(above=None, share=0.2, edge=16, least=12, dark=40, smooth=True),
    # kaiko-eva 0.4.5, ForegroundGridSampler: at least 9 mask pixels a tile, the level as it is
    "eva": Rule(above=20, share=0.35, edge=3, whole=True),
}


@dataclass(frozen=True)
class Tiling:
    """The choices that decide where tiles lie; all of them are kept with the coordinates.

    Attributes:
        mpp: um per pixel of the tiles. size: their edge in such pixels. stride: from one to the next (0: size).
        rule: otsu or eva. share: least share of tissue (below 0: the rule's own).
        limit: at most so many tiles a slide (0: all), the first of a random order by `seed`; a smaller limit is a prefix
            of a larger one. seed below 0: the order of the grid.
    """

    mpp: float = 0.5
    size: int = 256
    stride: int = 0
    rule: str = "otsu"
    share: float = -1.0
    limit: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UsageError(f"There is no foreground rule {self.rule!r}. Rules: {', '.join(RULES)}.")
        wrong = [n for n in ("stride", "limit") if getattr(self, n) < 0] + ["size"] * (self.size < 1)
        if wrong or not 0 < self.mpp < math.inf or not self.share <= 1:
            raise UsageError(f"A tiling cannot be {self}. mpp and size are above 0, share is 0 to 1, the others from 0.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Tiling:
        """From a card's options; UsageError for an unknown one."""
        kinds = {f.name: type(f.default) for f in fields(cls)}
        wrong = [k for k in options if k not in kinds]
        if wrong:
            raise UsageError(f"Tiling has no option {', '.join(wrong)}. Its options: {', '.join(kinds)}.")
        return cls(**{k: kinds[k](v) for k, v in options.items() if v is not None})

    def edge(self, mpp: float) -> int:
        """A tile's edge in level-0 pixels of a slide of that mpp."""
        exact = self.mpp / mpp * self.size
        return max(1, int(exact) if RULES[self.rule].whole else round(exact))

    def step(self, mpp: float) -> int:
        """From one tile to the next, in level-0 pixels."""
        return max(1, round(self.mpp / mpp * self.stride)) if self.stride else self.edge(mpp)


def cut(slide: Slide, tiling: Tiling) -> Coordinates:
    """The tiles of one slide, by column and then row of the grid, or in random order where they are limited.

    Incomplete tiles at the right and lower border are left out. The slide is read in pieces of bounded size.

    Raises:
        DataError: the slide's mpp is unknown, it is damaged, or it is too coarse for a mask.
    """
    rule, edge, step = RULES[tiling.rule], tiling.edge(slide.mpp), tiling.step(slide.mpp)
    share = rule.share if tiling.share < 0 else tiling.share
    level, reduce = mask_level(slide, tiling)
    scale = tuple(n / m * reduce for n, m in zip((slide.width, slide.height), slide.dimensions[level], strict=True))
    pieces: Iterable[tuple[int, int, np.ndarray]] = (
        (left, top, _inked(pixels, rule.dark)) for left, top, pixels in slide.blocks(level, reduce)
    )
    above = rule.above
    if above is None:
        pieces = list(pieces)  # small: a tile is a few mask pixels
        above = max(rule.least, otsu(sum(np.bincount(p.ravel(), minlength=256) for *_, p in pieces)))
    xs, ys = np.arange(0, slide.width - edge + 1, step), np.arange(0, slide.height - edge + 1, step)
    shares = _shares(((x, y, p > above) for x, y, p in pieces), xs, ys, edge, scale)
    xy = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
    kept = _order(len(xy), tiling)
    kept = kept[shares.ravel()[kept] >= share][: tiling.limit or None]
    mask = {"level": level, "reduce": reduce, "above": int(above), "share": share, "dark": rule.dark}
    about = {"tiling": {f.name: getattr(tiling, f.name) for f in fields(tiling)}, "mask": mask, "step": step}
    mpp = max(tiling.mpp, slide.mpp) if edge < tiling.size else slide.mpp * edge / tiling.size
    return Coordinates(xy[kept], edge, tiling.size, mpp, shares.ravel()[kept], about)


def mask_level(slide: Slide, tiling: Tiling) -> tuple[int, int]:
    """The level whose pixels make the mask, and how many of them (squared) make one mask pixel.

    The coarsest level at which a tile has the rule's edge (eva: int(ratio * size) ** 2 >= 9).
    """
    rule = RULES[tiling.rule]
    edges = [tiling.mpp / (slide.mpp * d) * tiling.size for d in slide.downsamples]
    fine = [i for i, e in enumerate(edges) if int(e) >= rule.edge]
    if not fine and not rule.smooth:
        raise DataError(
            f"{slide.path.name}: a tile of {tiling.size} px at {tiling.mpp:g} um is {edges[0]:.3g} pixels of the slide "
            f"({slide.mpp:g} um each), too few to tell tissue. Ask for larger tiles, or correct --slide-mpp."
        )
    level = max(fine, default=0)
    return level, max(1, int(edges[level] / rule.edge)) if rule.smooth else 1


def saturation(pixels: np.ndarray) -> np.ndarray:
    """HSV saturation (h, w) uint8 of RGB pixels (h, w, 3): 255 (max - min) / max in the fixed point of OpenCV's 8-bit HSV."""
    high, low = pixels.max(axis=2), pixels.min(axis=2)
    values = np.arange(256)
    table = np.rint((255 << 12) / np.maximum(values, 1)).astype(np.int64) * (values > 0)
    grid = ((values[:, None] * table[None, :] + (1 << 11)) >> 12).clip(0, 255).astype(np.uint8)  # [high - low, high]
    return grid[high - low, high]


def otsu(counts: np.ndarray) -> int:
    """Otsu's threshold of a histogram (256,): values above it are one class, the others the other (Otsu 1979, eq. 18)."""
    counts = np.asarray(counts, float)
    below, moment = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below - moment * below[-1]) ** 2 / (below * (below[-1] - below))
    return int(np.nan_to_num(between, posinf=0.0).argmax())


def _inked(pixels: np.ndarray, dark: int) -> np.ndarray:
    found = saturation(pixels)
    found[pixels.max(axis=2) < dark] = 0
    return found


def _shares(
    pieces: Iterable[tuple[int, int, np.ndarray]], xs: np.ndarray, ys: np.ndarray, edge: int, scale: tuple[float, ...]
) -> np.ndarray:
    """(columns, rows): the share of tissue in each tile of the grid, from pieces of the mask (left, top, bool)."""
    counts = np.zeros((len(xs), len(ys)))
    left, top = (xs / scale[0]).astype(int), (ys / scale[1]).astype(int)
    width, height = (max(1, int(edge / s)) for s in scale)
    for x, y, mask in pieces:
        first, last = np.clip(left - x, 0, mask.shape[1]), np.clip(left + width - x, 0, mask.shape[1])
        for j in np.flatnonzero((top < y + len(mask)) & (top + height > y)):
            rows = mask[max(0, top[j] - y) : top[j] + height - y]
            total = np.concatenate([[0], np.cumsum(rows.sum(axis=0))])
            counts[:, j] += total[last] - total[first]
    return counts / (width * height)


def _order(n: int, tiling: Tiling) -> np.ndarray:
    if not tiling.limit or tiling.seed < 0:
        return np.arange(n)
    return np.random.default_rng(tiling.seed).permutation(n)


def windows(width: int, height: int, size: int, stride: int = 0) -> Iterator[tuple[int, int]]:
    """x, y of each whole box of `size` pixels in an image, by column and then row; for datasets that cut images."""
    for x in range(0, width - size + 1, stride or size):
        for y in range(0, height - size + 1, stride or size):
            yield x, y
