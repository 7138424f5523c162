"""Where the tiles of a slide lie: tissue told from glass, a grid laid over it, the tiles kept that hold enough tissue."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
        least, most: between which Otsu's threshold is kept: a slide of glass alone has two classes of noise, a piece that
            is all tissue has pale and dark tissue. dark: pixels whose brightest channel is below this are ink or the
            scanner's frame, not tissue.
        share: the share of tissue that a tile must reach.
        edge: a tile's edge in mask pixels, at least. smooth: the mask's pixels are means, so many that the edge is hardly
            longer; else they are those of the level as it is.
        whole: a tile's level-0 edge is cut off to a whole number, not rounded.
    """

    above: int | None
    share: float
    edge: int
    least: int = 0
    most: int = 255
    dark: int = 0
    smooth: bool = False
    whole: bool = False


RULES = {
    # Otsu 1979. A share of .2 is that of the sampler which G2L cites (CocoSungMin/Pathology-WSI-Tile-Sampling-System).
    "otsu": Rule(above=None, share=0.2, edge=16, least=12, most=40, dark=40, smooth=True),
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
            raise UsageError(
                f"A tiling cannot be {self}. mpp and size are above 0, share is 0 to 1, the others from 0."
            )

    @classmethod
    def of(cls, options: Mapping[str, Any], others: tuple[str, ...] = ()) -> Tiling:
        """From a card's options; UsageError for an unknown one, which names also the `others` that the caller knows."""
        kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        wrong = [k for k in options if k not in kinds]
        if wrong:
            raise UsageError(f"Tiling has no option {', '.join(wrong)}. Its options: {', '.join([*kinds, *others])}.")
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
        (left, top, inked(pixels, rule.dark)) for left, top, pixels in slide.blocks(level, reduce)
    )
    above = rule.above
    if above is None:
        pieces = list(pieces)  # small: a tile is a few mask pixels
        counts = np.sum([np.bincount(p.ravel(), minlength=256) for *_, p in pieces], axis=0)
        above = min(max(rule.least, otsu(counts)), rule.most)
    xs, ys = np.arange(0, slide.width - edge + 1, step), np.arange(0, slide.height - edge + 1, step)
    shares = _shares(((x, y, p > above) for x, y, p in pieces), xs, ys, edge, scale)
    xy = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
    kept = _order(len(xy), tiling)
    kept = kept[shares.ravel()[kept] >= share][: tiling.limit or None]
    mask = {"level": level, "reduce": reduce, "above": int(above), "share": share, "dark": rule.dark}
    about = {"tiling": {f.name: getattr(tiling, f.name) for f in fields(tiling)}, "mask": mask, "step": step}
    return Coordinates(xy[kept], edge, tiling.size, _scale(slide, edge, tiling.size), shares.ravel()[kept], about)


def fit(slide: Slide, found: Coordinates, tiling: Tiling, rescale: bool = False) -> Coordinates:
    """Positions from a file, checked against the slide and completed.

    Args:
        rescale: tiles get the physical size of `tiling`, about the same centres: a file of another tool may hold 256
            level-0 pixels a tile for every slide, which are twice as wide on a 20x slide.

    Raises:
        DataError: the file belongs to another slide, or tiles leave the slide.
    """
    name, told = slide.path.name, found.about.get("fingerprint")
    if told and told != slide.fingerprint:
        raise DataError(
            f"the coordinates of {name} were made of another file ({told}, this is {slide.fingerprint}). Tile it again."
        )
    level = int(found.about.get("patch_level") or 0)
    if level >= len(slide.downsamples):
        raise DataError(f"the coordinates of {name} name level {level}; it has {len(slide.downsamples)}.")
    edge = found.edge or max(1, round(found.px * slide.downsamples[level]))
    if (found.xy < 0).any() or (found.xy + edge > (slide.width, slide.height)).any():
        raise DataError(
            f"{name}: tiles of {edge} level-0 pixels leave the slide of {slide.width}x{slide.height}. Do the coordinates belong to it?"
        )
    xy, px = found.xy, found.px
    if rescale:
        xy = xy + (edge - tiling.edge(slide.mpp)) // 2
        edge, px = tiling.edge(slide.mpp), tiling.size
    rows = _order(len(xy), tiling)
    whole = np.all((xy >= 0) & (xy + edge <= (slide.width, slide.height)), axis=1)
    rows = rows[np.asarray(whole)[rows]][: tiling.limit or None]
    share = found.share[rows] if len(found.share) == len(xy) else found.share
    return Coordinates(xy[rows], edge, px, _scale(slide, edge, px), share, {"step": edge, **found.about})


def _scale(slide: Slide, edge: int, px: int) -> float:
    """um per pixel of a tile as it is read: nothing is enlarged, so never finer than the slide."""
    return slide.mpp * max(1.0, edge / px)


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
    red, green, blue = (pixels[..., i] for i in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    spread = high - np.minimum(np.minimum(red, green), blue)
    return _SATURATIONS.take((spread.astype(np.uint16) << 8) + high)


def _saturations() -> np.ndarray:
    """By 256 (max - min) + max."""
    values = np.arange(256)
    table = np.rint((255 << 12) / np.maximum(values, 1)).astype(np.int64) * (values > 0)
    return ((values[:, None] * table[None, :] + (1 << 11)) >> 12).clip(0, 255).astype(np.uint8).ravel()


_SATURATIONS = _saturations()


def otsu(counts: np.ndarray) -> int:
    """Otsu's threshold of a histogram (256,): values above it are one class, the others the other (Otsu 1979, eq. 18)."""
    counts = np.asarray(counts, float)
    below, moment = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * below - moment * below[-1]) ** 2 / (below * (below[-1] - below))
    return int(np.nan_to_num(between, posinf=0.0).argmax())


def inked(pixels: np.ndarray, dark: int) -> np.ndarray:
    """Saturation (h, w) uint8 of RGB pixels, 0 where the brightest channel is below `dark`."""
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
