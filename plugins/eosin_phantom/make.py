"""Write the phantom: tiles with labels and gene counts, registered pairs, slides, and nuclei with their masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from . import png
from .field import Field, field, mixture
from .genes import GENES, Expression
from .parts import Patient
from .publish import publish, write_csv
from .shapes import generator
from .slide import TISSUES, section, write_tiff
from .stain import CENTRES, SCANNERS, STAINS, dye, scan
from .tissue import PAINTERS

MPP = 0.5
TILE = 128  # px
SPLITS = ("train", "train", "train", "val", "test")  # by patient, in every centre alike


@dataclass(frozen=True)
class Size:
    """How much to make: patients in each centre, slides of each patient, tiles of each tissue on a slide."""

    patients: int
    slides: int
    tiles: dict[str, int]


SIZES = {
    "tiny": Size(5, 1, dict.fromkeys(PAINTERS, 1)),
    "small": Size(5, 2, {"tumour": 4, "gland": 4, "stroma": 4, "necrosis": 3, "lymphocytes": 3, "fat": 2}),
    "large": Size(10, 4, {"tumour": 12, "gland": 12, "stroma": 12, "necrosis": 9, "lymphocytes": 9, "fat": 6}),
}


def make(root: Path, seed: int = 0, size: str = "small", strength: float = 1.0) -> None:
    """Write `tiles/*.png`, `tiles.csv` and `genes.csv` into `root`: 120, 800 or 9,600 tiles of 128 px at 0.5 mpp.

    The label is the tissue. Patients lie in centres and slides in patients; `strength` scales how far the centres'
    stains and scanners are apart (0: not at all). The same arguments give the same bytes; made twice is made once.
    Raises ValueError for an unknown size or a strength below 0, FileExistsError where another phantom stands in `root`.
    """
    if size not in SIZES:
        raise ValueError(f"no phantom of size {size!r}: choose one of {', '.join(SIZES)}")
    _check(strength)
    stamp = {"set": "tiles", "seed": seed, "size": size, "strength": strength}
    publish(Path(root), stamp, lambda folder: _tiles(folder, seed, SIZES[size], strength))


def pairs(root: Path, seed: int = 0, strength: float = 1.0, n: int = 32) -> None:
    """Write `pairs/`: n pieces of tissue, each under 2 stains x 3 scanners, registered to the pixel.

    `pairs.csv` has path, tile (the piece of tissue), stain, scanner, and slide: one stain under one scanner.
    """
    _check(strength)
    stamp = {"set": "pairs", "seed": seed, "strength": strength, "n": n}
    publish(Path(root) / "pairs", stamp, lambda folder: _pairs(folder, seed, strength, n))


def slides(root: Path, seed: int = 0, n: int = 4, size: int = 1280) -> None:
    """Write `slides/`: n pyramidal TIFFs of size x size px at 0.5 mpp, and `slides.csv`; needs tifffile.

    Labels (tumour, normal) alternate; each slide is one patient's; every two slides come from the next centre.
    """
    stamp = {"set": "slides", "seed": seed, "n": n, "px": size}
    publish(Path(root) / "slides", stamp, lambda folder: _slides(folder, seed, n, size))


def nuclei(root: Path, seed: int = 0, n: int = 24, size: int = 192) -> None:
    """Write `nuclei/`: n images (RGB) with instance masks (16-bit grey; 0 none, then 1, 2, …), and `nuclei.csv`."""
    stamp = {"set": "nuclei", "seed": seed, "n": n, "px": size}
    publish(Path(root) / "nuclei", stamp, lambda folder: _nuclei(folder, seed, n, size))


def _tiles(folder: Path, seed: int, size: Size, strength: float) -> None:
    (folder / "tiles").mkdir()
    expression = Expression(seed)
    rows, counts = [], []
    for centre, group, split, name, tissue, path in _plan(size):
        rng = generator(seed, "tile", path)
        weights = mixture(rng, tissue, TILE)
        piece = field(rng, weights, _patient(seed, group))
        png.save(folder / path, _picture(piece, centre, rng, strength, _dose(seed, name)))
        rows.append((path, tissue, split, group, name, centre, MPP, piece.count))
        counts.append((path, *expression.counts(rng, weights, piece.count)))
    write_csv(folder / "tiles.csv", ("path", "label", "split", "group", "slide", "centre", "mpp", "nuclei"), rows)
    write_csv(folder / "genes.csv", ("path", *(f"gene_{g:02d}" for g in range(GENES))), counts)


def _plan(size: Size) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Centre, patient, split, slide, tissue and path of every tile."""
    for centre, p, s in product(CENTRES, range(size.patients), range(size.slides)):
        group = f"{centre}-p{p}"
        for tissue, number in size.tiles.items():
            for i in range(number):
                slide = f"{group}-s{s}"
                yield centre, group, SPLITS[p % len(SPLITS)], slide, tissue, f"tiles/{slide}-{tissue}-{i:02d}.png"


