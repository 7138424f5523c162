"""Logistic regression for many penalties and many splits at once: the problems share every pass over the data.

Minimised is scikit-learn's objective, exactly: for a binary y one weight vector w and the mean of log(1 + exp(-s z)),
for more classes one vector a class and the softmax loss, plus |w|^2 / (2 C n); the intercept is free.

The data are centred and turned onto their principal axes first, which changes neither the loss nor |w|, and leaves
every Hessian nearly diagonal, however steep the spectrum: L-BFGS with that diagonal as its start takes tens of
steps (`descent`) where it took thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import blocks, matrix
from .descent import NEVER, descend
from .errors import DataError, UsageError

CELLS = 2**25  # logits held at once (rows x problems x classes); about eight arrays of this size live together
ROWS = 8192  # rows turned at a time


@dataclass(frozen=True)
class Fit:
    """One problem, solved.

    Attributes:
        split, index: which row of `train`, which of the C's.
        coef, intercept: (k, d) and (k,), k = 1 for two classes; in the units of X.
        decision: (n, k) float64 logits of every row of X.
        iterations: steps taken. converged: False where they ran out.
    """

    split: int
    index: int
    coef: np.ndarray
    intercept: np.ndarray
    decision: np.ndarray
    iterations: int
    converged: bool


def logistic_path(
    X: Any,
    y: Any,
    train: Any,
    C: Any,
    *,
    scale: str = "none",
    dtype: str = "float32",
    tol: float = 1e-7,
    max_iter: int = 1000,
    device: str | None = None,
) -> Iterator[Fit]:
    """L2-penalised logistic regression for each split and each C, in the order in which they converge.

    Args:
        X: (n, d) embeddings; never copied a split.
        y: (n,) class numbers 0 … c - 1. A class without rows in a split is never predicted there.
        train: (splits, n) true for the rows that the split is fitted on.
        C: inverse penalties, as in scikit-learn: the loss is summed over rows.
        scale: "standard" gives each column deviation 1 over the training rows, unless it is constant there; `coef` is
            still in the units of X. (The mean does not matter: see intercept.)
        dtype: of the products; every sum over rows is float64.
        tol: a problem is solved when the quadratic model promises less than tol x its objective.
        device: default a GPU when there is one.

    Raises:
        DataError: NaN or Inf, a split that trains on fewer than two classes. UsageError: a C that is not positive.
    """
    X, y, train = matrix(X, "X"), np.asarray(y), np.atleast_2d(np.asarray(train, bool))
    C = np.atleast_1d(np.asarray(C, np.float64))
    if y.shape != (len(X),) or train.shape[1] != len(X):
        raise DataError(f"X has {len(X)} rows, y {y.shape} and train {train.shape}. Give (n, d), (n,), (splits, n).")
    if not (C > 0).all() or scale not in ("none", "standard"):
        raise UsageError(f"C must be positive and scale none or standard, not C={C.min():g}, scale={scale!r}.")
    classes = int(y.max()) + 1
    counts = np.stack([np.bincount(y[rows], minlength=classes) for rows in train])
    for split, count in enumerate(counts):
        if (count > 0).sum() < 2:
            raise DataError(f"Split {split} trains on one class only. Give it rows of at least two classes.")
    solver = _Solver(C, classes, dtype, tol, max_iter, device)
    yield from solver.solve(X, y, train, counts, None if scale == "none" else _units(X, train))


def probabilities(decision: np.ndarray) -> np.ndarray:
    """(n, classes) float64 probabilities of (n, k) logits; k = 1 means two classes."""
    z = _columns(decision)
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True)


def log_loss(decision: np.ndarray, y: np.ndarray) -> float:
    """Mean of -log p(true class), from the logits, so that a confident mistake is not clipped."""
    z = _columns(decision)
    top = z.max(1)
    return float((top + np.log(np.exp(z - top[:, None]).sum(1)) - z[np.arange(len(y)), y]).mean())


def _columns(decision: np.ndarray) -> np.ndarray:
    return np.hstack([np.zeros_like(decision), decision]) if decision.shape[1] == 1 else decision


def _units(X: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(splits, d) standard deviation of each column over a split's training rows; where it is constant, and its weight
    will be 0, that of the other splits, or 1."""
    units = np.stack([_deviation(X, rows) for rows in train])
    known = (units > 0).sum(0)
    return np.where(units > 0, units, np.where(known, units.sum(0) / np.maximum(known, 1), 1.0))


