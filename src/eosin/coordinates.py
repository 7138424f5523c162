"""Files of tile positions, one HDF5 file a slide: ours (docs/tiling.md), TRIDENT's and CLAM's, and the sampler's that G2L cites."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import own_bytes, sound_heaps
from .errors import DataError, StoreError
from .files import publish

if TYPE_CHECKING:
    from .slides import Slide

TYPE, VERSION = "eosin-coordinates", 1


@dataclass
class Coordinates:
    """Where the tiles of one slide lie.

    Attributes:
        xy: (n, 2) int64, upper left corners in level-0 pixels. edge: a tile's edge in such pixels; 0 where `about` gives
            it in pixels of another level. px: its edge as read. mpp: um per pixel as read, nan where unknown.
        share: (n,) share of tissue; empty where unknown. about: how they were made; of ours, `fingerprint` of the slide.
    """

    xy: np.ndarray
    edge: int
    px: int
    mpp: float = float("nan")
    share: np.ndarray = field(default_factory=lambda: np.empty(0))
    about: dict[str, Any] = field(default_factory=dict)


def write(path: Path, found: Coordinates, slide: Slide) -> None:
    """Write the positions on a slide, whole or not at all. TRIDENT's tools read the file too: `coords` has its attributes.

    Raises:
        StoreError: the folder cannot be written.
    """
    import h5py

    step = found.about.get("step", found.edge)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        coords = file.create_dataset("coords", data=found.xy.astype(np.int64))
        coords.attrs.update(
            {
                "patch_size": found.px,
                "patch_size_level0": found.edge,
                "overlap": max(0, round((found.edge - step) * found.px / found.edge)),
                "level0_magnification": 10 / slide.mpp,
                "target_magnification": 10 / found.mpp,
                "level0_width": slide.width,
                "level0_height": slide.height,
                "name": slide.path.stem,
            }
        )
        if len(found.share) == len(found.xy):
            file["share"] = found.share.astype(np.float32)
        file.attrs.update(
            {
                "encoding-type": TYPE,
                "encoding-version": VERSION,
                "slide": slide.path.name,
                "fingerprint": slide.fingerprint,
                "slide_mpp": slide.mpp,
                "mpp": found.mpp,
                "about": json.dumps(found.about, sort_keys=True),
            }
        )
    try:
        publish(path, buffer.getbuffer())
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror}. Name another --out with space.") from error


def read(path: Path) -> Coordinates:
    """Positions from a file of ours, TRIDENT, CLAM (`coords`) or the sampler (`tile_coords`), all level-0 upper left corners.

    The tile's size is what the file says, never a default: `patch_size_level0`; or `patch_size` with `patch_level`
    (CLAM); or `tile_size` (the sampler, level-0 pixels), as an attribute or a dataset.

    Raises:
        DataError: the file is damaged, holds no positions, or does not say how large a tile is.
    """
    import h5py

    try:
        sound_heaps(path)  # attributes are text too
        with h5py.File(path, "r") as file:
            key = next((k for k in ("tile_coords", "coords") if k in file), None)
            if key is None:
                raise DataError(f"{path} holds {', '.join(file) or 'nothing'}, neither `coords` nor `tile_coords`.")
            xy = np.asarray(own_bytes(file[key], path)).astype(np.int64)
            said = {k: file[k][()] for k in file if getattr(file[k], "shape", None) in ((), (1,))}
            said |= {**dict(file.attrs), **dict(file[key].attrs)}
            share = np.asarray(own_bytes(file["share"], path)) if "share" in file else np.empty(0)
        about = json.loads(said["about"]) if said.get("encoding-type") == TYPE else {}
        mpp = float(said.get("mpp", np.nan))
    except DataError:
        raise
    except Exception as error:  # of a damaged file HDF5 and what decodes it raise anything
        raise DataError(f"{path} cannot be read ({error}). Copy it again, or make it again.") from error
    xy = xy.reshape(-1, 2) if not xy.size else xy
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise DataError(f"{path}: {key} has shape {xy.shape}, not (n, 2): x and y at level 0.")
    edge, px, level = (_whole(said, n) for n in ("patch_size_level0", "patch_size", "patch_level"))
    if key == "tile_coords" or not (edge or px):
        edge = px = _whole(said, "tile_size") or edge
    if not edge and (px is None or level is None):
        raise DataError(
            f"{path} does not say how large a tile is at level 0: it needs the attribute patch_size_level0 (TRIDENT), "
            "patch_size with patch_level (CLAM) or tile_size (the sampler)."
        )
    about = about or {"patch_level": level}
    about |= {k: str(said[k]) for k in ("fingerprint", "slide") if k in said}
    return Coordinates(xy, edge or 0, px or edge or 0, mpp, share, about)


def find(folder: Path, stem: str) -> Coordinates:
    """The positions of one slide from a folder: `<stem>.h5` or TRIDENT's `<stem>_patches.h5`, there or in `patches/`.

    Upper and lower case count as equal: GDC spells the same UUID both ways.
    """
    names = {f"{stem}.h5".lower(), f"{stem}_patches.h5".lower()}
    for place in (folder, folder / "patches"):
        if place.is_dir():
            for path in sorted(place.iterdir()):
                if path.name.lower() in names:
                    return read(path)
    raise DataError(
        f"{folder} has no coordinates of this slide ({stem}.h5 or {stem}_patches.h5). Make them: bench tile"
    )


def _whole(said: dict[str, Any], name: str) -> int | None:
    """A size that the file gives, as a number or a pair of equal ones."""
    if name not in said:
        return None
    values = np.atleast_1d(np.asarray(said[name], float)).ravel()
    return int(values[0]) if len(set(values.tolist())) == 1 and values[0] >= 0 else None
