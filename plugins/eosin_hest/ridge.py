"""Ridge on principal components, for many training sets of the same rows: what these share is summed once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HELD = 2**30  # bytes of sums that are kept; with more blocks than that, each training set is summed from its rows
CHUNK = 8192  # rows at a time in float64


@dataclass
class Basis:
    """The principal directions of a training set, and how its targets lie along them.

    Attributes:
        mean, inverse: (d,) what is taken off a row, and what the rest is multiplied with.
        V: (d, k) directions. power: (k,) sums of squares along them. B: (k, g) = V'Z'Y. level: (g,) of the predictions.
        k: the components that were possible.
    """

    mean: np.ndarray
    inverse: np.ndarray
    V: np.ndarray
    power: np.ndarray
    B: np.ndarray
    level: np.ndarray
    k: int

    def along(self, X: np.ndarray) -> np.ndarray:
        """(n, k) coordinates of rows (n, d)."""
        V = self.inverse[:, None] * self.V
        return X @ V - self.mean @ V

    def coefficients(self, alpha: float) -> np.ndarray:
        """(k, g): the directions are orthogonal, so ridge along them is a division."""
        return self.B / (self.power + alpha)[:, None]

    def predict(self, X: np.ndarray, alpha: float) -> np.ndarray:
        """(n, g) for rows (n, d)."""
        W = self.inverse[:, None] * (self.V @ self.coefficients(alpha))
        return X @ W - self.mean @ W + self.level


class Training:
    """The rows that training sets are drawn from.

    Args:
        X: (n, d); Y: (n, g). block: (n,) whole numbers; a training set that is made of whole blocks costs the sum of
            their sums, each of which is made once. By default all rows are one block.
    """

    def __init__(self, X: np.ndarray, Y: np.ndarray, block: np.ndarray | None = None) -> None:
        self.X, self.Y = X, Y.astype(np.float64)
        self.shift, self.y_shift = X[:CHUNK].mean(0, dtype=np.float64), self.Y.mean(0)
        self.block = np.unique(np.zeros(len(X)) if block is None else block, return_inverse=True)[1]
        self.held: dict[int, tuple[np.ndarray, ...]] = {}

    def basis(self, rows: np.ndarray, n_components: int, intercept: bool = False) -> Basis:
        """Of the training rows `rows`, one decomposition for all targets and penalties.

        Args:
            n_components: of the PCA of the standardised rows; 0: all directions of the rows as they are.
            intercept: predictions are at the level of the targets; rows as they are get centred.
        """
        wide = self.X.shape[1] > len(rows)
        k = min(n_components or self.X.shape[1], self.X.shape[1], len(rows))
        found = (self._from_rows if wide else self._from_sums)(rows, k, bool(n_components), intercept)
        if not intercept:
            found.level = np.zeros_like(found.level)
        return found

    def _from_rows(self, rows: np.ndarray, k: int, scaled: bool, intercept: bool) -> Basis:
        """With fewer rows than dimensions the rows' products with each other are the smaller matrix."""
        Z, Y = self.X[rows].astype(np.float64), self.Y[rows]
        mean, level, inverse = np.zeros(Z.shape[1]), Y.mean(0), np.ones(Z.shape[1])
        if scaled or intercept:
            mean, Y = Z.mean(0), np.where(np.ptp(Y, 0) > 0, Y - level, 0)
            Z -= mean
        if scaled:
            inverse = _inverse(Z.std(0), np.ptp(Z, 0) > 0)
            Z *= inverse
        power, U = _largest(Z @ Z.T, k, Z.shape)
        V = Z.T @ (U / np.sqrt(power))
        return Basis(mean, inverse, V, power, V.T @ (Z.T @ Y), level, k)

    def _from_sums(self, rows: np.ndarray, k: int, scaled: bool, intercept: bool) -> Basis:
        n = len(rows)
        x, y, xx, xy, low, high = self._sums(rows)
        mean, level, inverse = x / n, y / n, np.ones(len(x))
        G, C = xx - n * np.outer(mean, mean), xy - n * np.outer(mean, level)
        mean, level = mean + self.shift, level + self.y_shift
        varies = high > low
        if scaled or intercept:
            C[:, ~varies[len(x) :]] = 0  # centred rows do not see the level of a gene; a constant gene predicts 0
        else:
            G, C, mean = G + n * np.outer(mean, mean), C + n * np.outer(mean, level), np.zeros(len(x))
        if scaled:
            inverse = _inverse(np.sqrt(np.maximum(G.diagonal(), 0) / n), varies[: len(x)])
            G *= inverse
            G *= inverse[:, None]
        power, V = _largest(G, k, (n, len(x)))
        return Basis(mean, inverse, V, power, V.T @ (inverse[:, None] * C), level, k)

    def _sums(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sums of x, y, xx', xy' about the shifts, and the least and the largest of each column of X and Y."""
        blocks, counts = np.unique(self.block[rows], return_counts=True)
        sizes = np.bincount(self.block)
        if (counts < sizes[blocks]).any() or 8 * len(sizes) * self.X.shape[1] ** 2 > HELD:
            return self._sum(rows)
        for b in blocks.tolist():
            if b not in self.held:
                self.held[b] = self._sum(np.flatnonzero(self.block == b))
        *sums, low, high = zip(*(self.held[b] for b in blocks.tolist()), strict=True)
        return (*(sum(s[1:], s[0]) for s in sums), np.minimum.reduce(low), np.maximum.reduce(high))

    def _sum(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        d, g = self.X.shape[1], self.Y.shape[1]
        sums = [np.zeros(d), np.zeros(g), np.zeros((d, d)), np.zeros((d, g))]
        low, high = np.full(d + g, np.inf), np.full(d + g, -np.inf)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            X, Y = self.X[part], self.Y[part]
            low = np.minimum(low, np.concatenate([X.min(0), Y.min(0)]))
            high = np.maximum(high, np.concatenate([X.max(0), Y.max(0)]))
            X, Y = X - self.shift, Y - self.y_shift
            for total, more in zip(sums, (X.sum(0), Y.sum(0), X.T @ X, X.T @ Y), strict=True):
                total += more
        return (*sums, low, high)


def ridge(
    X: np.ndarray, Y: np.ndarray, X_test: np.ndarray, n_components: int = 256, alpha: float | None = None
) -> tuple[np.ndarray, int]:
    """Predictions (m, g) for X_test, and the number of components they rest on.

    Args:
        X: (n, d) training rows; Y: (n, g) their targets; X_test: (m, d).
        n_components: of the PCA of the standardised X; 0: ridge on X as it is.
        alpha: the penalty; None: `penalty`. No intercept: correlations do not see it, errors would.
    """
    basis = Training(X, Y).basis(np.arange(len(X)), n_components)
    features = basis.k if n_components else X.shape[1]
    return basis.predict(X_test, penalty(features, Y.shape[1]) if alpha is None else alpha), basis.k


def penalty(features: int, genes: int) -> float:
    """HEST's: 100 / (features x genes)."""
    return 100 / (features * genes)


def _inverse(spread: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """1 / spread, 0 for a dimension without any."""
    return np.divide(1, spread, out=np.zeros_like(spread), where=varies & (spread > 0))


def _largest(G: np.ndarray, k: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of G and their vectors, less those of no power. `shape` is that of the rows."""
    from scipy.linalg import eigh

    n = len(G)
    power, V = eigh(G, subset_by_index=(n - k, n - 1), overwrite_a=True, check_finite=False)
    there = power > np.finfo(float).eps * max(shape) * max(power.max(), 0)
    return power[there], V[:, there]
