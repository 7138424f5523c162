"""A field of tissue: the ground of one or several tissues, joined, and the nuclei laid over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .parts import Patient
from .shapes import NUCLEUS, noise, ovals, within
from .tissue import PAINTERS


@dataclass(frozen=True)
class Field:
    """A field before any stain: haematoxylin and eosin (2, h, w) float64; nuclei (h, w) int32: 1..n, 0 is none."""

    dyes: np.ndarray
    nuclei: np.ndarray

    @property
    def count(self) -> int:
        """How many nuclei the field shows."""
        return int(self.nuclei.max())


def field(rng: np.random.Generator, weights: Mapping[str, np.ndarray], patient: Patient) -> Field:
    """Paint one field: `weights` gives for each tissue its share (h, w) of every pixel; what is left is bare glass."""
    dyes = np.zeros((2, *next(iter(weights.values())).shape))
    tables = [np.zeros(0, NUCLEUS)]
    for tissue, weight in weights.items():
        if not weight.any():
            continue
        rows, columns = _bounds(weight)
        weight = weight[rows, columns]
        ground, table = PAINTERS[tissue](rng, weight.shape, patient)
        dyes[:, rows, columns] += weight * ground
        table = within(table, weight >= 0.5)
        table["x"] += columns.start
        table["y"] += rows.start
        tables.append(table)
    return _with_nuclei(rng, dyes, np.concatenate(tables))


def mixture(
    rng: np.random.Generator, tissue: str, size: int, among: Iterable[str] = tuple(PAINTERS)
) -> dict[str, np.ndarray]:
    """Weights (size, size) of a tile of one tissue: it fills most of the tile, and all of it in half of them.

    In the others another tissue, of `among`, reaches in from one side, or the section ends and there is bare glass.
    """
    whole = np.ones((size, size))
    if rng.uniform() < 0.5:
        return {tissue: whole}
    turn = rng.uniform(0.0, 2 * np.pi)
    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    edge = np.cos(turn) * x + np.sin(turn) * y + 0.05 * noise(rng, (size, size), 12.0)
    share = np.clip((edge - rng.uniform(0.05, 0.35)) * size / 3.0, 0.0, 1.0)
    other = str(rng.choice([name for name in among if name != tissue]))
    return {tissue: whole - share} if rng.uniform() < 0.4 else {tissue: whole - share, other: share}


def _bounds(weight: np.ndarray) -> tuple[slice, slice]:
    """The smallest box that holds all pixels with some weight."""
    rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _with_nuclei(rng: np.random.Generator, dyes: np.ndarray, table: np.ndarray) -> Field:
    """Lay the nuclei over the ground, in place: outline, rim, chromatin, nucleolus."""
    from scipy.ndimage import binary_dilation

    shape = dyes.shape[1:]
    clumps = noise(rng, shape, 1.2)
    depth, second, owner = ovals(shape, table, noise(rng, shape, 4.0))
    mask = _instances(np.where(depth > 0.0, owner + 1, 0))
    edge = np.clip(depth + 0.6, 0.0, 1.0) * binary_dilation(mask > 0)
    y, x = np.nonzero(edge)
    edge, cell = edge[y, x], table[owner[y, x]]
    rim = np.clip(depth[y, x] / 3.0, 0.0, 1.0)
    seam = np.clip(1.2 - depth[y, x] + second[y, x], 0.0, 1.0)  # where two nuclei touch, a paler line
    dark = cell["dark"] * (1.0 - cell["clear"] * rim - 0.25 * seam + 0.6 * cell["grain"] * clumps[y, x])
    off = (x - cell["x"] - 0.2 * cell["b"]) ** 2 + (y - cell["y"] + 0.15 * cell["b"]) ** 2
    dark += cell["nucleolus"] * np.clip(1.0 - off / 7.0, 0.0, 1.0)
    inked = np.stack([np.maximum(dark, 0.1), np.full(len(dark), 0.35)])
    dyes[:, y, x] += edge * (inked - dyes[:, y, x])
    return Field(dyes, mask)


def _instances(owner: np.ndarray, least: int = 12) -> np.ndarray:
    """Number the nuclei of `owner` (h, w; 0 is none) 1..n: of each its largest connected piece, from `least` px on."""
    from scipy.ndimage import label

    # Twice as fine, with bridges between neighbours of one owner only: nuclei that touch stay two.
    height, width = owner.shape
    fine = np.zeros((2 * height - 1, 2 * width - 1), bool)
    fine[::2, ::2] = owner > 0
    fine[1::2, ::2] = (owner[1:] == owner[:-1]) & (owner[1:] > 0)
    fine[::2, 1::2] = (owner[:, 1:] == owner[:, :-1]) & (owner[:, 1:] > 0)
    pieces = label(fine)[0][::2, ::2]
    ids, first, area = np.unique(pieces, return_index=True, return_counts=True)
    whose = owner.ravel()[first]
    largest = {whose[i]: ids[i] for i in np.argsort(area, kind="stable") if whose[i] and area[i] >= least}
    number = np.zeros(ids[-1] + 1, np.int32)
    number[sorted(largest.values())] = np.arange(1, len(largest) + 1)
    return number[pieces]
