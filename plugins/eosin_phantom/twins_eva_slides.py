"""Twins of EVA's slide sets and of HEST-Benchmark: small slides, and spots with gene counts, in the official layouts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from eosin.errors import MissingError

from .genes import Expression
from .publish import write_csv
from .shapes import generator
from .slide import write_tiff
from .twins import piece, slide, tile

CAMELYON = {"normal": (1, 2, 3, 4, 6, 7, 10, 13, 16), "tumor": (2, 3, 4, 7, 8, 9, 1, 5, 11)}
"""Numbers of slides; the last three of each are among those that eva validates on."""


def camelyon16(root: Path, seed: int) -> None:
    """Camelyon16: 12 slides to train, 6 of eva's to validate, 6 to test with the table that has no header."""
    for kind, n in [(kind, n) for kind, numbers in CAMELYON.items() for n in numbers]:
        folder = root / "training" / kind
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{kind}_{n:03d}"
        slide(folder / f"{name}.tif", seed, name, "tumour" if kind == "tumor" else "normal", name, n)
    (root / "testing" / "images").mkdir(parents=True)
    rows = []
    for n in range(1, 7):
        name, label = f"test_{n:03d}", ("Tumor", "Normal")[n % 2]
        slide(root / "testing" / "images" / f"{name}.tif", seed, name, "normal" if n % 2 else "tumour", name, n)
        rows.append((name, label, "IDC" if label == "Tumor" else "", "Macro" if label == "Tumor" else "None"))
    write_csv(root / "testing" / "reference.csv", rows[0], rows[1:])


GRADES = (
    ("gland",),
    ("gland", "tumour"),
    ("tumour", "gland"),
    ("tumour", "stroma"),
    ("tumour",),
    ("necrosis", "tumour"),
)
"""ISUP 0 to 5, as tissues."""


