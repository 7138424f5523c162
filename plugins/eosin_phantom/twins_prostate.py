"""Twins of the prostate sets: cores with the maps of six pathologists, slides with a mask a class, slides with records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .shapes import generator
from .slide import write_tiff
from .twins import PATIENTS, slide, tile

CELL = 256  # px: one tile of the paper's
GRADES = {0: ("gland",), 1: ("tumour", "gland"), 2: ("tumour",), 3: ("necrosis", "tumour")}
"""Benign and Gleason 3, 4, 5, as tissues."""


def mosaic(seed: int, key: str, cells: Sequence[Sequence[Sequence[str]]], centre: int) -> np.ndarray:
    """A picture of cells of 256 px, each of its own tissues, all of one patient."""
    rows = [
        np.concatenate([tile(seed, f"{key} {y} {x}", t, (CELL, CELL), key, centre) for x, t in enumerate(row)], axis=1)
        for y, row in enumerate(cells)
    ]
    return np.concatenate(rows)


def spread(cells: np.ndarray) -> np.ndarray:
    """A value a cell as a value a pixel."""
    return np.kron(cells, np.ones((CELL, CELL), np.uint8)).astype(np.uint8)


def gleason2019(root: Path, seed: int) -> None:
    """Gleason 2019: 12 cores of four tiles, one a grade; three to six maps a core, of which one errs and one is partial."""
    from PIL import Image

    (root / "Train Imgs").mkdir(parents=True)
    (root / "Test" / "Test_imgs").mkdir(parents=True)
    values = np.array([1, 3, 4, 5], np.uint8)
    for k in range(PATIENTS + 1):
        core, rng = f"slide{1 + k // 3:03d}_core{k % 3 + 3:03d}", generator(seed, "votes", k)
        grades = rng.permutation(4).reshape(2, 2)
        image = Image.fromarray(mosaic(seed, core, [[GRADES[int(g)] for g in row] for row in grades], k))
        if k == PATIENTS:  # the test part has no maps
            image.save(root / "Test" / "Test_imgs" / f"{core}.jpg", quality=95)
            continue
        image.save(root / "Train Imgs" / f"{core}.jpg", quality=95)
        experts = sorted((rng.permutation(5)[: 2 + k % 4] + 1).tolist()) + [6]
        for number, expert in enumerate(experts):
            drawn = values[grades]
            if number == 0:
                drawn = np.where(drawn == 3, 4, drawn)
            drawn = spread(drawn)
            if number == 1:
                drawn[: CELL // 2] = 0
            folder = root / f"Maps{expert}_T"
            folder.mkdir(exist_ok=True)
            Image.fromarray(drawn).save(folder / f"{core}_classimg_nonconvex.png")


AGGC = {
    "Normal": ("gland",),
    "Stroma": ("stroma",),
    "G3": ("tumour", "gland"),
    "G4": ("tumour",),
    "G5": ("necrosis", "tumour"),
}


def aggc(root: Path, seed: int) -> None:
    """AGGC 2022: 12 slides of five labelled cells and one that nobody annotated, of subsets 1 and 2, train and test."""
    import tifffile

    for k in range(PATIENTS):
        subset, part = 1 + k % 2, "Test" if k % 4 == 3 else "Train"
        top, case = root / f"AGGC2022_{part.lower()}", f"Subset{subset}_{part}_{k + 1}"
        order = generator(seed, "aggc", k).permutation(6).reshape(2, 3)
        names = [*AGGC, "Fat"]
        picture = mosaic(seed, case, [[AGGC.get(names[i], ("fat",)) for i in row] for row in order], k)
        (top / f"Subset{subset}_{part}_image").mkdir(parents=True, exist_ok=True)
        write_tiff(top / f"Subset{subset}_{part}_image" / f"{case}.tiff", picture, 0.5)
        masks = top / f"Subset{subset}_{part}_annotation" / ("Train" if subset == 1 and part == "Train" else "") / case
        masks.mkdir(parents=True)
        for i, name in enumerate(AGGC):
            tifffile.imwrite(
                masks / f"{name}_Mask.tif", spread((order == i) * 255), tile=(256, 256), compression="zlib"
            )


def chimera(root: Path, seed: int) -> None:
    """CHIMERA task 1: 12 patients of two slides and their tissue masks, half of them with recurrence."""
    import tifffile

    (root / "clinical_data").mkdir(parents=True)
    for p in range(PATIENTS):
        patient, recurred = str(1003 + p), p % 2
        record = {"BCR": f"{recurred}.0", "ISUP": "x" if p % 5 == 0 else 1 + p % 5, "pT_stage": "2"}
        text = json.dumps([record] if p % 3 == 0 else record)
        (root / "clinical_data" / f"{patient}.json").write_text(text, encoding="utf-8")
        folder = root / "pathology" / "images" / patient
        folder.mkdir(parents=True)
        for n in (1, 2):
            name = f"{patient}_{n}"
            slide(folder / f"{name}.tif", seed, name, "tumour" if recurred else "normal", patient, p)
            tifffile.imwrite(folder / f"{name}_tissue.tif", np.full((64, 64), 255, np.uint8))
