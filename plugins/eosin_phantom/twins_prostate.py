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
PATCH = 750  # px: one patch of Arvaniti's
GRADES = {0: ("gland",), 1: ("tumour", "gland"), 2: ("tumour",), 3: ("necrosis", "tumour")}
"""Benign and Gleason 3, 4, 5, as tissues."""


def mosaic(seed: int, key: str, cells: Sequence[Sequence[Sequence[str]]], centre: int, side: int = CELL) -> np.ndarray:
    """A picture of cells of `side` px, each of its own tissues, all of one patient."""
    rows = [
        np.concatenate([tile(seed, f"{key} {y} {x}", t, (side, side), key, centre) for x, t in enumerate(row)], axis=1)
        for y, row in enumerate(cells)
    ]
    return np.concatenate(rows)


def spread(cells: np.ndarray, side: int = CELL) -> np.ndarray:
    """A value a cell as a value a pixel."""
    return np.kron(cells, np.ones((side, side), np.uint8)).astype(np.uint8)


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


BLOCKS = (
    "ZT111_4_A",
    "ZT199_1_A",
    "ZT204_6_A",
    "ZT76_39_A",
    "ZT80_38_A",
    "ZT80_38_B",
)  # train, train, train, val, test, test


def arvaniti(root: Path, seed: int) -> None:
    """Arvaniti's cores: 15 of four patches of 750 px, one a grade (the brightest are dropped, as in the original); in the test
    part the second pathologist calls 3 a 4."""
    from PIL import Image

    (root / "TMA_images").mkdir(parents=True)
    for k in range(PATIENTS + 3):
        block = BLOCKS[k % len(BLOCKS)]
        core = f"{block}_{1 + k // len(BLOCKS)}_{1 + k % 5}"
        grades = generator(seed, "cores", k).permutation(4).reshape(2, 2)
        picture = mosaic(seed, core, [[GRADES[int(g)] for g in row] for row in grades], k, PATCH // 2)
        scan = Image.fromarray(picture).resize((2 * PATCH, 2 * PATCH))  # 0.23 um a pixel, twice the phantom's own
        scan.save(root / "TMA_images" / f"{core}.jpg", quality=90)
        seen = {"": ("Gleason_masks_train", grades)}
        if block.startswith("ZT80"):
            top = "Gleason_masks_test/Gleason_masks_test_pathologist"
            seen = {"1": (f"{top}1", grades), "2": (f"{top}2", np.where(grades == 1, 2, grades))}
        for who, (folder, drawn) in seen.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            mask = Image.fromarray(spread(drawn, PATCH)).convert("P")
            mask.save(root / folder / f"mask{who}_{core}.png")


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
