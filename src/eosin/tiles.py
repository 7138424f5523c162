"""Reading pixels: an image file, a box of one, a region of a slide, an HDF5 array or its row, a cell of a parquet file."""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import own_bytes
from .errors import DataError
from .extractor import MAX_PIXELS
from .pixels import FORMATS, opened
from .slides import Slide
from .table import Table

if TYPE_CHECKING:
    from PIL.Image import Image

ARRAYS = (".h5", ".hdf5")
OPEN_SLIDES = 4  # kept open by one reader, each with a cache of 32 MB; as many groups of rows of parquet files


class BrokenTile(DataError):
    """One tile cannot be read; `tile` is its id."""

    def __init__(self, tile: str, why: str) -> None:
        self.tile, self.why = tile, why
        super().__init__(f"{tile}: {why}")

    def __reduce__(self) -> Any:
        return BrokenTile, (self.tile, self.why)


class Reader:
    """Reads tiles of one table. Threads may share it: each keeps its own open files, and all share the open slides."""

    def __init__(self, root: Path, table: Table) -> None:
        self.root, self.table = root, table
        self.boxed = all(c in table for c in ("x", "y", "w", "h"))
        self.rowed, self.keyed = "row" in table, "key" in table
        self.on_slides = self.boxed and "px" in table
        self.open = threading.local()
        self.slides: OrderedDict[Path, Slide] = OrderedDict()
        self.shards: OrderedDict[Any, Any] = OrderedDict()
        self.lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "table": self.table}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, i: int) -> Image:
        """Row i as an RGB image; BrokenTile says why it cannot be."""
        table = self.table
        path = self.root / str(table["source"][i])
        try:
            if self.rowed and table["row"][i] >= 0 or self.keyed and table["key"][i]:
                return self._cell(path, i) if path.suffix == ".parquet" else self._row(path, i)
            if self.on_slides and table["px"][i] > 0:
                return self._region(path, i)
            if self.boxed and table["w"][i] > 0:
                return self._box(path, i)
            return load_rgb(path)
        except BrokenTile:
            raise
        except Exception as error:  # a damaged file may make a decoder raise anything
            raise BrokenTile(str(table["id"][i]), str(error) or type(error).__name__) from error

    def _box(self, path: Path, i: int) -> Image:
        if getattr(self.open, "path", None) != path:
            self.open.image, self.open.path = load_rgb(path), path
        image = self.open.image
        x, y, w, h = (int(self.table[c][i]) for c in "xywh")
        if x < 0 or y < 0 or x + w > image.width or y + h > image.height:
            raise DataError(f"the box {x},{y} {w}x{h} leaves the image of {image.width}x{image.height} pixels")
        cut = image.crop((x, y, x + w, y + h))
        return cut if "pad" not in self.table else _on_canvas(cut, int(self.table["pad"][i]))

    def _region(self, path: Path, i: int) -> Image:
        slide = self._slide(path)
        try:
            return slide.read(*(int(self.table[c][i]) for c in ("x", "y", "w", "h", "px")))
        except DataError:
            with self.lock:  # OpenSlide reads nothing more from a slide that failed once
                if self.slides.get(path) is slide:
                    del self.slides[path]
            raise

    def _slide(self, path: Path) -> Slide:
        """The open slide."""
        with self.lock:
            return self._opened(self.slides, path, lambda: Slide(path))

    def _opened(self, kept: OrderedDict[Any, Any], key: Any, opened: Callable[[], Any]) -> Any:
        """What is open under the key; those used longest ago are closed when no thread reads them any more."""
        if key not in kept:
            kept[key] = opened()
        kept.move_to_end(key)
        while len(kept) > OPEN_SLIDES:
            kept.popitem(last=False)
        return kept[key]

    def _row(self, path: Path, i: int) -> Image:
        import h5py
        from PIL import Image as PILImage

        if getattr(self.open, "array_path", None) != path:
            self.open.file, self.open.array_path = h5py.File(path, "r"), path
        key = str(self.table["key"][i])
        row = int(self.table["row"][i]) if self.rowed else -1
        stored = own_bytes(self.open.file[key], path)
        pixels = stored[row if row >= 0 else ()]  # no row: the array is one tile
        if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype != np.uint8:
            raise DataError(
                f"{path.name}[{key}] holds {pixels.dtype} of shape {pixels.shape}, not uint8 (height, width, 3)"
            )
        return PILImage.fromarray(np.ascontiguousarray(pixels[..., :3]))

    def _cell(self, path: Path, i: int) -> Image:
        """The encoded image in one row of a parquet file: bytes, or Hugging Face's {"bytes": …, "path": …}."""
        import pyarrow.parquet as parquet

        key, row = str(self.table["key"][i]), int(self.table["row"][i])
        with self.lock:
            shard = self._opened(self.shards, path, lambda: parquet.ParquetFile(path))
            ends = np.cumsum([shard.metadata.row_group(g).num_rows for g in range(shard.num_row_groups)])
            group = int(np.searchsorted(ends, row, side="right"))
            cells = self._opened(
                self.shards, (path, key, group), lambda: shard.read_row_group(group, columns=[key]).column(key)
            )
        found = cells[row - int(ends[group - 1] if group else 0)].as_py()
        content = found["bytes"] if isinstance(found, dict) else found
        if not content:
            raise DataError(f"{path.name} holds no image in row {row} of {key}; download it again")
        return load_rgb(io.BytesIO(content))


def load_rgb(path: Path | io.BytesIO) -> Image:
    """An image file, or its bytes, as 8-bit RGB, decoded whole.

    Grey and palette images become RGB, transparent pixels white (glass); CMYK, LAB, float and 16-bit images are refused,
    since what they should look like in RGB is a guess; more than 2**28 pixels are refused unread.

    Raises:
        DataError: for what is refused. OSError and ValueError from the decoder for damaged files.
    """
    from PIL import Image as PILImage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
        try:
            image: Any = opened(path)
        except PILImage.DecompressionBombError:
            raise DataError(f"has more than {MAX_PIXELS:,} pixels; cut it into tiles first") from None
        except PILImage.UnidentifiedImageError:
            empty = isinstance(path, Path) and path.stat().st_size == 0
            why = "is empty (0 bytes)" if empty else f"is not an image in any of {', '.join(FORMATS)}"
            raise DataError(f"{why}; copy or download it again, or convert it") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"has {image.width * image.height:,} pixels, more than {MAX_PIXELS:,}; cut it into tiles first"
            )
        deep = any(";16" in str(t[-1]) for t in image.tile)
        if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "YCbCr", "RGBX") or deep:
            raise DataError(f"is a {'16-bit ' if deep else ''}{image.mode} image; convert it to 8-bit RGB")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            return _on_white(image)
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def _on_canvas(image: Image, side: int) -> Image:
    """A piece smaller than a tile, filled up with white at the right and below to `side` x `side` pixels."""
    from PIL import Image as PILImage

    if image.width >= side and image.height >= side:
        return image
    canvas = PILImage.new("RGB", (side, side), "white")
    canvas.paste(image)
    return canvas


def _on_white(image: Any) -> Image:
    from PIL import Image as PILImage

    image = image.convert("RGBA")
    return PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image).convert("RGB")
