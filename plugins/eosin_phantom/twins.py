"""Twins: public datasets in miniature, in their official layouts, of phantom tissue. Breast; the prostate's are beside.

Each class is another tissue or pair of tissues, each patient has an own size and crowding of nuclei, each slide an own
stain. There are enough items and patients for ten folds, and three patients of phyllodes tumour, as in the original.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import png
from .field import field
from .make import _dose, _patient, _picture
from .publish import write_csv
from .shapes import generator, noise
from .slide import section, write_tiff
from .stain import CENTRES

PATIENTS = 12  # of each class, where the set allows
SITES = ("A1", "A2", "AR", "BH", "E2", "OL")  # TCGA's tissue source sites; each has one scanner here


def tile(
    seed: int, key: str, tissues: Sequence[str], size: tuple[int, int], patient: str, centre: int = 0
) -> np.ndarray:
    """A picture (h, w, 3) uint8 of one tissue, or of two side by side: the picture of a `piece`."""
    return piece(seed, key, tissues, size, patient, centre)[0]


def piece(
    seed: int, key: str, tissues: Sequence[str], size: tuple[int, int], patient: str, centre: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture (h, w, 3) uint8, its nuclei (h, w) int32 (0 none, then 1, 2, …) and the number of the tissue at each pixel.

    Args:
        key: makes it unlike any other of the same seed. tissues: none is bare glass. size: (width, height) px.
        patient: whose tissue. centre: number of the laboratory and scanner.
    """
    rng = generator(seed, "twin", key)
    width, height = size
    first = np.ones((height, width))
    if len(tissues) > 1:
        slope = np.linspace(-0.5, 0.5, width)[None] + 0.2 * noise(rng, (height, width), 16.0)
        first = np.clip((slope + rng.uniform(-0.15, 0.15)) * width / 6 + 0.5, 0.0, 1.0)
    weights = dict(zip(tissues, (first, 1.0 - first), strict=False)) or {"fat": np.zeros((height, width))}
    drawn = field(rng, weights, _patient(seed, patient))
    picture = _picture(drawn, list(CENTRES)[centre % len(CENTRES)], rng, 1.0, _dose(seed, patient))
    return picture, drawn.nuclei, (first < 0.5).astype(np.int64)


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    png.save(path, picture)


def tils(root: Path, seed: int) -> None:
    """TCGA-TILs: 48 tiles of brca and 4 of another study, the links of pancancer, and the csv."""
    base = root / "TCGA-TILs"
    top, rows = base / "images-tcga-tils", []
    for label, tissues in (("til-negative", ("stroma",)), ("til-positive", ("lymphocytes",))):
        for p in range(2 * PATIENTS + 2):
            site, study = p % len(SITES), "brca" if p < 2 * PATIENTS else "acc"
            barcode = f"TCGA-{SITES[site]}-{'A' if label[4] == 'n' else 'B'}{p:03d}"
            split = ("train", "train", "train", "val", "test")[p % 5]
            md5 = hashlib.md5(f"{seed} {barcode}".encode(), usedforsecurity=False).hexdigest()
            name = f"{split}/{label}/{barcode}-01Z-00-DX1_{md5}.png"
            save(top / study / name, tile(seed, md5, tissues, (100, 100), barcode, site))
            link = top / "pancancer" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path("../../..") / study / name)
            rows.append((split, study, barcode, label, f"images-tcga-tils/{study}/{name}", md5))
    write_csv(base / "images-tcga-tils-metadata.csv", ("partition", "study", "barcode", "label", "path", "md5"), rows)


def tp53(root: Path, seed: int) -> None:
    """TCGA-BRCA TP53: 24 labelled slides as gdc-client leaves them, one patient's two, one without a label, one excluded."""
    rows = []
    for p in range(2 * PATIENTS):
        label, site = p % 2, p // 2 % len(SITES)
        patient = f"TCGA-{SITES[site]}-A{p:03d}"
        slide_of(root, seed, patient, 1, site, "tumour" if label else "normal")
        rows.append((f"{patient}-01", label))
    slide_of(root, seed, patient, 2, site, "tumour")
    slide_of(root, seed, "TCGA-A1-A900", 1, 0, "tumour")
    name = slide_of(root, seed, "TCGA-A2-A901", 1, 1, "normal")
    write_csv(root / "labels.csv", ("sample_id", "TP53"), rows)
    (root / "exclude.txt").write_text(f"{name}\n", encoding="utf-8")


