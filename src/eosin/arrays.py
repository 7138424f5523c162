"""What every sum asks of its input: arrays of one type, equal lengths, finite rows, unit rows. Bad rows are named.
And what every reader asks of a file of arrays: that its bytes are its own, and as many as it says."""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError

BLOCK = 1024  # rows at a time, where a whole would not fit
INFLATION, SLACK = (
    100,
    64 * 2**20,
)  # how many times its size a compressed file of arrays may hold, and bytes beside that


def array(x: Any) -> np.ndarray:
    """A numpy array of a numpy array, a list, or a torch tensor on any device (bfloat16 becomes float32)."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    return np.asarray(x)


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover range(n) in order."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def refuse(rows: np.ndarray, problem: str, step: str) -> None:
    """DataError naming the rows (a mask, or row numbers) that have the problem, if there are any."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    if len(rows):
        more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
        raise DataError(f"{problem} in rows {', '.join(map(str, rows[:10]))}{more}. {step}")


def rows_of(values: Any, name: str, finite: bool = False) -> np.ndarray:
    """An array of at least one row; DataError naming rows with NaN (`finite`: or Inf)."""
    values = array(values)
    if not values.ndim or not len(values):
        raise DataError(f"{name} has no rows. Score at least one tile.")
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values) if finite else np.isnan(values)
        refuse(
            bad.reshape(len(values), -1).any(1), f"{name} has NaN" + " or Inf" * finite, "Find where they come from."
        )
    return values


def matrix(X: Any, name: str) -> np.ndarray:
    """(n, d) finite numbers, else DataError naming the rows."""
    X = array(X)
    if X.ndim != 2 or X.size == 0:
        raise DataError(f"{name} has shape {X.shape}; embeddings are (n, d). Give one row per tile.")
    bad = [np.flatnonzero(~np.isfinite(X[rows]).all(1)) + rows.start for rows in blocks(len(X))]
    refuse(np.concatenate(bad), f"{name} has NaN or Inf", "Embed these tiles again, in float32.")
    return X


def matched(X: Any, Y: Any, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices whose rows belong together, else DataError."""
    X, Y = matrix(X, names[0]), matrix(Y, names[1])
    if len(X) != len(Y):
        raise DataError(f"{names[0]} has {len(X)} rows and {names[1]} {len(Y)}. Row i of both must be the same tile.")
    return X, Y


def unit(X: np.ndarray, name: str, start: int = 0) -> np.ndarray:
    """The rows of X (n, d) at length one, in float64; DataError naming zero rows (the first row is row `start`)."""
    X = X.astype(np.float64)
    peak = np.maximum(X.max(1), -X.min(1))  # dividing by it first keeps the squares of huge and tiny rows in range
    refuse(np.flatnonzero(peak == 0) + start, f"{name} is all zeros, which has no direction,", "Embed them again.")
    X /= peak[:, None]
    X /= np.sqrt(np.einsum("ij,ij->i", X, X))[:, None]
    return X


def codes(values: Any, name: str, n: int) -> np.ndarray:
    """(n,) whole numbers, equal where the values are equal; DataError unless there is one value a row."""
    values = array(values)
    if values.shape != (n,):
        raise DataError(f"{name} has shape {values.shape} for {n} rows. Give one {name} a row.")
    return np.unique(values, return_inverse=True)[1]


def plausible(path: Path, claimed: int) -> None:
    """ValueError where a file claims to hold so many bytes more than it has that reading it would only exhaust memory."""
    size = path.stat().st_size
    if claimed > SLACK + INFLATION * size:
        raise ValueError(f"it has {size:,} bytes and claims to hold {claimed:,}")


def own_bytes(dataset: Any, path: Path) -> Any:
    """An open HDF5 dataset whose bytes lie in its own file and may be as many as it says; ValueError for another."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} takes its bytes from another file")
    plausible(path, dataset.nbytes)
    if dataset.dtype.kind == "O":
        sound_heaps(path)
    return dataset


def sound_heaps(path: Path) -> None:
    """ValueError where an HDF5 file's heaps of text of variable length do not add up: the library would read for ever.

    A heap is `GCOL`, its version, its size, and objects of 16 bytes and their padded content (HDF5 file format, III.E).
    """
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = -1
        while (start := content.find(b"GCOL\1\0\0\0", start + 1)) >= 0:
            at, end = start + 16, start + int.from_bytes(content[start + 8 : start + 16], "little")
            while at + 16 <= end:
                index, size = (int.from_bytes(content[at + a : at + b], "little") for a, b in ((0, 2), (8, 16)))
                at += 16 + -(-size // 8) * 8 if index else size
                if at > min(end, len(content)) or size < (0 if index else 16):
                    raise ValueError(f"the text in it is damaged at byte {start}")


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """The plain arrays of an npz file, each read only after its header was held against the size of its member."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an npz file, whatever its name says")
    found = {}
    with np.load(path, allow_pickle=False) as file:
        members = file.zip.infolist()
        plausible(path, sum(m.file_size for m in members))
        for member in members:
            with file.zip.open(member) as handle:
                version = np.lib.format.read_magic(handle)
                head = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = head[version](handle)
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds Python objects: save text as array.astype(str)")
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} has {member.file_size:,} bytes, too few for {shape} of {dtype}")
            name = member.filename.removesuffix(".npy")
            found[name] = file[name]
    return found
