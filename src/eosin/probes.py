"""What is fitted on embeddings: the nearest neighbours' vote, logistic regression, ridge.

Each is made with its settings, fitted with `.fit`, which returns it, and asked with `.predict` or `.scores`:

    probes.knn(k=20).fit(train.X, train.y).predict(test.X)
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arrays import array, blocks, matrix, unit
from .errors import DataError, UsageError
from .logistic import Fit, logistic_path, probabilities

__all__ = ["Fit", "Knn", "Logistic", "Ridge", "knn", "logistic", "logistic_path", "ridge"]

CELLS = 2**24  # distances held at once


class _Classifier(ABC):
    """`classes_` are the sorted labels of y; columns of `scores` are in that order."""

    classes_: np.ndarray

    @abstractmethod
    def scores(self, X: Any) -> np.ndarray:
        """(n, classes)."""

    def predict(self, X: Any) -> np.ndarray:
        """(n,) the label with the highest score; of equal ones the smallest."""
        return self.classes_[self.scores(X).argmax(1)]

    def _labelled(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """X and the class number of each row; sets `classes_`."""
        X, y = matrix(X, "X"), array(y)
        if y.shape != (len(X),):
            raise DataError(f"X has {len(X)} rows and y has shape {y.shape}. Give one label a row.")
        self.classes_, code = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y has one class only, {self.classes_[0]}. Train on rows of at least two classes.")
        return X, code


@dataclass
class Knn(_Classifier):
    """The k nearest training rows vote; exact, in float64.

    Args:
        k: neighbours.
        distance: "euclidean" or "cosine".
        device: default a GPU when there is one.
    """

    k: int = 20
    distance: str = "euclidean"
    device: str | None = None

    def fit(self, X: Any, y: Any) -> Knn:
        """Keep the rows X (n, d) and their labels y (n,).

        Raises:
            DataError: one class only, fewer rows than k, NaN or Inf, rows of zeros under cosine.
        """
        if self.distance not in ("euclidean", "cosine") or self.k < 1:
            raise UsageError(f"knn takes k >= 1 and distance euclidean or cosine, not {self.k} and {self.distance!r}.")
        X, self._code = self._labelled(X, y)
        if self.k > len(X):
            raise DataError(
                f"k={self.k} neighbours of {len(X)} training rows. Ask for k <= {len(X)}, or give more rows."
            )
        self._centre = X.mean(0, dtype=np.float64)  # distances do not change, and lose no digits to a far origin
        self._rows = self._placed(X)
        return self

    def scores(self, X: Any) -> np.ndarray:
        """(n, classes) the share of the votes."""
        import torch

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        X, rows = matrix(X, "X"), torch.from_numpy(self._rows).to(device)
        code = torch.from_numpy(self._code).to(device)
        votes = torch.zeros(len(X), len(self.classes_), dtype=torch.float64, device=device)
        half = rows.square().sum(1) / 2
        for b in blocks(len(X), max(1, CELLS // len(rows))):
            here = torch.from_numpy(self._placed(X[b])).to(device)
            near = torch.addmm(half, here, rows.T, alpha=-1).topk(self.k, dim=1, largest=False, sorted=False).indices
            votes[b].scatter_add_(1, code[near], torch.ones_like(near, dtype=torch.float64))
        return (votes / self.k).cpu().numpy()

    def _placed(self, X: np.ndarray) -> np.ndarray:
        return unit(X, "X") if self.distance == "cosine" else X - self._centre


@dataclass
class Logistic(_Classifier):
    """Logistic regression with an L2 penalty, multinomial for more than two classes, to convergence.

    The minimum of scikit-learn's LogisticRegression(C=C); see `eosin.logistic` for how it is found.

    Args:
        C: inverse penalty; the loss is summed over rows, the intercept is free.
        scale: "standard" for columns of mean 0 and deviation 1; "none" for X as it is.
        tol: relative precision of the objective.
    """

    C: float = 1.0
    scale: str = "none"
    tol: float = 1e-12
    max_iter: int = 5000
    device: str | None = None

    def fit(self, X: Any, y: Any) -> Logistic:
        """X (n, d), y (n,) labels of any type; sets `coef_` (k, d) and `intercept_` (k,), k = 1 for two classes.

        Raises:
            DataError: one class only, NaN or Inf.
        """
        X, code = self._labelled(X, y)
        how: dict[str, Any] = {"scale": self.scale, "tol": self.tol, "max_iter": self.max_iter, "device": self.device}
        fit = next(logistic_path(X, code, np.ones(len(X), bool), [self.C], dtype="float64", **how))
        if not fit.converged:
            warnings.warn(
                f"logistic: not converged after {fit.iterations} steps; lower C, or scale the columns.", stacklevel=2
            )
        self.coef_, self.intercept_, self.n_iter_ = fit.coef, fit.intercept, fit.iterations
        return self

    def scores(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities."""
        return probabilities(matrix(X, "X").astype(np.float64) @ self.coef_.T + self.intercept_)


