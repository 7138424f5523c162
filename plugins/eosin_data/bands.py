"""Masks as large as a slide, read some rows at a time: no whole mask is ever in memory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eosin.errors import DataError
from eosin.extractor import MAX_PIXELS
from eosin.pixels import opened

ALONE = (
    1,
    8,
    32773,
    32946,
)  # TIFF's numbers for none, deflate, packbits and old deflate: tifffile needs no codec for them


class MaskImage:
    """An 8-bit TIFF of 0 and 255, tiled or in strips.

    Attributes:
        width, height: px. rows: the height of one tile or strip, px.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.page = path, first_page(path)
        if self.page.samplesperpixel != 1 or self.page.dtype != np.uint8:
            raise DataError(
                f"{path} holds {self.page.shape} {self.page.dtype}, not one byte a pixel. Download it again."
            )
        self.height, self.width = self.page.imagelength, self.page.imagewidth
        self.rows = self.page.tilelength if self.page.is_tiled else min(self.page.rowsperstrip, self.height)

    def read(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, width) bool: where the class was drawn. DataError for values other than 0 and 255."""
        if self.whole is not None:
            out = self.whole[top:bottom]
        else:
            out = self._decoded(top, bottom)
        drawn = out > 127
        if not np.array_equal(out, np.where(drawn, 255, 0)):
            raise DataError(
                f"{self.path}: a mask holds 0 and 255 only, and here are other values. It was resized or encoded anew: download the original."
            )
        return drawn

    @cached_property
    def whole(self) -> np.ndarray | None:
        """The mask at once, where tifffile alone cannot unpack it (LZW) and it is small enough; else None."""
        if self.page.compression in ALONE or self.width * self.height > MAX_PIXELS:
            return None
        try:
            with opened(self.path) as image:
                return np.asarray(image)
        except Exception:  # a damaged file may make a decoder raise anything; tifffile then says what is wrong
            return None

    def _decoded(self, top: int, bottom: int) -> np.ndarray:
        out = np.zeros((bottom - top, self.width), np.uint8)
        across = -(-self.width // self.page.tilewidth) if self.page.is_tiled else 1
        with open(self.path, "rb") as file:
            for number in range(top // self.rows * across, -(-bottom // self.rows) * across):
                self._paste(file, number, out, top)
        return out

    def _paste(self, file: Any, number: int, out: np.ndarray, top: int) -> None:
        size = self.page.databytecounts[number]
        if not size:
            return  # a tile that was never written is empty
        file.seek(self.page.dataoffsets[number])
        try:
            pixels, (*_, y, x, _), _ = self.page.decode(file.read(size), number)
        except Exception as error:  # a damaged file may make a decoder raise anything
            raise DataError(
                f"{self.path} cannot be decoded ({error}). Copy or download it again; `pip install imagecodecs` adds rarer compressions."
            ) from error
        pixels = pixels[0, ..., 0]
        first, last = max(y, top), min(y + pixels.shape[0], top + len(out), self.height)
        width = min(pixels.shape[1], self.width - x)
        if first < last:
            out[first - top : last - top, x : x + width] = pixels[first - y : last - y, :width]


def first_page(path: Path) -> Any:
    """tifffile's first page: the slide at full resolution."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            _ = page.dataoffsets, page.databytecounts  # read while it is open
            return page
    except Exception as error:  # a damaged head may make a decoder raise anything
        raise DataError(f"{path} is no TIFF that can be read ({error}). Copy or download it again.") from error
