"""Small sets of the phantom for protocols that ask for more than labelled tiles: spots with genes, bags, regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from . import png
from .field import field
from .make import MPP, TILE, _dose, _patient, _picture
from .publish import write_csv
from .shapes import generator, noise
from .spots import hest
from .stain import CENTRES
from .tissue import PAINTERS

SPLITS = ("train", "test", "train", "val", "train", "test", "train", "test", "train", "val")
"""Of pairs of slides, one of each label; and of groups of images, one of each first tissue."""
SLIDES, TILES, IMAGES = 40, 4, 60
REGIONS = ("glass", *PAINTERS)
"""What the numbers of a mask mean."""


def bags(root: Path, seed: int) -> None:
    """40 slides of 4 tiles, each of another patient: in every second slide 2 or 3 of them are tumour, else none.

    `tiles.csv` has path, label (tumour, normal: of the slide), tissue, split, group, slide, centre, mpp.
    """
    (root / "tiles").mkdir()
    sound = [tissue for tissue in PAINTERS if tissue != "tumour"]
    rows = []
    for k in range(SLIDES):
        name, label = f"slide-{k:02d}", ("tumour", "normal")[k % 2]
        centre, split = _centre(k // 2), SPLITS[k // 2 % len(SPLITS)]
        rng = generator(seed, "bag", name)
        ill = int(rng.integers(2, 4)) if label == "tumour" else 0
        for i, tissue in enumerate(["tumour"] * ill + [str(t) for t in rng.choice(sound, TILES - ill)]):
            path = f"tiles/{name}-{i}.png"
            _tile(root / path, seed, {tissue: np.ones((TILE, TILE))}, name, centre)
            rows.append((path, label, tissue, split, f"patient-{k:02d}", name, centre, MPP))
    write_csv(root / "tiles.csv", ("path", "label", "tissue", "split", "group", "slide", "centre", "mpp"), rows)


def regions(root: Path, seed: int) -> None:
    """60 images of 128 px, each of another patient and of two tissues, with masks (16-bit grey) that number `REGIONS`.

    `tiles.csv` has path, mask, split, group, centre, mpp. No image shows glass.
    """
    (root / "tiles").mkdir()
    (root / "masks").mkdir()
    rows = []
    for k in range(IMAGES):
        name, centre, split = f"{k:02d}.png", _centre(k), SPLITS[k // len(PAINTERS) % len(SPLITS)]
        rng = generator(seed, "regions", k)
        first = k % len(PAINTERS)
        second = (first + int(rng.integers(1, len(PAINTERS)))) % len(PAINTERS)
        share = _side(rng, TILE)
        weights = {tuple(PAINTERS)[first]: 1.0 - share, tuple(PAINTERS)[second]: share}
        _tile(root / "tiles" / name, seed, weights, f"regions {k}", centre)
        png.save(root / "masks" / name, np.where(share > 0.5, second + 1, first + 1).astype(np.uint16))
        rows.append((f"tiles/{name}", f"masks/{name}", split, f"patient-{k:02d}", centre, MPP))
    write_csv(root / "tiles.csv", ("path", "mask", "split", "group", "centre", "mpp"), rows)


def _side(rng: np.random.Generator, size: int) -> np.ndarray:
    """The share (size, size) of a tissue that lies on one side of a wavy edge near the middle."""
    turn, y, x = rng.uniform(0.0, 2 * np.pi), *((np.indices((size, size)) + 0.5) / size - 0.5)
    edge = np.cos(turn) * x + np.sin(turn) * y + 0.03 * noise(rng, (size, size), 12.0) + rng.uniform(-0.15, 0.15)
    return np.clip(0.5 + edge * size / 3.0, 0.0, 1.0)


def _tile(path: Path, seed: int, weights: Mapping[str, np.ndarray], name: str, centre: str) -> None:
    """Write one picture of the slide `name`."""
    rng = generator(seed, "tile", name, path.name)
    piece = field(rng, weights, _patient(seed, name))
    png.save(path, _picture(piece, centre, rng, 1.0, _dose(seed, name)))


def _centre(k: int) -> str:
    return list(CENTRES)[k % len(CENTRES)]


SETS: dict[str, Callable[[Path, int], None]] = {"phantom-hest": hest, "phantom-bags": bags, "phantom-regions": regions}
"""By the names that their datasets have."""
