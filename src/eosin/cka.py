"""Linear CKA: how alike two models see the same tiles, from sums that a stream of blocks can fill."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import blocks, matched, unit
from .errors import DataError

BLOCK = 2048  # rows at a time: fewer additions to the (d + e, d + e) sums


class CKA:
    """Linear CKA of rows that come in blocks: O(n d^2) time, O(d^2) memory, float64 sums. See `cka`."""

    def __init__(self, normalize: bool = False) -> None:
        self.normalize = normalize
        self.seen, self.width = 0, (0, 0)

    def add(self, X: Any, Y: Any) -> None:
        """Take in matched rows X (n, d) and Y (n, e); d and e are those of the first block."""
        X, Y = matched(X, Y, ("X", "Y"))
        if self.seen and (X.shape[1], Y.shape[1]) != self.width:
            raise DataError(
                f"This block is {X.shape[1]} and {Y.shape[1]} wide, those before {self.width}. Check the models."
            )
        for rows in blocks(len(X), BLOCK):
            x, y = X[rows].astype(np.float64), Y[rows].astype(np.float64)
            if self.normalize:
                x, y = unit(x, "X", rows.start), unit(y, "Y", rows.start)
            if not self.seen:
                self.origin, self.width = (x[0].copy(), y[0].copy()), (x.shape[1], y.shape[1])
                self.sums = np.zeros((sum(self.width) + 3,) * 2)
            x, y = x - self.origin[0], y - self.origin[1]  # CKA does not see a shift; the sums lose fewer digits
            squares = [(v * v).sum(1) for v in (x, y)]
            Z = np.column_stack([x, y, *squares, np.ones(len(x))])
            self.sums += Z.T @ Z  # every moment that either form asks for, in one product
            self.seen += len(x)

    def value(self, debiased: bool = False) -> float:
        """The CKA of all rows so far."""
        if not self.seen:
            raise DataError("CKA of no rows. Add a block first.")
        d, e = self.width
        span = {"x": slice(0, d), "y": slice(d, d + e)}
        square = {"x": -3, "y": -2}

        def hsic(a: str, b: str) -> float:
            G, n, rr = self.sums[span[a], span[b]], self.seen, self.sums[square[a], square[b]]
            sa, sb = self.sums[span[a], -1], self.sums[span[b], -1]
            if not debiased:
                return float(((G - np.outer(sa, sb) / n) ** 2).sum())
            across = self.sums[span[a], square[b]] @ sa + self.sums[span[b], square[a]] @ sb
            alone = [s @ s - self.sums[square[v], -1] for v, s in ((a, sa), (b, sb))]
            return _song((G**2).sum() - rr, alone[0] * alone[1], sa @ G @ sb - across + rr, n)

        return _ratio(hsic("x", "y"), hsic("x", "x"), hsic("y", "y"))


def cka(X: Any, Y: Any, debiased: bool = False, normalize: bool = False) -> float:
    """Linear centred kernel alignment of two models on the same tiles (Kornblith et al. 2019).

    Biased, as published: |Xc'Yc|^2 / (|Xc'Xc| |Yc'Yc|), Frobenius norms, columns centred. It grows as n falls
    towards d, even for unrelated features: report n, and the debiased value beside it.

    Args:
        X: (n, d); Y: (n, e): row i of both is the same tile.
        debiased: with the unbiased HSIC of Song et al. 2012, equation 5; about 0 for unrelated features.
        normalize: rows to length one first.

    Returns:
        The value; nan where it is 0 / 0: all rows of one set are equal, or a debiased self-HSIC is not positive.

    Raises:
        DataError: rows with NaN or Inf, or zero rows to normalize; lengths that differ; fewer than 4 rows to debias.
    """
    X, Y = matched(X, Y, ("X", "Y"))
    n, d, e = len(X), X.shape[1], Y.shape[1]
    if n * (d + e) > d * d + d * e + e * e:  # d x d sums are the smaller
        sums = CKA(normalize)
        sums.add(X, Y)
        return sums.value(debiased)
    K, L = _gram(X, "X", normalize, debiased), _gram(Y, "Y", normalize, debiased)

    def hsic(P: np.ndarray, Q: np.ndarray) -> float:
        product = float(np.einsum("ij,ij->", P, Q))
        return _song(product, P.sum() * Q.sum(), P.sum(0) @ Q.sum(0), n) if debiased else product

    return _ratio(hsic(K, L), hsic(K, K), hsic(L, L))


def _gram(X: np.ndarray, name: str, normalize: bool, debiased: bool) -> np.ndarray:
    """(n, n) inner products: with a zero diagonal to debias, else doubly centred."""
    X = unit(X, name) if normalize else X.astype(np.float64)
    X -= X[0].copy()
    K = X @ X.T
    if debiased:
        np.fill_diagonal(K, 0)
        return K
    return K - K.mean(0) - K.mean(0)[:, None] + K.mean()


def _song(trace: float, sums: float, across: float, n: int) -> float:
    """Unbiased HSIC from tr(KL), (1'K1)(1'L1) and 1'KL1 of kernels with zero diagonals."""
    if n < 4:
        raise DataError(f"Debiased CKA needs 4 rows and there are {n}. Give more, or debiased=False.")
    return float(trace + sums / ((n - 1) * (n - 2)) - 2 * across / (n - 2)) / (n * (n - 3))


def _ratio(xy: float, xx: float, yy: float) -> float:
    return float(xy / np.sqrt(xx * yy)) if xx > 0 and yy > 0 else float("nan")