def _deviation(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Standard deviation of each column over the chosen rows, in float64; 0 where the column is constant."""
    at = np.flatnonzero(rows)
    mean = sum(X[at[b]].sum(0, dtype=np.float64) for b in blocks(len(at), ROWS)) / len(at)
    deviation = np.sqrt(sum(((X[at[b]] - mean) ** 2).sum(0) for b in blocks(len(at), ROWS)) / len(at))
    return np.where(deviation > 1e-10 * np.abs(mean), deviation, 0.0)


@dataclass
class _Solver:
    C: np.ndarray
    classes: int
    dtype: str
    tol: float
    max_iter: int
    device: str | None

    def solve(self, X, y, train, counts, units) -> Iterator[Fit]:
        """One C after the other, all splits together (as many as CELLS allows).

        Dividing the columns by a split's own deviations is the same as measuring its weights by another norm. So all splits
        share one matrix, divided by their mean deviations, and each has a norm near the identity.
        """
        import torch

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        unit = 1.0 if units is None else units.mean(0)
        Z, centre, axes = _turned(X, unit, self.dtype, device)
        width = 1 if self.classes == 2 else self.classes
        target = torch.from_numpy(y.astype(np.int64)).to(device)
        if width == 1:
            target = (2 * target - 1).to(Z.dtype)
        for some in blocks(len(train), max(1, CELLS // (len(X) * width))):
            mask, rows = torch.from_numpy(train[some].T).to(device, Z.dtype), train[some].sum(1)
            start, splits = np.stack([_prior(count, width) for count in counts[some]]), range(len(train))[some]
            offset = torch.from_numpy(start).to(device, Z.dtype)
            ratios = None if units is None else torch.from_numpy((units[some] / unit) ** 2).to(device)
            norm = None if ratios is None else torch.stack([_norm(axes, ratio) for ratio in ratios])
            now = before = Z.new_zeros(Z.shape[1], len(rows), width)
            for c, stride in _climb(self.C):
                penalty = torch.from_numpy(1 / (self.C[c] * rows)).to(device)
                guess = now + stride * (now - before)
                before, now = now, torch.zeros_like(now)
                for i, w, z, steps, solved in descend(
                    Z, target, mask, penalty, offset, guess, self.tol, self.max_iter, norm
                ):
                    now[:, i] = w
                    head = w[:-1].double()
                    if (
                        norm is not None and ratios is not None and len(axes) > axes.shape[1]
                    ):  # the lightest weights that give these logits
                        head = axes @ (norm[i] @ head) / ratios[i][:, None]
                    else:
                        head = axes @ head
                    coef = head.T.cpu().numpy() / unit
                    intercept = w[-1].double().cpu().numpy() + start[i] - coef @ centre
                    decision = z.double().cpu().numpy() + start[i]
                    yield Fit(splits[i], c, coef, intercept, decision, steps, solved)


def _norm(axes, ratio):
    """(r, r): the least sum of ratio x w^2 over all w (d,) whose coordinates on the axes (d, r) are c is c' norm c."""
    import torch

    if len(axes) == axes.shape[1]:
        return axes.T @ (ratio[:, None] * axes)
    return torch.linalg.inv(axes.T @ (axes / ratio[:, None]))


def _climb(C: np.ndarray) -> Iterator[tuple[int, float]]:
    """The C's from the smallest, and how far the path to each goes on as it went between the two before it: weights
    are nearly straight in log C, and a descent that begins on that line is short."""
    order = np.argsort(C, kind="stable").tolist()
    for i, c in enumerate(order):
        gone, left = np.log(C[order[max(i - 1, 0)]] / C[order[max(i - 2, 0)]]), np.log(C[c] / C[order[max(i - 1, 0)]])
        yield c, min(left / gone, 2.0) if gone > 0 else 0.0


def _prior(count: np.ndarray, width: int) -> np.ndarray:
    """(width,) the logits of the class shares, where every descent starts."""
    logits = np.where(count > 0, np.log(np.maximum(count, 1)), NEVER)
    return logits[1:] - logits[:1] if width == 1 else logits - logits[count > 0].mean() * (count > 0)


def _turned(X, unit, dtype: str, device) -> tuple[Any, np.ndarray, Any]:
    """X / unit on its principal axes, and a column of ones: Z (n, r + 1), the centre of X (d,), the axes (d, r).

    All directions that the rows span are kept (r = min(n, d)): it is a rotation, not a reduction.
    """
    import torch

    n, d = X.shape
    centre = X.mean(0, dtype=np.float64)

    def part(b: slice) -> Any:
        return torch.from_numpy((X[b] - centre) / unit).to(device)

    if n < d:
        span, corner = np.linalg.qr(((X - centre) / unit).T)
        axes = span @ principal_axes(corner @ corner.T)
    else:
        axes = principal_axes(sum(part(b).T @ part(b) for b in blocks(n, ROWS)).cpu().numpy())
    axes = torch.from_numpy(axes).to(device)
    Z = torch.ones(n, axes.shape[1] + 1, dtype=getattr(torch, dtype), device=device)
    for b in blocks(n, ROWS):
        Z[b, :-1] = (part(b) @ axes).to(Z.dtype)
    return Z, centre, axes


def principal_axes(gram: np.ndarray, n: int | None = None) -> np.ndarray:
    """(d, n) eigenvectors of the n largest eigenvalues of a symmetric (d, d), by default all; the largest first."""
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    d = len(gram)
    first = [d - n, d - 1] if n is not None else None
    with threadpool_limits(1, "blas"):  # more threads wait for each other here: seconds, on a busy machine
        return eigh(gram, subset_by_index=first, driver="evr")[1][:, ::-1].copy()