def panda(root: Path, seed: int) -> None:
    """PANDA: 8 biopsies of each grade, one of them with a noisy label; Kaggle's table and that of the noise."""
    top = root / "prostate-cancer-grade-assessment"
    (top / "train_images").mkdir(parents=True)
    rows = []
    for k in range(8 * len(GRADES)):
        grade, noisy = k % 6, k // 6 == 7
        name = hashlib.md5(f"{seed} panda {k}".encode(), usedforsecurity=False).hexdigest()
        picture = np.full((320, 512, 3), (244, 243, 245), np.uint8)
        shown = (grade + 3) % 6 if noisy else grade
        picture[32:288, 32:480] = tile(seed, name, GRADES[shown], (448, 256), name, k)
        write_tiff(top / "train_images" / f"{name}.tiff", picture, 0.5)
        gleason = f"3+{max(3, grade)}" if grade else ("negative", "0+0")[k // 6 % 2]
        rows.append((name, ("radboud", "karolinska")[k // 6 % 2], grade, gleason, 0 if noisy else 1))
    columns = ("image_id", "data_provider", "isup_grade", "gleason_score", "noise_ratio_10")
    write_csv(root / "train_with_noisy_labels.csv", columns, rows)
    write_csv(top / "train.csv", columns[:4], [row[:4] for row in rows])


HEST = {
    "idc": ("IDC", ("TENX95", "TENX99", "NCBI783", "NCBI785"), 4),
    "prad": ("PRAD", ("MEND139", "MEND140", "MEND154", "MEND156"), 2),
    "paad": ("PAAD", ("TENX116", "TENX126", "TENX140"), 3),
    "skcm": ("SKCM", ("TENX115", "TENX117"), 2),
    "coad": ("COAD", ("TENX111", "TENX147", "TENX148"), 2),
    "read": ("READ", ("ZEN36", "ZEN40", "ZEN48", "ZEN49"), 2),
    "ccrcc": ("CCRCC", ("INT1", "INT2", "INT3", "INT4", "INT5", "INT6"), 3),
    "luad": ("LUNG", ("TENX118", "TENX141"), 2),
    "lymph-idc": ("LYMPH_IDC", ("NCBI681", "NCBI682", "NCBI683", "NCBI684"), 4),
}
"""Task: its folder, samples and number of folds."""
SPOTS, SPARE, EDGE, N_GENES = 64, 3, 48, 50
TISSUES = ("tumour", "gland", "stroma", "lymphocytes", "necrosis")


def hest(root: Path, seed: int) -> None:
    """HEST-Benchmark's nine tasks."""
    for task, (folder, *_) in HEST.items():
        hest_task(root / folder, seed, task)


def hest_task(root: Path, seed: int, task: str) -> None:
    """One task: samples of 64 spots, all from one laboratory; counts of 60 genes that follow tissue and nuclei, 50 of them listed.

    The counts lie in another order than the patches, and hold three spots more.
    """
    folder, samples, folds = HEST[task]
    names = [f"GENE{j:02d}" for j in range(60)]
    listed = [names[j] for j in sorted(generator(seed, "hest", task).permutation(60)[:N_GENES].tolist())]
    for sample in samples:
        _sample(root, seed, f"{folder} {sample}", sample, names)
    (root / "splits").mkdir()
    columns = ("", "sample_id", "patches_path", "expr_path")
    for k in range(folds):
        tested = [s for i, s in enumerate(samples) if i * folds // len(samples) == k]
        for part, own in (("test", tested), ("train", [s for s in samples if s not in tested])):
            rows = [(i, s, f"patches/{s}.h5", f"adata/{s}.h5ad") for i, s in enumerate(own)]
            write_csv(root / "splits" / f"{part}_{k}.csv", columns, rows)
    (root / "var_50genes.json").write_text(json.dumps({"genes": listed}), encoding="utf-8")


TWINS: dict[str, Callable[[Path, int], None]] = {"camelyon16": camelyon16, "panda": panda, "hest": hest}
TWINS |= {f"hest-{task}": partial(hest_task, task=task) for task in HEST}


def _sample(root: Path, seed: int, key: str, sample: str, genes: Sequence[str]) -> None:
    import h5py

    expressions = [Expression(seed + 1000 * i) for i in range(3)]
    rng, patches, counts = generator(seed, "spots", key), [], []
    for k in range(SPOTS + SPARE):
        tissues = [TISSUES[i] for i in rng.permutation(len(TISSUES))[: 1 + k % 2]]
        picture, nuclei, of = piece(seed, f"{key} {k}", tissues, (EDGE, EDGE), sample)
        weights = {name: (of == i).astype(float) for i, name in enumerate(tissues)}
        counts.append([c for e in expressions for c in e.counts(rng, weights, int(nuclei.max()))])
        patches.append(picture)
    barcodes = [f"{k // 8:03d}x{k % 8:03d}" for k in range(SPOTS + SPARE)]
    order = rng.permutation(len(barcodes))
    (root / "patches").mkdir(parents=True, exist_ok=True)
    (root / "adata").mkdir(exist_ok=True)
    with h5py.File(root / "patches" / f"{sample}.h5", "w") as file:
        file.create_dataset("img", data=np.stack(patches[:SPOTS]), chunks=(1, EDGE, EDGE, 3))
        text = np.array(barcodes[:SPOTS], object)[:, None]
        file.create_dataset("barcode", data=text, dtype=h5py.string_dtype())
        file["coords"] = np.array([(200 * (k % 8), 200 * (k // 8)) for k in range(SPOTS)])
        file["img"].attrs.update(patch_size_src=EDGE, patch_size_target=EDGE, downsample=1.0, pixel_size=0.5)
    _write_h5ad(root / "adata" / f"{sample}.h5ad", np.array(counts)[order], [barcodes[i] for i in order], genes)


def _write_h5ad(path: Path, counts: np.ndarray, barcodes: Sequence[str], genes: Sequence[str]) -> None:
    try:
        from anndata import AnnData
    except ImportError as error:
        raise MissingError(f"A miniature of HEST needs anndata ({error}): pip install 'eosin[hest]'") from error
    from scipy.sparse import csr_matrix

    data = AnnData(csr_matrix(counts.astype(np.float32)))
    data.obs_names, data.var_names = list(barcodes), list(genes)
    data.write_h5ad(path)