def slide_of(root: Path, seed: int, patient: str, n: int, site: int, label: str) -> str:
    """Write one TCGA slide into a folder named by a file id; its name."""
    digest = hashlib.md5(f"{seed} {patient} {n}".encode(), usedforsecurity=False).hexdigest()
    uuid = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))
    name = f"{patient}-01Z-00-DX{n}.{uuid.upper()}.svs"
    (root / "slides" / uuid).mkdir(parents=True)
    slide(root / "slides" / uuid / name, seed, name, label, patient, site)
    return name


def slide(path: Path, seed: int, key: str, label: str, patient: str, centre: int) -> None:
    """Write a pyramidal slide of 512 x 512 px at 0.5 um per px."""
    rng = generator(seed, "twin", key)
    piece = section(rng, label, _patient(seed, patient), 512)
    write_tiff(path, _picture(piece, list(CENTRES)[centre % len(CENTRES)], rng, 1.0, _dose(seed, patient)), 0.5)


def idc(root: Path, seed: int) -> None:
    """IDC: 12 patients of two patches a class, and the second copy that the public archive holds."""
    for p in range(PATIENTS):
        patient = str(10253 + p)
        for label, tissues in enumerate((("gland",), ("tumour",))):
            for i in range(2):
                name = f"{patient}/{label}/{patient}_idx5_x{501 + 50 * i}_y{351 + 50 * label}_class{label}.png"
                picture = tile(seed, name, tissues, (50, 50), patient, p)
                save(root / name, picture)
                save(root / "IDC_regular_ps50_idx5" / name, picture)


BRACS = (
    ("N", ("gland",)), ("PB", ("stroma", "gland")), ("UDH", ("gland", "lymphocytes")), ("FEA", ("gland", "fat")),
    ("ADH", ("tumour", "gland")), ("DCIS", ("tumour", "necrosis")), ("IC", ("tumour", "stroma")),
)  # fmt: skip


def bracs(root: Path, seed: int) -> None:
    """BRACS: 12 regions a class of one to two tiles, one of them too small for a tile."""
    for i, (label, tissues) in enumerate(BRACS):
        for k in range(PATIENTS):
            wsi = 264 + 12 * i + k
            split = ("train", "train", "train", "val", "test")[k % 5]
            size = (150, 230) if k == 0 else (460, 230) if k == 1 else (230, 230)
            name = f"{split}/{i}_{label}/BRACS_{wsi}_{label}_{k + 1}.png"
            save(root / "BRACS_RoI" / "latest_version" / name, tile(seed, name, tissues, size, f"BRACS_{wsi}", k))


BREAKHIS = (
    ("benign", "adenosis", "A", ("gland",), 4), ("benign", "fibroadenoma", "F", ("stroma", "gland"), 10),
    ("benign", "phyllodes_tumor", "PT", ("stroma",), 3), ("benign", "tubular_adenoma", "TA", ("gland", "lymphocytes"), 7),
    ("malignant", "ductal_carcinoma", "DC", ("tumour",), 12), ("malignant", "lobular_carcinoma", "LC", ("tumour", "stroma"), 5),
    ("malignant", "mucinous_carcinoma", "MC", ("tumour", "fat"), 9),
    ("malignant", "papillary_carcinoma", "PC", ("tumour", "necrosis"), 6),
)  # fmt: skip


def breakhis(root: Path, seed: int) -> None:
    """BreaKHis: 12 fields a type at four magnifications, by as many patients as there are; 14-13412 under two types."""
    from PIL import Image

    breast, size = root / "BreaKHis_v1" / "histology_slides" / "breast", (230, 226)
    for number, (side, kind, code, tissues, patients) in enumerate(BREAKHIS):
        for k in range(PATIENTS):
            p = k % patients
            slide = (
                "14-13412"
                if code in ("DC", "LC") and p == 0
                else f"14-{22549 + 40 * number + p}{'AB' if p == 1 else ''}"
            )
            letter = side[0].upper()
            shown = code if slide != "14-13412" else "DC"  # the same images under both
            whole = Image.fromarray(
                tile(seed, f"{shown} {k}", ("tumour",) if shown != code else tissues, size, slide, p)
            )
            for magnification, share in ((40, 1.0), (100, 0.6), (200, 0.4), (400, 0.3)):
                edge = [round((1 - share) / 2 * n) for n in size]
                near = whole.crop((edge[0], edge[1], size[0] - edge[0], size[1] - edge[1])).resize(size)
                name = f"SOB_{letter}_{code}-{slide}-{magnification}-{k + 1:03d}.png"
                folder = breast / side / "SOB" / kind / f"SOB_{letter}_{code}_{slide}" / f"{magnification}X"
                save(folder / name, np.asarray(near))
