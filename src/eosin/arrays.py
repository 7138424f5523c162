"""What every sum asks of its input: arrays of one type, equal lengths, finite rows, unit rows. Bad rows are named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import DataError

BLOCK = 1024  # rows at a time, where a whole would not fit


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
