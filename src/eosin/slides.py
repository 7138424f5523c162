"""Whole slides: open one, know its scale, read a region at a physical scale, list the tiles of many.

OpenSlide decodes (`pip install 'eosin[slides]'`). An open slide is shared by threads; it holds a cache of bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from .cards import anchored
from .coordinates import Coordinates, find
from .errors import DataError, MissingError
from .files import content_of
from .manifest import Manifest
from .table import Table
from .tiling import Tiling, cut, fit

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".czi", ".dcm")
POSSIBLE = (0.05, 20.0)  # um per pixel; 264.6 and 352.8 are 96 and 72 dots per inch, which say nothing
SKEW = 1.05  # how far the scales of x and y may be apart
LARGEST = 2**26  # pixels of one tile as the file stores it; scanners write some hundreds across


class Slide:
    """One open slide.

    Args:
        path: a file that OpenSlide reads.
        mpp: um per pixel at level 0, over what the file says; `fallback` counts only where the file says nothing usable.

    Attributes:
        width, height: pixels at level 0. downsamples, dimensions: of each level, finest first.

    Raises:
        DataError: the file is not a slide, or is damaged. MissingError: OpenSlide is not installed.
    """

    def __init__(self, path: Path, mpp: float | None = None, fallback: float | None = None) -> None:
        openslide = _openslide()
        self.path, self.given, self.fallback = Path(path), mpp, fallback
        if not self.path.is_file():
            raise DataError(f"{path}: there is no such file. Check the path.")
        try:
            self.source = openslide.OpenSlide(self.path)
        except openslide.OpenSlideError as error:
            raise DataError(f"{self.path.name} cannot be opened: {_why(self.path, error)}") from error
        self.dimensions: tuple[tuple[int, int], ...] = self.source.level_dimensions
        self.downsamples: tuple[float, ...] = self.source.level_downsamples
        self.width, self.height = self.dimensions[0]
        for level in range(len(self.dimensions)):
            w, h = (
                _number(self.source.properties.get(f"openslide.level[{level}].tile-{side}"))
                for side in ("width", "height")
            )
            # OpenSlide would make room for one, and abort the process where there is none
            if w and h and w * h > LARGEST:
                raise DataError(f"{self.path.name} says that it has tiles of {w:.0f}x{h:.0f} pixels. Copy it again.")

    @cached_property
    def mpp(self) -> float:
        """um per pixel at level 0, the mean of x and y; DataError where nobody says, or the file says what cannot be."""
        if self.given:
            return float(self.given)
        try:
            return self._own_mpp()
        except DataError:
            if not self.fallback or not math.isfinite(self.fallback) or self.fallback <= 0:
                raise
            return float(self.fallback)

    def _own_mpp(self) -> float:
        name, properties = self.path.name, self.source.properties
        x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
        power = properties.get("openslide.objective-power")
        step = (
            "Say how many um one pixel of the slide has: --slide-mpp (option `slide_mpp` of a dataset); --mpp is the scale of the tiles."
            + (f" Its objective is {power}x, which usually is {10 / float(power):g}." if _number(power) else "")
        )
        if not x or not y:
            raise DataError(f"{name} does not say its mpp (um per pixel). {step}")
        if not POSSIBLE[0] <= min(x, y) <= max(x, y) <= POSSIBLE[1]:
            raise DataError(f"{name} says {x:g} um per pixel, which no scan of a slide has. {step}")
        if max(x, y) / min(x, y) > SKEW:
            raise DataError(f"{name} says {x:g} um per pixel across and {y:g} down. {step}")
        return (x + y) / 2

    @cached_property
    def fingerprint(self) -> str:
        """Of the file: all bytes up to 64 MB, else its size, head and tail."""
        return content_of(self.path)

    def level(self, edge: float, px: int) -> int:
        """The coarsest level at which `edge` level-0 pixels are still at least `px` pixels; 0 where none is."""
        fine = [i for i, d in enumerate(self.downsamples) if edge / d >= px - 0.5]
        return max(fine, default=0)

    def read(self, x: int, y: int, w: int, h: int, px: int) -> Image:
        """The box x, y, w, h (level-0 pixels) as RGB, `px` pixels across; glass where the scanner saw nothing.

        It comes from the nearest level that is finer, made smaller by an antialiasing triangle filter. What is coarser
        than asked stays as it is: nothing is ever enlarged here.

        Raises:
            DataError: the box leaves the slide, or its pixels are damaged.
        """
        if x < 0 or y < 0 or w < 1 or h < 1 or x + w > self.width or y + h > self.height:
            raise DataError(f"the box {x},{y} {w}x{h} leaves the slide of {self.width}x{self.height} pixels")
        level = self.level(w, px)
        down = self.downsamples[level]
        across, along = w / down, h / down
        if across < px + 0.5:
            return self.region(level, x, y, max(1, round(across)), max(1, round(along)))
        room = (self.dimensions[level][0] - int(x / down), self.dimensions[level][1] - int(y / down))
        size = tuple(max(1, min(math.ceil(n - 1e-6), r)) for n, r in zip((across, along), room, strict=True))
        box = (0.0, 0.0, min(across, size[0]), min(along, size[1]))
        image = self.region(level, x, y, size[0], size[1])
        return image.resize((px, max(1, round(px * h / w))), _filters().BILINEAR, box=box)

    def region(self, level: int, x: int, y: int, w: int, h: int) -> Image:
        """w x h pixels of a level, from level-0 position x, y, as RGB on white."""
        from PIL import Image as PILImage

        openslide = _openslide()
        try:
            image = self.source.read_region((x, y), level, (w, h))
        except openslide.OpenSlideError as error:
            raise DataError(f"{self.path.name} is damaged at {x},{y}: {error}. Copy or download it again.") from error
        if image.getextrema()[3][0] < 255:
            image = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")

    def blocks(self, level: int, reduce: int = 1, side: int = 2048) -> Iterator[tuple[int, int, np.ndarray]]:
        """The whole level piece by piece, so that memory does not grow with the slide: (left, top, (h, w, 3) uint8).

        Args:
            reduce: each pixel is the mean of this many squared; left and top count such pixels.
        """
        (width, height), down = self.dimensions[level], self.downsamples[level]
        step = max(1, side // reduce) * reduce
        for top in range(0, height, step):
            for left in range(0, width, step):
                size = min(step, width - left), min(step, height - top)
                image = self.region(level, round(left * down), round(top * down), *size)
                if reduce > 1:
                    image = image.reduce(reduce)
                yield left // reduce, top // reduce, np.asarray(image)

    def overview(self, longest: int = 1200) -> Image:
        """The whole slide, its longer side at most `longest` pixels."""
        from PIL import Image as PILImage

        level = max((i for i, d in enumerate(self.dimensions) if max(d) >= longest), default=0)
        reduce = max(1, math.ceil(max(self.dimensions[level]) / longest))
        width, height = (math.ceil(n / reduce) for n in self.dimensions[level])
        canvas = PILImage.new("RGB", (width, height), "white")
        for left, top, pixels in self.blocks(level, reduce):
            canvas.paste(PILImage.fromarray(pixels), (left, top))
        return canvas


def slides_at(place: Path) -> Iterator[Path]:
    """The slides at a path, sorted: a file as it is; of a folder, what ends like a slide, at any depth.

    Hidden files and __MACOSX are passed over; of the many files of one DICOM slide (a folder) only the largest is taken.
    """
    if not place.is_dir():
        yield place
        return
    found = [p for p in sorted(place.rglob("*")) if p.suffix.lower() in SUFFIXES and not p.is_dir()]
    seen = [p for p in found if not any(s.startswith(".") or s == "__MACOSX" for s in p.relative_to(place).parts)]
    largest = {p.parent: p for p in sorted((p for p in seen if p.suffix.lower() == ".dcm"), key=_size)}
    yield from (p for p in seen if p.suffix.lower() != ".dcm" or largest[p.parent] == p)


def _size(path: Path) -> int:
    """Bytes of a file, or of what it links to; 0 of a link to nothing."""
    return path.stat().st_size if path.exists() else 0


def slide_tiles(root: Path, items: Table, options: Mapping[str, Any]) -> Table:
    """The tiles of a dataset whose items are slides: one row a tile, in the order of the items.

    Args:
        root: the dataset's folder. items: `source` is each slide, relative to it; `mpp` (level 0) serves where a file
            does not say.
        options: those of `tiling.Tiling` (mpp, size, stride, rule, share, limit, seed), `slide_mpp` (level 0, over what
            the files say), and `coordinates`: a folder of `bench tile`, TRIDENT or the sampler (relative to root) to
            take tiles from instead of looking for tissue; with `rescale` they get mpp and size about their centres;
            `unreadable`: refuse (the default), or skip, with a warning that names each slide.

    Returns:
        id (`<item>@<x>,<y>`), item, source, x, y, w, h (level-0 pixels), px (pixels that are read), mpp (of these), and
        the item's label, split, group, centre and slide (else its file's name). A slide without tissue has no row; a warning names it.

    Raises:
        DataError: slides that cannot be read, or have no coordinates, all named.
    """
    own = ("coordinates", "slide_mpp", "rescale", "unreadable")
    tiling = Tiling.of({k: v for k, v in options.items() if k not in own}, own)
    folder = root / str(options["coordinates"]) if options.get("coordinates") else None
    rescale = bool(options.get("rescale"))

    def tiles_of(i: int) -> Coordinates | str:
        known = float(items["mpp"][i])
        try:
            slide = Slide(root / str(items["source"][i]), options.get("slide_mpp"), known if known > 0 else None)
            return fit(slide, find(folder, slide.path.stem), tiling, rescale) if folder else cut(slide, tiling)
        except DataError as error:
            return f"{items['id'][i]}: {error}"

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tiles_of, range(len(items))))
    bad = [text for text in found if isinstance(text, str)]
    good = [i for i, c in enumerate(found) if isinstance(c, Coordinates)]
    if bad and (options.get("unreadable") != "skip" or not good):
        raise DataError(f"{len(bad)} of {len(items)} slides cannot be tiled:\n  " + "\n  ".join(bad))
    table = _joined(items.rows(good), [c for c in found if isinstance(c, Coordinates)], folder)
    table.warnings += [f"left out: {text}" for text in bad]
    return table


def _joined(items: Table, found: Sequence[Coordinates], folder: Path | None) -> Table:
    of = np.repeat(np.arange(len(items)), [len(c.xy) for c in found])
    if not len(of):
        raise DataError(f"None of {len(items)} slides has a tile: there is no tissue by this rule, or none fits.")
    xy = np.concatenate([c.xy for c in found])
    per_tile = {n: np.array([getattr(c, n) for c in found])[of] for n in ("edge", "px", "mpp")}
    names = [f"{item}@{x},{y}" for item, (x, y) in zip(items["id"][of].tolist(), xy.tolist(), strict=True)]
    columns: dict[str, Any] = {
        "id": names,
        "item": items["id"][of],
        "source": items["source"][of],
        "x": xy[:, 0],
        "y": xy[:, 1],
    }
    columns |= {"w": per_tile["edge"], "h": per_tile["edge"], "px": per_tile["px"], "mpp": per_tile["mpp"]}
    columns |= {n: items[n][of] for n in ("label", "split", "group", "centre")}
    stems = np.array([PurePath(s).stem for s in items["source"].tolist()])
    columns["slide"] = np.where(items["slide"] != "", items["slide"], stems)[of]
    empty = [str(i) for i, c in zip(items["id"], found, strict=True) if not len(c.xy)]
    warnings = (
        [f"{len(empty)} slides have no tile, such as {', '.join(empty[:3])}: they are left out."] if empty else []
    )
    scales = [c.mpp for c in found if len(c.xy)]
    if max(scales) > 1.1 * min(scales):
        warnings.append(
            f"Tiles differ in scale, {min(scales):.3g} to {max(scales):.3g} um per pixel; nothing is enlarged."
            + (" `rescale: true` gives all tiles the options' mpp and size." if folder else "")
        )
    places = [p for p in (folder, folder / "patches") if p.is_dir()] if folder else []
    watched = tuple(str(p.absolute()) for place in places for p in (place, *sorted(place.glob("*.h5"))))
    return Table(columns, classes=items.classes, warnings=warnings, watched=watched)


def _openslide() -> Any:
    try:
        import openslide
    except ImportError as error:
        raise MissingError(f"Slides need OpenSlide ({error}): pip install 'eosin[slides]'") from error
    return openslide


def _filters() -> Any:
    from PIL.Image import Resampling

    return Resampling


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _why(path: Path, error: Exception) -> str:
    if path.suffix.lower() == ".dcm":
        return (
            f"OpenSlide reads a DICOM slide from a folder with all instances of its series, and refuses this one ({error}). "
            "Put the whole series into one folder, or convert it to a pyramidal TIFF."
        )
    size = path.stat().st_size
    if size < 10_000:
        return f"it has {size:,} bytes, too few for a slide ({error}). Copy or download it again."
    return f"{error}. Is it a whole slide in a format of OpenSlide? Copy or download it again."


class Slides(Manifest):
    """Slides listed in a csv, each labelled as a whole: `table:` names it, `options:` are those of `slide_tiles`."""

    kind = "slides"

    def tiles(self, root: Path, items: Table) -> Table:
        """The tiles of the slides. A relative `coordinates` is looked for in the root, else beside the card's file."""
        options = dict(self.card.options)
        beside = anchored(str(options.get("coordinates", "")), Path(self.card.base))
        if beside and not (root / options["coordinates"]).exists():
            options["coordinates"] = beside
        return slide_tiles(root, items, options)
