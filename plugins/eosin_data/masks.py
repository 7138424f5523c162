"""From annotated pixels to labelled tiles: votes, majorities, ties, cover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eosin.errors import DataError
from eosin.pixels import opened

NONE = 255  # a pixel that nobody labelled


def read_mask(path: Path, allowed: Sequence[int]) -> np.ndarray:
    """A mask (h, w) uint8 of indices, grey or palette: the number of a colour, not the colour.

    Raises:
        DataError: naming the file, when it cannot be read, has colours, or holds a value that is not allowed.
    """
    try:
        with opened(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:  # a damaged file may make a decoder raise anything
        raise DataError(f"{path} cannot be read ({error}). Copy or download it again.") from error
    if mode not in ("L", "P", "1"):
        raise DataError(f"{path} is a {mode} image, not a mask of one number a pixel. Download the original mask.")
    wrong = set(np.flatnonzero(np.bincount(pixels.astype(np.uint8).ravel(), minlength=256)).tolist()) - set(allowed)
    if wrong:
        raise DataError(
            f"{path} holds the values {', '.join(map(str, sorted(wrong)[:5]))}; a mask has {', '.join(map(str, allowed))} only. "
            "It was resized or encoded anew: download the original."
        )
    return pixels.astype(np.uint8)


def mark_of(path: Path) -> tuple[int, int]:
    """When a file was changed and its size: what a mask that is kept in memory was made of. DataError when it is gone."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Copy it there again.") from error
    return stat.st_mtime_ns, stat.st_size


def vote(maps: Sequence[np.ndarray], n_classes: int, ties: str = "drop") -> np.ndarray:
    """The class that most maps give each pixel.

    Args:
        maps: (h, w) uint8 each: 0 .. n_classes - 1, or NONE for a map that has no vote there.
        ties: drop (the pixel is NONE), or worst: the highest of the tied classes.
    """
    best = np.zeros(maps[0].shape, np.uint8)
    winner = np.full(maps[0].shape, NONE, np.uint8)
    for c in range(n_classes):
        votes = np.zeros_like(best)
        for drawn in maps:
            votes += drawn == c
        wins, equal = votes > best, (votes == best) & (votes > 0)
        winner[wins] = c
        winner[equal] = NONE if ties == "drop" else c
        np.maximum(best, votes, out=best)
    return winner


def cell_counts(pixels: np.ndarray, patch: int, n_classes: int) -> np.ndarray:
    """(rows, columns, n_classes) int64: how many pixels of each class every whole patch x patch cell holds."""
    ny, nx = pixels.shape[0] // patch, pixels.shape[1] // patch
    counts = np.empty((ny, nx, n_classes), np.int64)
    for y in range(ny):
        band = pixels[y * patch : (y + 1) * patch, : nx * patch]
        for c in range(n_classes):
            counts[y, :, c] = (band == c).reshape(patch, nx, patch).sum((0, 2))
    return counts


def cell_labels(
    counts: np.ndarray, patch: int, cover: float, ties: str, rank: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The class with most pixels of every cell, and where it was tied.

    Args:
        counts: (..., n_classes) pixels.
        cover: the least share of the cell that must be labelled.
        ties: worst (the class that stands last in `rank`) or drop.
        rank: the classes, from mildest to worst.

    Returns:
        labels (...) int64, -1 for a cell that is not used, and tied (...) bool among the covered cells.
    """
    ranked = counts[..., list(rank)]
    top = ranked.max(-1)
    last = ranked.shape[-1] - 1 - ranked[..., ::-1].argmax(-1)  # of equal counts the last in rank
    covered = (counts.sum(-1) >= cover * patch * patch) & (top > 0)
    tied = covered & ((ranked == top[..., None]).sum(-1) > 1)
    used = covered if ties == "worst" else covered & ~tied
    return np.where(used, np.asarray(rank)[last], -1), tied
