"""Regions of interest cut into tiles: boxes of one size, side by side, at least one a region."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import eosin
from eosin.errors import DataError
from eosin.extractor import MAX_PIXELS
from eosin.pixels import opened

OWN = ("id", "source", "x", "y", "w", "h", "pad", "item")


def region_tiles(dataset: eosin.Dataset, root: Path, items: eosin.Table, options: Mapping[str, Any]) -> eosin.Table:
    """The tiles of all items (one image file each): boxes of `tile` x `tile` px from the top left, what is left over cut off.

    A region smaller than a tile gives one, its box what there is and `pad` the side to which it is filled up with white;
    with `pad: drop` it gives none. `tile: 0` takes each region whole. Every other column is the item's.

    Raises:
        DataError: naming an image that cannot be read or is too large.
    """
    tile, drop = int(options["tile"]), options["pad"] == "drop"
    rows: list[tuple[int, int, int, int, int, int]] = []  # item, x, y, w, h, pad
    small = 0
    for i, source in enumerate(items["source"].tolist()):
        width, height = image_size(dataset, root / source)
        if tile == 0:
            rows.append((i, 0, 0, width, height, 0))
            continue
        lacks = width < tile or height < tile
        small += lacks
        if lacks and drop:
            continue
        nx, ny = max(1, width // tile), max(1, height // tile)
        pad = tile if lacks else 0
        rows += [
            (i, tile * x, tile * y, min(tile, width), min(tile, height), pad) for y in range(ny) for x in range(nx)
        ]
    at, *boxes = (np.array(c, dtype=np.int64) for c in zip(*rows, strict=True)) if rows else [np.zeros(0, np.int64)] * 6
    columns = {n: v[at] for n, v in items.columns.items() if n not in OWN}
    columns |= dict(zip(("x", "y", "w", "h", "pad"), boxes, strict=True))
    columns |= {"item": items["id"][at], "source": items["source"][at]}
    columns["id"] = np.array(
        [f"{i}#{x},{y}" for i, x, y in zip(columns["item"], boxes[0], boxes[1], strict=True)], dtype=str
    )
    done = "left out" if drop else "padded with white"
    warnings = [f"{small:,} regions are smaller than a tile of {tile} px and were {done}"] if small else []
    return eosin.Table(columns, items.classes, warnings=warnings)


def image_size(dataset: eosin.Dataset, path: Path) -> tuple[int, int]:
    """(width, height) px from the file's head; DataError naming it when it is damaged or beyond our bound."""
    try:
        with opened(path) as image:
            size = image.size
    except Exception as error:  # a damaged head may make a decoder raise anything
        raise DataError(f"{dataset.name}: {path} cannot be read ({error}). Copy or download it again.") from error
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{dataset.name}: {path} has {size[0] * size[1]:,} pixels, more than {MAX_PIXELS:,}. Cut it first."
        )
    return size
