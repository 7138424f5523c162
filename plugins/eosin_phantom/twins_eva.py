"""Twins of EVA's patch and segmentation sets: a few dozen small tiles each, in the official layouts."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from . import png
from .publish import write_csv
from .shapes import generator
from .twins import PATIENTS, piece, tile

BACH = {"Benign": ("b", ("gland",)), "InSitu": ("is", ("tumour", "necrosis")), "Invasive": ("iv", ("tumour", "stroma")), "Normal": ("n", ("fat", "gland"))}  # fmt: skip
NUMBERS = (1, 5, 12, 19, 26, 33, 52, 55, 62, 66, 75, 97)
"""Which files of each class there are; 52 to 66 are for validation in all."""


def bach(root: Path, seed: int) -> None:
    """BACH: 12 fields a class with numbers from both sides of the split, and what the archive holds besides."""
    photos = root / "ICIAR2018_BACH_Challenge" / "Photos"
    for name, (code, tissues) in BACH.items():
        for k, number in enumerate(NUMBERS):
            file = f"{code}{number:03d}.tif"
            _save_tif(photos / name / file, tile(seed, file, tissues, (160, 120), file, k))
    (photos / "Normal" / "Thumbs.db").write_bytes(b"thumbs")
    rows = [(f"{code}{n:03d}.tif", name) for name, (code, _) in BACH.items() for n in NUMBERS]
    write_csv(photos / "microscopy_ground_truth.csv", rows[0], rows[1:])


CRC = {
    "ADI": ("fat",), "BACK": (), "DEB": ("necrosis",), "LYM": ("lymphocytes",), "MUC": ("fat", "necrosis"),
    "MUS": ("stroma", "lymphocytes"), "NORM": ("gland",), "STR": ("stroma",), "TUM": ("tumour",),
}  # fmt: skip


def crc(root: Path, seed: int) -> None:
    """NCT-CRC: 6 patches a class to train, as many without normalisation, which are not read, and 3 of other patients."""
    for part, n, before in (("NCT-CRC-HE-100K", 6, ""), ("CRC-VAL-HE-7K", 3, "TCGA-")):
        for name, tissues in CRC.items():
            for k in range(n):
                code = _letters(seed, f"{part} {name} {k}", 8).upper()
                file = f"{name}/{name}-{before}{code}.tif"
                picture = tile(seed, file, tissues, (112, 112), f"{part} {k}", k)
                _save_tif(root / part / file, picture)
                if part == "NCT-CRC-HE-100K":
                    _save_tif(root / "NCT-CRC-HE-100K-NONORM" / file, 255 - (255 - picture) // 2)


def mhist(root: Path, seed: int) -> None:
    """MHIST: 36 patches, half of each class, a third of them official test, with the votes of seven pathologists."""
    (root / "images").mkdir(parents=True)
    rows = []
    for k in range(3 * PATIENTS):
        label, name = ("SSA", "HP")[k % 2], f"MHIST_{_word(k)}.png"
        tissues = ("gland", "lymphocytes") if label == "SSA" else ("gland", "stroma")
        png.save(root / "images" / name, tile(seed, name, tissues, (112, 112), name, k))
        votes = 4 + k % 4 if label == "SSA" else k % 4
        rows.append((name, label, votes, "test" if k % 6 > 3 else "train"))
    write_csv(
        root / "annotations.csv",
        ("Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition"),
        rows,
    )


def pcam(root: Path, seed: int) -> None:
    """PatchCamelyon: 32, 16 and 16 patches of 96 px in three pairs of HDF5 files, and their slides."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    for split, n, slides in (("train", 32, 8), ("valid", 16, 4), ("test", 16, 4)):
        y = np.arange(n, dtype=np.uint8) % 2
        of = [f"camelyon16_{'test' if split == 'test' else 'train'}_{split}_{k // 2 % slides:03d}" for k in range(n)]
        x = np.stack(
            [
                tile(seed, f"{split} {k}", ("tumour",) if y[k] else ("lymphocytes",), (96, 96), of[k], k)
                for k in range(n)
            ]
        )
        stem = f"camelyonpatch_level_2_split_{split}"
        for key, values in (("x", x), ("y", y.reshape(n, 1, 1, 1))):
            with h5py.File(root / f"{stem}_{key}.h5", "w") as file:
                file[key] = values
        rows = [(k, 96 * k, 96 * k, bool(y[k]), bool(y[k]), of[k]) for k in range(n)]
        columns = ("", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
        write_csv(root / f"{stem}_meta.csv", columns, rows)


TYPES = {"necrosis": 1, "lymphocytes": 2, "gland": 3, "tumour": 4, "stroma": 5}
"""The type of CoNSeP that a tissue's nuclei have; those of stroma are 5, 6 or 7 by turns."""


def consep(root: Path, seed: int) -> None:
    """CoNSeP: two images of 1000 x 1000 px to train and one to test, 16 boxes each, and the type of every nucleus."""
    for part, n in (("Train", 2), ("Test", 1)):
        for number in range(1, n + 1):
            name = f"{part.lower()}_{number}"
            boxes = [[_typed(seed, f"{name} {x} {y}", name, 4 * y + x) for x in range(4)] for y in range(4)]
            picture, types = (
                np.concatenate([np.concatenate([b[i] for b in row], axis=1) for row in boxes]) for i in (0, 1)
            )
            for kind in ("Images", "Labels", "Overlay"):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
            png.save(root / part / "Images" / f"{name}.png", picture)
            png.save(root / part / "Overlay" / f"{name}.png", picture // 2)
            _save_mat(root / part / "Labels" / f"{name}.mat", {"type_map": types.astype(np.float64)})
    (root / "README.txt").write_text("made-up tissue in the layout of CoNSeP\n", encoding="utf-8")


def _typed(seed: int, key: str, patient: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and types of one box of two tissues."""
    names = list(TYPES)
    tissues = (names[k % 5], names[(k + 1 + k // 5) % 5])
    picture, nuclei, where = piece(seed, key, tissues, (250, 250), patient)
    types = np.array([TYPES[t] + (k % 3 if t == "stroma" else 0) for t in tissues])
    return picture, np.where(nuclei > 0, types[where], 0)


CELLS = {"tumour": "Epithelial", "gland": "Epithelial", "lymphocytes": "Lymphocyte", "stroma": "Neutrophil", "necrosis": "Macrophage"}  # fmt: skip


def monusac(root: Path, seed: int) -> None:
    """MoNuSAC: 12 images of six patients to train and 6 of three to test, of unlike sizes; some of the latter's nuclei
    are ambiguous. The slides beside them are not read."""
    names = list(CELLS)
    for folder, n, first in (("MoNuSAC_images_and_annotations", 12, 0), ("MoNuSAC Testing Data and Annotations", 6, 6)):
        for k in range(n):
            slide = f"TCGA-{('5P', '69', 'A2')[k % 3]}-A{first + k // 2:03d}-01Z-00-DX1"
            place = root / folder / slide
            place.mkdir(parents=True, exist_ok=True)
            stem = f"{slide}_{k % 2 + 1}"
            tissues, size = (names[k % 5], names[(k + 2) % 5]), (113 + 37 * (k % 4), 81 + 53 * (k % 3))
            picture, nuclei, where = piece(seed, f"{folder} {stem}", tissues, size, slide, k)
            _save_tif(place / f"{stem}.tif", picture)
            (place / f"{stem}.svs").write_bytes((place / f"{stem}.tif").read_bytes())
            classes = [CELLS[t] for t in tissues]
            outlines: dict[str, list[np.ndarray]] = {name: [] for name in classes}
            for number in range(1, int(nuclei.max()) + 1):
                y, x = np.nonzero(nuclei == number)
                name = "Ambiguous" if first and number % 9 == 0 else classes[where[y[0], x[0]]]
                outlines.setdefault(name, []).append(_outline(x, y))
            (place / f"{stem}.xml").write_text(_annotations(outlines), encoding="utf-8")


def _outline(x: np.ndarray, y: np.ndarray, corners: int = 16) -> np.ndarray:
    """(corners, 2) x and y of a star about the pixels' middle, as far in each direction as they reach."""
    middle = np.array([x.mean(), y.mean()])
    angle, reach = np.arctan2(y - middle[1], x - middle[0]), np.hypot(x - middle[0], y - middle[1])
    sector = np.floor((angle / (2 * np.pi) % 1.0) * corners).astype(int) % corners
    far = np.array([reach[sector == s].max(initial=0.5) for s in range(corners)])
    turn = (np.arange(corners) + 0.5) * 2 * np.pi / corners
    return np.round(middle + far[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1), 3)


def _annotations(outlines: dict[str, list[np.ndarray]]) -> str:
    lines = ['<?xml version="1.0" encoding="utf-8"?>', '<Annotations MicronsPerPixel="0.25">']
    for number, (name, regions) in enumerate(outlines.items(), 1):
        lines.append(
            f' <Annotation Id="{number}"><Attributes><Attribute Id="0" Name={quoteattr(name)} Value="" /></Attributes>'
        )
        lines.append(
            '  <Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" /></RegionAttributeHeaders>'
        )
        for k, corners in enumerate(regions, 1):
            vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0" />' for x, y in corners)
            lines.append(f'   <Region Id="{k}"><Attributes /><Vertices>{vertices}</Vertices></Region>')
        lines.append("  </Regions></Annotation>")
    return "\n".join([*lines, "</Annotations>"]) + "\n"


def _save_tif(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _save_mat(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A MATLAB 5 file whose head does not say when it was made."""
    from scipy.io import savemat

    savemat(path, arrays, do_compression=True)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file".ljust(116))


def _letters(seed: int, key: str, n: int) -> str:
    return "".join(map(chr, generator(seed, "letters", key).integers(97, 123, n)))


def _word(k: int) -> str:
    """aaa, aab, …"""
    return "".join(chr(97 + k // 26**p % 26) for p in (2, 1, 0))
