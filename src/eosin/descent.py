"""L-BFGS for many logistic regressions on one matrix: every step is two matrix products for all of them together.

The line search needs no product, because logits move along a line. Residuals come from the margin to the true class,
never as p - 1, so that float32 keeps its digits where nearly every row is fitted (separable data, weak penalty).
Shapes: n rows, D columns, P problems, K logits a row (1 for two classes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


def descend(Z, y, mask, penalty, start, tol, max_iter) -> Iterator[tuple[int, Any, Any, int, bool]]:
    """L-BFGS on all problems at once; a problem that is solved leaves, and the rest go on without it.

    Args:
        Z: (n, D), the last column ones. y: (n,) signs, or class numbers. mask: (n, P) training rows of each problem.
        penalty: (P,) float64. start: (P, K) logits to begin with.

    Yields:
        problem, weights (D, K), logits (n, K), steps, converged.
    """
    import torch

    n, D = Z.shape
    P, K = start.shape
    power = Z.square().mean(0, dtype=torch.float64)[:, None, None]
    rows = mask.sum(0, dtype=torch.float64)
    free = torch.ones(D, dtype=torch.float64, device=Z.device)
    free[-1] = 0  # the intercept is not penalised
    penalty = (free[:, None] * penalty)[..., None]
    slack = 1e-7 if Z.dtype == torch.float32 else 1e-13  # what rounding may add to the objective
    alive, memory = torch.arange(P), _Memory()
    w, a = torch.zeros(D, P, K, dtype=Z.dtype, device=Z.device), start.expand(n, P, K).clone()
    loss, residual = _loss(a, y, mask)
    value = loss / rows
    gradient = _back(Z, residual, rows)
    stuck = torch.zeros(P, dtype=torch.bool, device=Z.device)
    for step in range(max_iter + 1):
        size = residual.abs()
        curvature = (size * (1 - size)).sum(0, dtype=torch.float64) / rows[:, None]  # mean of p (1 - p)
        scaling = (1 / (power * curvature + penalty).clamp(min=1e-30)).to(Z.dtype)
        ahead = -memory.apply(gradient, scaling)
        slope = _dot(gradient, ahead)
        solved = -slope / 2 <= tol * value
        out = solved | stuck if step < max_iter else torch.ones_like(solved)
        if out.any():
            for i in torch.nonzero(out).flatten().tolist():
                yield int(alive[i]), w[:, i], a[:, i], step, bool(solved[i])
            stay = ~out
            if not stay.any():
                return
            w, a, gradient, ahead, penalty, mask = (v[:, stay] for v in (w, a, gradient, ahead, penalty, mask))
            value, slope, rows, alive = value[stay], slope[stay], rows[stay], alive[stay.cpu()]
            memory.keep(stay)
        b = (Z @ ahead.reshape(D, -1)).reshape(a.shape)
        shrink = penalty * w
        norms = [_dot(shrink, w) / 2, _dot(shrink, ahead), _dot(penalty * ahead, ahead)]
        t = torch.ones_like(value)
        for _ in range(30):
            ahead_logits = a + _along(t, a) * b
            loss, residual = _loss(ahead_logits, y, mask)
            there = loss / rows + norms[0] + t * norms[1] + t * t / 2 * norms[2]
            rising = _dot(residual, b) / rows + norms[1] + t * norms[2]
            good = (there <= value * (1 + slack)) & (rising <= -slope / 2)
            if good.all():
                break
            secant = (-slope / (rising - slope)).nan_to_num(0.1).clamp(0.1, 0.7)
            t = torch.where(good, t, t * secant)
        stuck, a, value = ~good, ahead_logits, there
        move = _along(t, w) * ahead
        w = w + move
        fresh = _back(Z, residual, rows) + penalty.to(Z.dtype) * w
        memory.add(move, fresh - gradient)
        gradient = fresh


def _loss(a, y, mask):
    """Summed loss (P,) and its derivative (n, P, K) by the logits a (n, P, K), over the rows of the mask (n, P).

    With e = exp(logit - logit of the true class) of the other classes and q their sum, the loss is log(1 + q).
    """
    import torch

    most = 80.0 if a.dtype == torch.float32 else 600.0  # exp stays finite; such a step is refused for its loss
    if a.shape[2] == 1:
        odds = torch.exp((-y[:, None] * a[..., 0]).clamp(max=most))
        loss = torch.log1p(odds) * mask
        residual = (-y[:, None] * (odds / (1 + odds) * mask))[..., None]
    else:
        own = y[:, None, None].expand(-1, a.shape[1], 1)
        residual = (a - a.gather(2, own)).clamp_(max=most).exp_().scatter_(2, own, 0.0)
        odds = residual.sum(2)
        loss = torch.log1p(odds) * mask
        weight = mask / (1 + odds)
        residual = residual.mul_(weight[..., None]).scatter_(2, own, (-odds * weight)[..., None])
    return loss.sum(0, dtype=torch.float64), residual


def _back(Z, residual, rows):
    """Gradient of the mean loss by the weights (D, P, K)."""
    n, P, K = residual.shape
    return (Z.T @ residual.reshape(n, P * K)).reshape(-1, P, K) / rows.to(Z.dtype)[:, None]


def _dot(u, v):
    """(P,) float64 inner products of two (·, P, K)."""
    import torch

    return (u * v).sum((0, 2), dtype=torch.float64)


def _along(t, like):
    """One number a problem, shaped to multiply (·, P, K)."""
    return t.to(like.dtype)[:, None]


@dataclass
class _Memory:
    """The last steps and the changes of gradient they made: an inverse Hessian on top of a diagonal one."""

    length: int = 10
    pairs: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def add(self, move, change) -> None:
        """A pair counts for a problem only where curvature along it is positive."""
        curved = _dot(move, change)
        self.pairs.append((move, change, (1 / curved).where(curved > 0, curved * 0)))
        self.pairs = self.pairs[-self.length :]

    def keep(self, stay) -> None:
        self.pairs = [(move[:, stay], change[:, stay], curved[stay]) for move, change, curved in self.pairs]

    def apply(self, gradient, scaling):
        """Inverse Hessian times gradient (Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
        q, parts = gradient, []
        for move, change, inverse in reversed(self.pairs):
            parts.append(inverse * _dot(move, q))
            q = q - _along(parts[-1], q) * change
        q = scaling * q
        if self.pairs:
            _, change, inverse = self.pairs[-1]
            ratio = 1 / (inverse * _dot(change, scaling * change))
            q = q * _along(ratio.where(inverse > 0, ratio * 0 + 1), q)
        for (move, change, inverse), part in zip(self.pairs, reversed(parts), strict=True):
            q = q + _along(part - inverse * _dot(change, q), q) * move
        return q