def _pairs(folder: Path, seed: int, strength: float, n: int) -> None:
    (folder / "tiles").mkdir()
    rows = []
    for i in range(n):
        tissue = list(PAINTERS)[i % len(PAINTERS)]
        tile = f"{i:03d}-{tissue}"
        rng = generator(seed, "pair", tile)
        piece = field(rng, mixture(rng, tissue, TILE), _patient(seed, tile))
        for stain in list(STAINS)[:2]:
            light = dye(piece, stain, strength)
            for scanner in SCANNERS:
                path = f"tiles/{tile}-{stain}-{scanner}.png"
                png.save(folder / path, scan(light, scanner, generator(seed, "scan", path), strength))
                rows.append((path, tile, stain, scanner, f"{stain}-{scanner}"))
    write_csv(folder / "pairs.csv", ("path", "tile", "stain", "scanner", "slide"), rows)


def _slides(folder: Path, seed: int, n: int, size: int) -> None:
    rows = []
    for i in range(n):
        name, label = f"slide-{i:02d}", list(TISSUES)[i % 2]
        centre = list(CENTRES)[i // 2 % len(CENTRES)]
        rng = generator(seed, "slide", name)
        piece = section(rng, label, _patient(seed, name), size)
        write_tiff(folder / f"{name}.tiff", _picture(piece, centre, rng, 1.0, _dose(seed, name)), MPP)
        rows.append((f"{name}.tiff", name, label, f"patient-{i:02d}", centre, MPP))
    write_csv(folder / "slides.csv", ("path", "slide", "label", "group", "centre", "mpp"), rows)


def _nuclei(folder: Path, seed: int, n: int, size: int) -> None:
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    tissues = [tissue for tissue in PAINTERS if tissue != "fat"]  # fat has none to find
    rows = []
    for i in range(n):
        tissue, centre = tissues[i % len(tissues)], list(CENTRES)[i % len(CENTRES)]
        name = f"{i:02d}-{tissue}"
        rng = generator(seed, "nuclei", name)
        piece = field(rng, mixture(rng, tissue, size), _patient(seed, name))
        path, mask = f"images/{name}.png", f"masks/{name}.png"
        png.save(folder / path, _picture(piece, centre, rng, 1.0, _dose(seed, name)))
        png.save(folder / mask, piece.nuclei.astype(np.uint16))
        rows.append((path, mask, tissue, f"patient-{i:02d}", centre, MPP, piece.count))
    write_csv(folder / "nuclei.csv", ("path", "mask", "label", "group", "centre", "mpp", "nuclei"), rows)


def _check(strength: float) -> None:
    if not 0.0 <= strength <= 10.0:
        raise ValueError(f"no phantom of strength {strength}: give 0 (all centres alike) to 10, 1 is as listed")


def _patient(seed: int, group: str) -> Patient:
    return Patient(*generator(seed, "patient", group).uniform(-1.0, 1.0, 3))


def _dose(seed: int, name: str) -> tuple[float, float]:
    """How much haematoxylin and eosin one slide got: no two slides are stained alike."""
    haematoxylin, eosin = np.exp(generator(seed, "dose", name).uniform(-0.45, 0.45, 2))
    return float(haematoxylin), float(eosin)


def _picture(
    piece: Field, centre: str, rng: np.random.Generator, strength: float, dose: tuple[float, float]
) -> np.ndarray:
    """The picture (h, w, 3) uint8 that a centre takes; thickness and focus differ from place to place on a slide."""
    stain, scanner = CENTRES[centre]
    thickness, defocus = np.exp(rng.uniform(-0.2, 0.2)), 0.5 * max(0.0, rng.standard_normal())
    light = dye(piece, stain, strength, (thickness * dose[0], thickness * dose[1]))
    return scan(light, scanner, rng, strength, defocus)
