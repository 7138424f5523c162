"""Tiny pyramids that OpenSlide opens, and files of coordinates as other tools write them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import tifffile

PINK, GLASS = (200, 90, 150), (244, 243, 245)


def tissue(width: int = 256, height: int = 192, box: tuple[int, int, int, int] = (64, 32, 128, 96), seed: int = 0):
    """(height, width, 3) uint8: noisy glass with one noisy piece of tissue at box x, y, w, h."""
    rng = np.random.default_rng(seed)
    picture = np.empty((height, width, 3), int)
    picture[:] = GLASS
    x, y, w, h = box
    picture[y : y + h, x : x + w] = PINK
    return (picture + rng.integers(-6, 7, picture.shape)).clip(0, 255).astype(np.uint8)


def pyramid(path: Path, levels, mpp: float | None = 0.5, mpp_y: float | None = None) -> Path:
    """A tiled TIFF of these pictures, finest first, that says its mpp; of one picture also its half and its quarter."""
    if isinstance(levels, np.ndarray):
        levels = [np.ascontiguousarray(levels[::k, ::k]) for k in (1, 2, 4)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for i, level in enumerate(levels):
            down = levels[0].shape[1] / level.shape[1]
            scale = (
                {}
                if mpp is None
                else {"resolution": (1e4 / (mpp * down), 1e4 / ((mpp_y or mpp) * down)), "resolutionunit": 3}
            )
            file.write(level, photometric="rgb", tile=(32, 32), subfiletype=min(i, 1), metadata=None, **scale)
    return path


def coordinates(
    path: Path, xy, key: str = "coords", attrs: dict | None = None, file_attrs: dict | None = None, **sets
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = np.asarray(xy)
        file[key].attrs.update(attrs or {})
        file.attrs.update(file_attrs or {})
        for name, value in sets.items():
            file[name] = value
    return path