@dataclass
class Ridge:
    """Least squares with an L2 penalty, in closed form and float64: minimises |Y - XW - b|^2 + alpha |W|^2.

    Args:
        alpha: penalty, >= 0; at 0 the shortest of the least-squares solutions.
        intercept: fit b, unpenalised; else b = 0.
    """

    alpha: float = 1.0
    intercept: bool = True
    coef_: np.ndarray = field(init=False, repr=False)
    intercept_: np.ndarray = field(init=False, repr=False)

    def fit(self, X: Any, Y: Any) -> Ridge:
        """X (n, d), Y (n, g) or (n,) numbers; sets `coef_` (d, g) or (d,) and `intercept_` (g,) or ().

        Raises:
            DataError: NaN or Inf, lengths that differ. UsageError: a negative alpha.
        """
        if not self.alpha >= 0:
            raise UsageError(f"alpha={self.alpha}: a ridge penalty is a number >= 0.")
        X, Y = matrix(X, "X").astype(np.float64), array(Y).astype(np.float64)
        matrix(Y.reshape(len(Y), -1), "Y")
        if len(X) != len(Y):
            raise DataError(f"X has {len(X)} rows and Y {len(Y)}. Row i of both must be the same tile.")
        x0, y0 = (X.mean(0), Y.mean(0)) if self.intercept else (np.zeros(X.shape[1]), np.zeros(Y.shape[1:]))
        self.coef_ = _penalised(X - x0, Y - y0, self.alpha)
        self.intercept_ = y0 - x0 @ self.coef_
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n, g), or (n,) after a fit on (n,)."""
        return matrix(X, "X").astype(np.float64) @ self.coef_ + self.intercept_


def _penalised(X: np.ndarray, Y: np.ndarray, alpha: float) -> np.ndarray:
    """(XᵀX + alpha)⁻¹ XᵀY by Cholesky, in whichever of rows and columns is fewer; by SVD where that is singular."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    n, d = X.shape
    gram = X.T @ X if d <= n else X @ X.T
    gram.flat[:: len(gram) + 1] += alpha
    try:
        factor = cho_factor(gram)
        pivots = factor[0].diagonal()
        if pivots.min() < 1e-6 * pivots.max():
            raise LinAlgError("too near singular: the normal equations would lose half of the digits")
        return cho_solve(factor, X.T @ Y) if d <= n else X.T @ cho_solve(factor, Y)
    except LinAlgError:
        u, s, vt = np.linalg.svd(X, full_matrices=False)
        kept = s > s.max(initial=0) * max(n, d) * np.finfo(float).eps
        shrunk = np.where(kept, s / np.where(kept, s * s + alpha, 1), 0)
        return vt.T @ (shrunk.reshape(-1, *[1] * (Y.ndim - 1)) * (u.T @ Y))


knn, logistic, ridge = Knn, Logistic, Ridge
