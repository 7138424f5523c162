"""Small sets of the phantom for protocols that ask for more than labelled tiles: spots with genes, bags, nuclei."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import png
from .field import Field, field, mixture
from .make import MPP, _dose, _patient, _picture
from .publish import write_csv
from .shapes import generator
from .spots import hest
from .stain import CENTRES
from .tissue import PAINTERS

SIDE = 96  # px of a tile
SPLITS = ("train", "test", "train", "val", "train", "test")  # of pairs of slides, one of each label
SLIDES, TILES = 60, 8
IMAGES = 60


def bags(root: Path, seed: int) -> None:
    """60 slides of 8 tiles, each of another patient: in every second slide 3 to 5 of them are tumour.

    `tiles.csv` has path, label (tumour, normal: of the slide), tissue, split, group, slide, centre, mpp.
    """
    (root / "tiles").mkdir()
    sound = [tissue for tissue in PAINTERS if tissue != "tumour"]
    rows = []
    for k in range(SLIDES):
        name, label = f"slide-{k:02d}", ("tumour", "normal")[k % 2]
        centre, split = _centre(k // 2), SPLITS[k // 2 % len(SPLITS)]
        rng = generator(seed, "bag", name)
        ill = int(rng.integers(3, 6)) if label == "tumour" else 0
        tissues = ["tumour"] * ill + [str(t) for t in rng.choice(sound, TILES - ill)]
        for i, tissue in enumerate(tissues):
            path = f"tiles/{name}-{i:02d}.png"
            _tile(root / path, seed, tissue, name, centre, ("tumour", *sound) if ill else tuple(sound))
            rows.append((path, label, tissue, split, f"patient-{k:02d}", name, centre, MPP))
    write_csv(root / "tiles.csv", ("path", "label", "tissue", "split", "group", "slide", "centre", "mpp"), rows)


def nuclei(root: Path, seed: int) -> None:
    """60 images of 96 px, each of another patient, with masks (16-bit grey): 1 where there is a nucleus, else 0.

    `tiles.csv` has path, mask, tissue, split, group, centre, mpp.
    """
    (root / "tiles").mkdir()
    (root / "masks").mkdir()
    tissues = [tissue for tissue in PAINTERS if tissue != "fat"]  # fat has none to find
    rows = []
    for k in range(IMAGES):
        tissue, centre, split = tissues[k % len(tissues)], _centre(k), SPLITS[k // len(tissues) % len(SPLITS)]
        name = f"{k:02d}-{tissue}.png"
        piece = _tile(root / "tiles" / name, seed, tissue, f"nuclei {k}", centre, tuple(tissues))
        png.save(root / "masks" / name, (piece.nuclei > 0).astype(np.uint16))
        rows.append((f"tiles/{name}", f"masks/{name}", tissue, split, f"patient-{k:02d}", centre, MPP))
    write_csv(root / "tiles.csv", ("path", "mask", "tissue", "split", "group", "centre", "mpp"), rows)


def _tile(path: Path, seed: int, tissue: str, name: str, centre: str, among: tuple[str, ...]) -> Field:
    """Write one picture of slide `name`; tissues of `among` may reach into it."""
    rng = generator(seed, "tile", name, path.name)
    piece = field(rng, mixture(rng, tissue, SIDE, among), _patient(seed, name))
    png.save(path, _picture(piece, centre, rng, 1.0, _dose(seed, name)))
    return piece


def _centre(k: int) -> str:
    return list(CENTRES)[k % len(CENTRES)]


SETS: dict[str, Callable[[Path, int], None]] = {"phantom-hest": hest, "phantom-bags": bags, "phantom-nuclei": nuclei}
"""By the names that their datasets have."""
