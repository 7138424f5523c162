"""Twins of the robustness sets, with the strength knob: how far laboratories and scanners are apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from . import png
from .field import field
from .make import _dose, _patient, _picture
from .shapes import generator
from .stain import CENTRES, dye, scan

TIGER_SITES = ("A1", "A2", "AR", "BH", "E2", "OL")
TIGER_CELLS = ((1, "tumour"), (3, "gland"), (2, "stroma"), (6, "lymphocytes"), (5, "necrosis"), (7, "fat"))
"""Mask numbers of TIGER and the tissue that stands for each; 7 is the rest, no class of the five."""


def tiger(root: Path, seed: int, strength: float = 1.0, cell: int = 224, slides: int = 2) -> None:
    """TIGER's WSIROIS: a region of six cells (five tissues and the rest) on each slide of six TCGA sites, and two of
    other hospitals in tissue-cells.

    `strength` scales how far the sites' stains and scanners are apart (0: not at all); the last site has one slide.
    """
    base = root / "wsirois" / "roi-level-annotations"
    for number, site in enumerate(TIGER_SITES):
        for k in range(1 if site == TIGER_SITES[-1] else slides):
            patient = f"TCGA-{site}-A{10 * number + k:03d}"
            digest = hashlib.md5(f"{seed} {patient}".encode(), usedforsecurity=False).hexdigest().upper()
            uuid = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))
            _region(base / "tissue-bcss", f"{patient}-01Z-00-DX1.{uuid}", seed, patient, number, strength, cell)
    for k, name in enumerate(("TC_S01_P000054_C0001_B101", "100B")):
        _region(base / "tissue-cells", name, seed, name, k, strength, cell)


def _region(folder: Path, slide: str, seed: int, patient: str, site: int, strength: float, cell: int) -> None:
    """One image and its mask of 3 x 2 cells, in an order of its own."""
    from PIL import Image

    rng, centre = generator(seed, "tiger", slide), list(CENTRES)[site % len(CENTRES)]
    order = rng.permutation(len(TIGER_CELLS)).reshape(2, 3)
    ones, rows = np.ones((cell, cell)), []
    for row in order:
        drawn = [field(rng, {TIGER_CELLS[i][1]: ones}, _patient(seed, patient)) for i in row]
        rows.append([_picture(d, centre, rng, strength, _dose(seed, patient)) for d in drawn])
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    numbers = np.array([n for n, _ in TIGER_CELLS], np.uint8)
    mask = np.kron(numbers[order], np.ones((cell, cell), np.uint8)).astype(np.uint8)
    x, y = (int(v) for v in rng.integers(1000, 30000, 2))
    name = f"{slide}_[{x}, {y}, {x + picture.shape[1]}, {y + picture.shape[0]}].png"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    png.save(folder / "images" / name, picture)
    Image.fromarray(mask).save(folder / "masks" / name)


PLISM_STAINS = {"GIVH": "north", "GMH": "east", "KR": "south"}
PLISM_SCANNERS = {"AT2": "argus", "P": "briareus", "S60": "cyclops"}


def plism(root: Path, seed: int, strength: float = 1.0, n: int = 24, size: int = 96, parquet: bool = False) -> None:
    """PLISM: n places under three stainings and three scanners, registered to the pixel, one HDF5 file a slide.

    Stainings are consecutive sections in PLISM; here they are the same one. `strength` scales how far stainings and
    scanners are apart; at 0 all slides are alike. `parquet` writes shards of PNGs instead, as the other release has them.
    """
    tissues = ("tumour", "gland", "stroma", "lymphocytes", "necrosis", "fat")
    slides: dict[str, dict[str, np.ndarray]] = {}
    for i in range(n):
        tile = f"tile_16_{3 + i // 6}_{97 + 2 * (i % 6)}"  # 97 … 107: text order is not order by number
        rng = generator(seed, "plism", tile)
        first, second = tissues[i % 6], tissues[(i + 1 + i // 6) % 6]
        weights = {first: np.full((size, size), 0.7), second: np.full((size, size), 0.3)}
        piece = field(rng, weights, _patient(seed, tile))
        for stain, dyes in PLISM_STAINS.items():
            light = dye(piece, dyes, strength)
            for scanner, camera in PLISM_SCANNERS.items():
                name = f"{stain}_{scanner}_to_GMH_S60.tif"
                picture = scan(light, camera, generator(seed, name, tile), strength)
                slides.setdefault(name, {})[tile] = picture
    (_plism_shards if parquet else _plism_arrays)(root, slides)


def _plism_arrays(root: Path, slides: dict[str, dict[str, np.ndarray]]) -> None:
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    for name, tiles in slides.items():
        with h5py.File(root / f"{name}.h5", "w") as file:
            for tile, picture in tiles.items():
                file.create_dataset(tile, data=picture, compression="gzip", track_times=False)


def _plism_shards(root: Path, slides: dict[str, dict[str, np.ndarray]]) -> None:
    """Two shards, the cut in the middle of a slide."""
    import io

    import pyarrow as arrow
    import pyarrow.parquet as shards
    from PIL import Image

    rows = []
    for name, tiles in slides.items():
        stain, scanner = name.split("_")[:2]
        for tile, picture in tiles.items():
            content = io.BytesIO()
            Image.fromarray(picture).save(content, "PNG")
            png_cell = {"bytes": content.getvalue(), "path": None}
            rows.append({"slide_id": name, "tile_id": tile, "stainer": stain, "scanner": scanner, "png": png_cell})
    (root / "data").mkdir(parents=True, exist_ok=True)
    cut = len(rows) // 2 + 5
    for k, part in enumerate((rows[:cut], rows[cut:])):
        shards.write_table(
            arrow.Table.from_pylist(part), root / "data" / f"train-{k:05d}-of-00002.parquet", row_group_size=50
        )
