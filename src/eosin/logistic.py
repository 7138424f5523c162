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
TOGETHER = 96  # weight vectors that make a matrix product worth its pass over the data
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
            still in the units of X. The data are then turned once a split. (The mean does not matter: see intercept.)
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
    if scale == "none":
        yield from solver.solve(X, y, train, counts, range(len(train)))
        return
    for split, rows in enumerate(train):
        yield from solver.solve(X, y, train[[split]], counts[[split]], [split], _deviation(X, rows))


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


def _deviation(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Standard deviation of each column over the chosen rows, in float64; 1 where the column is constant."""
    at, mean = np.flatnonzero(rows), X[rows].mean(0, dtype=np.float64)
    deviation = np.sqrt(sum(((X[at[b]] - mean) ** 2).sum(0) for b in blocks(len(at), ROWS)) / len(at))
    return np.where(deviation > 1e-10 * np.abs(mean), deviation, 1.0)


@dataclass
class _Solver:
    C: np.ndarray
    classes: int
    dtype: str
    tol: float
    max_iter: int
    device: str | None

    def solve(self, X, y, train, counts, names, unit=1.0) -> Iterator[Fit]:
        """X / unit. All splits together climb from the smallest C to the largest, a few C's at a time, each of which starts
        from where the last of those before it ended."""
        import torch

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        Z, centre, axes = _turned(X, unit, self.dtype, device)
        width = 1 if self.classes == 2 else self.classes
        target = torch.from_numpy(y.astype(np.int64)).to(device)
        if width == 1:
            target = (2 * target - 1).to(Z.dtype)
        order = np.argsort(self.C, kind="stable")
        for some in blocks(len(train), max(1, CELLS // (len(X) * width))):
            mask = torch.from_numpy(train[some].T).to(device, Z.dtype)
            rows, start = train[some].sum(1), np.stack([_prior(count, width) for count in counts[some]])
            offset, splits = torch.from_numpy(start).to(device, Z.dtype), range(len(train))[some]
            warm, many = Z.new_zeros(Z.shape[1], len(rows), width), min(TOGETHER, CELLS // len(X)) // start.size
            for at in (order[b] for b in blocks(len(order), max(1, many))):
                penalty = torch.from_numpy(1 / np.outer(self.C[at], rows).ravel()).to(device)
                if at[0]==order[0]: before = warm.clone()
                import os
                cap=float(os.environ.get("CAP","0"))
                guess=torch.cat([warm+(warm-before)*min(cap,(i+1)) for i in range(len(at))],1)
                last2=None
                given = (mask.repeat(1, len(at)), penalty, offset.repeat(len(at), 1), guess)
                newb=warm.clone()
                for p, w, z, steps, solved in descend(Z, target, *given, self.tol, self.max_iter):
                    c, split = at[p // len(rows)], p % len(rows)
                    if c == at[-1]:
                        warm[:, split] = w
                    if len(at)>1 and c == at[-2]: newb[:,split]=w
                    coef = (axes @ w[:-1].double()).T.cpu().numpy() / unit
                    intercept = w[-1].double().cpu().numpy() + start[split] - coef @ centre
                    decision = z.double().cpu().numpy() + start[split]
                    yield Fit(names[splits[split]], int(c), coef, intercept, decision, steps, solved)
                before=newb


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
        span, corner = torch.linalg.qr(part(slice(None)).T)
        _, axes = torch.linalg.eigh(corner @ corner.T)
        axes = span @ axes
    else:
        _, axes = torch.linalg.eigh(sum(part(b).T @ part(b) for b in blocks(n, ROWS)))
    Z = torch.ones(n, axes.shape[1] + 1, dtype=getattr(torch, dtype), device=device)
    for b in blocks(n, ROWS):
        Z[b, :-1] = (part(b) @ axes).to(Z.dtype)
    return Z, centre, axes
