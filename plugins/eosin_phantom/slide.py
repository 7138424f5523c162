"""A small whole slide: a section on glass, in regions of several tissues, as a pyramidal tiled TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .field import Field, field
from .parts import Patient
from .shapes import noise, step

TISSUES = {
    "tumour": ("tumour", "stroma", "necrosis", "lymphocytes"),
    "normal": ("gland", "stroma", "fat", "lymphocytes"),
}
"""What a slide of each label shows, the tissue that decides it first."""


def section(rng: np.random.Generator, label: str, patient: Patient, size: int) -> Field:
    """A section (size, size) px at 0.5 um per px, with bare glass about it."""
    return field(rng, layout(rng, label, size), patient)


def layout(rng: np.random.Generator, label: str, size: int) -> dict[str, np.ndarray]:
    """Where a section has which tissue: the share (size, size) of every pixel; what is left is bare glass."""
    from scipy.ndimage import gaussian_filter

    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    outline = np.hypot(1.05 * x, 1.15 * y) + 0.04 * _slow(rng, size) + 0.012 * noise(rng, (size, size), 24.0)
    inside = 1.0 - step(outline, 0.42, 0.424)
    rank = np.stack([_slow(rng, size) + 0.1 * noise(rng, (size, size), 12.0) for _ in TISSUES[label]])
    rank[0] += 0.6  # the tissue that gives the slide its label has the most room
    first = rank.argmax(axis=0)
    return {
        tissue: inside * gaussian_filter((first == row).astype(float), 1.2) for row, tissue in enumerate(TISSUES[label])
    }


def _slow(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise (size, size) over features of a tenth of its side, zero mean over the whole."""
    from scipy.ndimage import zoom

    coarse = noise(rng, (128, 128), 12.0)
    sheet = zoom(coarse - coarse.mean(), size / 128, order=1, mode="nearest", grid_mode=True)
    return sheet[:size, :size]


def write_tiff(path: Path, picture: np.ndarray, mpp: float, tile: int = 256) -> None:
    """Write (h, w, 3) uint8 as a tiled TIFF, halved until it fits one tile, its scale in the resolution tags.

    OpenSlide reads it as `generic-tiff` and gives `openslide.mpp-x`. Nothing is compressed: bytes depend on no codec.
    """
    import tifffile

    with tifffile.TiffWriter(path) as file:
        level = 0
        while True:
            per_cm = 1e4 / (mpp * 2**level)
            file.write(
                picture,
                photometric="rgb",
                tile=(tile, tile),
                subfiletype=min(level, 1),  # 1: a reduced copy of the first image
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software="eosin phantom",
                metadata=None,
            )
            if max(picture.shape[:2]) <= tile:
                return
            picture, level = _halved(picture), level + 1


def _halved(picture: np.ndarray) -> np.ndarray:
    """Half the size, each pixel the mean of four, in whole numbers."""
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    four = picture[:height, :width].astype(np.uint16).reshape(height // 2, 2, width // 2, 2, 3)
    return ((four.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)
