"""Exact principal axes of the training rows of every fold, for about the price of one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from eosin.arrays import blocks
from eosin.logistic import principal_axes

ROWS = 8192  # rows at a time

Moments = tuple[int, np.ndarray, np.ndarray]  # rows, their sum (d,), their XᵀX (d, d)


class FoldPCA:
    """Sums over the rows of each fold are kept; a fold's training rows are all sums less its own.

    Args:
        X: (n, d) float32. More columns than rows are first replaced by coordinates in the space that the rows span,
            which changes no distance.
        fold: (n,) the test fold of each row.
        known: the folds that may train.
    """

    def __init__(self, X: np.ndarray, fold: np.ndarray, known: np.ndarray) -> None:
        if X.shape[0] < X.shape[1]:
            X = np.linalg.qr((X - X.mean(0, dtype=np.float64)).T, mode="r").T
        self.centre = X.mean(0, dtype=np.float64).astype(X.dtype)
        self.X, self.fold = X, fold
        self.sums = {k: self._moments(fold == k) for k in known}

    def project(self, folds: Iterable[int], n_components: int) -> np.ndarray:
        """All rows (n, c) on the first axes of the rows of these folds; c <= n_components, d and training rows - 1."""
        count, total, square = 0, 0.0, 0.0
        for k in folds:
            n, s, g = self.sums[k]
            count, total, square = count + n, total + s, square + g
        mean = total / count
        n = max(1, min(n_components, count - 1, len(mean)))
        axes = principal_axes(square / count - np.outer(mean, mean), n).astype(self.X.dtype)
        origin = (mean @ axes).astype(self.X.dtype)  # the training rows' mean: cosines are seen from there
        return np.concatenate([(self.X[b] - self.centre) @ axes - origin for b in blocks(len(self.X), ROWS)])

    def _moments(self, rows: np.ndarray) -> Moments:
        """Of the rows less the centre of all, so that a far origin costs no digits."""
        at, d = np.flatnonzero(rows), self.X.shape[1]
        total, square = np.zeros(d), np.zeros((d, d))
        for b in blocks(len(at), ROWS):
            x = (self.X[at[b]] - self.centre).astype(np.float64)
            total += x.sum(0)
            square += x.T @ x
        return len(at), total, square
