"""The contact sheet: one picture of all that the phantom holds, to be looked at."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import make
from .stain import CENTRES
from .tissue import PAINTERS

if TYPE_CHECKING:
    from PIL import Image

_GAP, _LINE, _LEFT = 4, 18, 84  # px: between pictures, for a line of words, for the names of the rows
_CELL = make.TILE + _GAP


def contact_sheet(root: Path | None, path: Path) -> None:
    """Draw tissues x centres, one piece under all stains and scanners, a slide, and nuclei with their outlines.

    `root` is a phantom with all four sets; None makes a small one for the purpose. `path` is the PNG to write, 256
    colours. Raises FileNotFoundError naming the table that is missing.
    """
    if root is not None:
        _draw(Path(root)).save(path, optimize=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "phantom"
        make.make(root, size="tiny")
        make.pairs(root, n=2)
        make.slides(root, n=2)
        make.nuclei(root, n=1)
        _draw(root).save(path, optimize=True)


def _draw(root: Path) -> Image.Image:
    from PIL import Image, ImageDraw

    tiles, pairs = _table(root / "tiles.csv"), _table(root / "pairs" / "pairs.csv")
    slides, nuclei = _table(root / "slides" / "slides.csv"), _table(root / "nuclei" / "nuclei.csv")
    side = 3 * _CELL  # of the slide, right of the tiles
    bottom = _LINE + len(PAINTERS) * _CELL + _GAP
    sheet = Image.new("RGB", (_LEFT + len(CENTRES) * _CELL + _GAP + side, bottom + _LINE + _CELL), "white")
    pen = ImageDraw.Draw(sheet)

    for row, tissue in enumerate(PAINTERS):
        pen.text((4, _LINE + row * _CELL + make.TILE // 2 - 6), tissue, fill="black")
        for column, centre in enumerate(CENTRES):
            if not row:
                pen.text((_LEFT + column * _CELL, 3), f"centre {centre}", fill="black")
            here = [t for t in tiles if (t["label"], t["centre"]) == (tissue, centre)]
            sheet.paste(_open(root / here[row % len(here)]["path"]), (_LEFT + column * _CELL, _LINE + row * _CELL))

    left = _LEFT + len(CENTRES) * _CELL + _GAP
    pen.text((left, 3), f"a slide: {slides[0]['label']}, {slides[0]['mpp']} um per px", fill="black")
    picture = _open(root / "slides" / slides[0]["path"])
    sheet.paste(picture.resize((side - _GAP, side - _GAP), Image.Resampling.LANCZOS), (left, _LINE))

    top = _LINE + side + _GAP
    example = nuclei[0]
    pen.text((left, top), f"{example['nuclei']} nuclei and their outlines", fill="black")
    outlined = _outlined(*(_open(root / "nuclei" / example[key]) for key in ("path", "mask")))
    outlined = outlined.resize((side - _GAP, side - _GAP), Image.Resampling.BICUBIC)
    sheet.paste(outlined.crop((0, 0, side - _GAP, bottom - _GAP - top - _LINE)), (left, top + _LINE))

    pen.text((4, bottom + _LINE + make.TILE // 2 - 6), "registered", fill="black")
    for column, pair in enumerate([p for p in pairs if p["tile"] == pairs[-1]["tile"]]):
        pen.text((_LEFT + column * _CELL, bottom + 3), f"{pair['stain']}, {pair['scanner']}", fill="black")
        sheet.paste(_open(root / "pairs" / pair["path"]), (_LEFT + column * _CELL, bottom + _LINE))
    return sheet.quantize(256, dither=Image.Dither.NONE)


def _outlined(plain: Image.Image, mask: Image.Image) -> Image.Image:
    from PIL import Image

    picture, nuclei = np.array(plain), np.asarray(mask)
    inner = nuclei > 0
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        inner &= np.roll(nuclei, shift, axis) == nuclei
    picture[(nuclei > 0) & ~inner] = (0, 190, 90)
    return Image.fromarray(picture)


def _open(path: Path) -> Image.Image:
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()
        return picture


def _table(path: Path) -> Sequence[dict[str, str]]:
    if not path.exists():
        raise FileNotFoundError(f"no {path}: a contact sheet needs make(), pairs(), slides() and nuclei() run first")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
