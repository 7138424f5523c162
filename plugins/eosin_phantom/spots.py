"""Spatial transcriptomics of the phantom: sections on a grid of spots with gene counts, in the tree of hest-bench."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np

from .field import field
from .genes import GENES, NOISE, Expression
from .make import _dose, _patient, _picture
from .publish import write_csv
from .shapes import generator
from .slide import layout
from .stain import CENTRES

SPOT = 112  # px of a patch
SPOTS = 6  # along a side of a section
LEAST = 0.15  # of a patch is tissue, else only its counts are kept
SAMPLES = ("PH1", "PH2", "PH3", "PH4", "PH5")
LISTED = [f"gene_{g:02d}" for g in range(GENES - NOISE)]
"""The genes that follow the tissue: those of `var_50genes.json`. The counts have the others as well."""


def hest(root: Path, seed: int) -> None:
    """A task of hest-bench: five sections of as many patients, 40 to 90 spots each, 16 genes, one section out a fold.

    Spots without tissue have counts and no patch, and the rows of the counts are in another order, as in real files.
    """
    for folder in ("patches", "adata", "splits"):
        (root / folder).mkdir()
    expression = Expression(seed)
    for k, sample in enumerate(SAMPLES):
        _sample(root, seed, sample, list(CENTRES)[k % len(CENTRES)], expression)
        parts = {"train": [s for s in SAMPLES if s != sample], "test": [sample]}
        for part, names in parts.items():
            rows = [(i, s, f"patches/{s}.h5", f"adata/{s}.h5ad") for i, s in enumerate(names)]
            write_csv(root / "splits" / f"{part}_{k}.csv", ("", "sample_id", "patches_path", "expr_path"), rows)
    (root / "var_50genes.json").write_text(json.dumps({"genes": LISTED}) + "\n", encoding="utf-8")


def _sample(root: Path, seed: int, sample: str, centre: str, expression: Expression) -> None:
    """Write the patches and the counts of one section."""
    rng = generator(seed, "spots", sample)
    whole = layout(rng, "tumour", 2 * SPOT * SPOTS)
    there = np.s_[SPOT : SPOT * (SPOTS + 1), SPOT : SPOT * (SPOTS + 1)]  # a quarter, so that regions outgrow spots
    weights = {tissue: weight[there] for tissue, weight in whole.items()}
    piece = field(rng, weights, _patient(seed, sample))
    picture = _picture(piece, centre, rng, 1.0, _dose(seed, sample))
    names, counts, coords, patches, kept = [], [], [], [], []
    for row, column in product(range(SPOTS), repeat=2):
        y, x = row * SPOT, column * SPOT
        box = np.s_[y : y + SPOT, x : x + SPOT]
        share = {tissue: weight[box] for tissue, weight in weights.items()}
        names.append(f"{row:03d}x{column:03d}")
        counts.append(expression.counts(rng, share, len(np.unique(piece.nuclei[box])) - 1))
        if sum(w.mean() for w in share.values()) >= LEAST:
            patches.append(picture[box])
            coords.append((x, y))
            kept.append(names[-1])
    _write_patches(root / "patches" / f"{sample}.h5", np.stack(patches), np.array(coords), kept)
    order = rng.permutation(len(names))
    _write_h5ad(root / "adata" / f"{sample}.h5ad", np.array(counts)[order], [names[i] for i in order])


def _write_patches(path: Path, patches: np.ndarray, coords: np.ndarray, barcodes: list[str]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("img", data=patches, chunks=(1, *patches.shape[1:]))
        file["coords"] = coords
        file.create_dataset("barcode", data=np.array(barcodes, object)[:, None], dtype=h5py.string_dtype())


def _write_h5ad(path: Path, counts: np.ndarray, barcodes: list[str]) -> None:
    """Counts (n, genes) as AnnData writes them, which is HDF5 with names for its parts; anndata need not be here."""
    import h5py

    def mark(part: h5py.Group | h5py.Dataset, kind: str, version: str) -> h5py.Group | h5py.Dataset:
        part.attrs["encoding-type"], part.attrs["encoding-version"] = kind, version
        return part

    with h5py.File(path, "w") as file:
        mark(file, "anndata", "0.1.0")
        mark(file.create_dataset("X", data=counts.astype(np.float32)), "array", "0.2.0")
        for name, index in (("obs", barcodes), ("var", [f"gene_{g:02d}" for g in range(GENES)])):
            frame = mark(file.create_group(name), "dataframe", "0.2.0")
            frame.attrs["_index"] = "_index"
            frame.attrs.create("column-order", np.array([], object), dtype=h5py.string_dtype())
            words = frame.create_dataset("_index", data=np.array(index, object), dtype=h5py.string_dtype())
            mark(words, "string-array", "0.2.0")
