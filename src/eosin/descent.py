"""L-BFGS for many logistic regressions on one matrix: every step is two matrix products for all of them together.

The line search needs no product, because logits move along a line. Residuals come from the margin to the true class,
never as p - 1, so that float32 keeps its digits where nearly every row is fitted (separable data, weak penalty).
Shapes: n rows, D columns, P problems, K logits a row (1 for two classes); torch tensors on one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NEVER = -1e4  # the start of a class without training rows: its probability is 0


def descend(Z, y, mask, penalty, start, w, tol, max_iter, norm=None) -> Iterator[tuple[int, Any, Any, int, bool]]:
    """Minimise the mean loss over the masked rows + penalty / 2 x |w|^2, for all problems; the solved ones leave first.

    A problem is solved when the quadratic model promises less than tol x objective, and less than sqrt(tol) x what has
    been gained: under a strong penalty little is to be gained, and all of the ranking is in that little.

    Args:
        Z: (n, D), the last column ones, its weight free. y: (n,) signs, or class numbers.
        mask: (n, P), 1 for the training rows. penalty: (P,) float64.
        start: (P, K), added to the logits Z w; NEVER for a class that the problem does not have.
        w: (D, P, K), where to begin.
        norm: (P, D - 1, D - 1) float64 matrices that measure |w|^2 as w' norm w; None: each is the identity.

    Yields:
        problem, w (D, K), Z w (n, K), steps, solved.
    """
    import torch

    (n, D), (P, K) = Z.shape, start.shape
    alive, memory = torch.arange(P, device=Z.device), _Memory()
    power = (torch.linalg.vector_norm(Z, dim=0).double() ** 2 / n)[:, None, None]
    rows = mask.sum(0, dtype=torch.float64)
    penalty = penalty[None, :, None]
    there, rounding = (start > NEVER).double(), torch.finfo(Z.dtype).eps
    a = (Z @ w.reshape(D, -1)).reshape(n, P, K)
    (first, _), (loss, residual) = (_loss(logits, start, y, mask) for logits in (torch.zeros_like(a), a))
    pull = _pull(w, penalty, norm)
    value = loss / rows + _dot(pull, w) / 2
    gained = (first / rows - value).clamp(min=0)
    gradient = _back(Z, residual, rows) + pull.to(Z.dtype)
    stiff = penalty * _diagonal(norm, w)
    moving = torch.ones_like(rows, dtype=torch.bool)
    for step in range(max_iter + 1):
        scaling = (there / (power * _curvature(residual, rows) + stiff).clamp(min=1e-30)).to(Z.dtype)
        ahead = -memory.apply(gradient, scaling)
        slope = _dot(gradient, ahead)
        promise = -slope / 2
        solved = (promise <= tol * value) & (promise <= tol**0.5 * gained + rounding**2 * value)
        stay = ~solved & moving & (step < max_iter)
        for i in torch.nonzero(~stay).flatten().tolist():
            yield int(alive[i]), w[:, i], a[:, i], step, bool(solved[i])
        if not stay.any():
            return
        if not stay.all():
            w, a, pull, gradient, ahead = (v[:, stay] for v in (w, a, pull, gradient, ahead))
            penalty, stiff, mask = (v[:, stay] for v in (penalty, stiff, mask))
            norm = None if norm is None else norm[stay]
            value, gained, slope, rows, start, there, alive = (
                v[stay] for v in (value, gained, slope, rows, start, there, alive)
            )
            memory.keep(stay)
        b = (Z @ ahead.reshape(D, -1)).reshape(a.shape)
        further = _pull(ahead, penalty, norm)
        size = [_dot(u, v) for u, v in ((pull, w), (pull, ahead), (further, ahead))]
        t, a, value, residual, moving = _search(a, b, slope, value, size, rows, start, y, mask)
        gained = gained - slope * t * (1 - t / 2)
        move = _each(t, w) * ahead
        w, pull = w + move, pull + _each(t, pull) * further
        fresh = _back(Z, residual, rows) + pull.to(Z.dtype)
        memory.add(move, fresh - gradient)
        gradient = fresh


def _search(a, b, slope, value, size, rows, start, y, mask):
    """A step length (P,) from 1 downwards along logits a + t b that lowers the objective and does not overshoot far.

    `slope` is the objective's at t = 0; `size` are the penalty's products ww, wv, vv of weights and direction.

    Returns:
        t, and there: logits, objective, residual; and where none was found, false.
    """
    import torch

    slack = 1e-7 if a.dtype == torch.float32 else 1e-13  # what rounding may add to the objective
    ww, wv, vv = size
    t = torch.ones_like(value)
    for _ in range(30):
        there = a + _each(t, a) * b
        loss, residual = _loss(there, start, y, mask)
        objective = loss / rows + ww / 2 + t * wv + t * t / 2 * vv
        rising = (residual * b).sum((0, 2)) / rows + wv + t * vv
        good = (objective <= value * (1 + slack)) & (rising <= -slope / 2)
        if good.all():
            break
        secant = (-slope / (rising - slope)).nan_to_num(0.1).clamp(0.1, 0.7)
        t = torch.where(good, t, t * secant)
    return t, there, objective, residual, good


def _loss(a, start, y, mask):
    """Summed loss (P,) and its derivative (n, P, K) by the logits a + start, over the rows of the mask (n, P).

    With e = exp(logit - logit of the true class) of the other classes and q their sum, the loss is log(1 + q).
    """
    import torch

    most = 60.0 if a.dtype == torch.float32 else 600.0  # keeps exp finite, and out of the slow denormal numbers
    logits = a + start
    if a.shape[2] == 1:
        odds = (-y[:, None] * logits[..., 0]).clamp_(-most, most).exp_()
        residual = (-y[:, None] * (odds / (1 + odds) * mask))[..., None]
    else:
        own = y[:, None, None].expand(-1, a.shape[1], 1)
        residual = logits.sub_(logits.gather(2, own)).clamp_(-most, most).exp_().scatter_(2, own, 0.0)
        odds = residual.sum(2)
        weight = mask / (1 + odds)
        residual.mul_(weight[..., None]).scatter_(2, own, (-odds * weight)[..., None])
    return (odds.log1p_() * mask).sum(0, dtype=torch.float64), residual


def _pull(w, penalty, norm):
    """(D, P, K) float64: the penalty's gradient, penalty x norm w; the intercept in the last row is free."""
    import torch

    head = w[:-1].double()
    if norm is not None:
        head = torch.bmm(norm, head.transpose(0, 1)).transpose(0, 1)
    return torch.cat([penalty * head, torch.zeros_like(head[:1])])


def _diagonal(norm, w):
    """(D, P, 1) float64: how stiff the penalty is along each weight."""
    import torch

    head = torch.ones(len(w) - 1, w.shape[1], device=w.device, dtype=torch.float64)
    if norm is not None:
        head = torch.diagonal(norm, dim1=1, dim2=2).T
    return torch.cat([head, torch.zeros_like(head[:1])])[..., None]


def _curvature(residual, rows):
    """(P, K) the mean of p (1 - p), which is |r| (1 - |r|) for every residual r, times K / (K - 1): weights of several
    classes only move against each other."""
    import torch

    one, two = (torch.linalg.vector_norm(residual, order, dim=0).double() for order in (1, 2))
    K = residual.shape[2]
    return (one - two**2).clamp(min=0) / rows[:, None] * (K / (K - 1) if K > 1 else 1)


def _back(Z, residual, rows):
    """(D, P, K) gradient of the mean loss by the weights."""
    n, P, K = residual.shape
    back = residual.reshape(n, P * K).T @ Z  # this way round is several times faster for a few problems
    return back.T.reshape(-1, P, K) / _each(rows, Z)


def _dot(u, v):
    """(P,) float64 inner products of two (D, P, K)."""
    import torch

    return (u * v).sum((0, 2), dtype=torch.float64)


def _each(t, like):
    """One number a problem, shaped to multiply (·, P, K)."""
    return t.to(like.dtype)[:, None]


def _scaled(u, scaling):
    """Scaled so that the classes' weights still sum to zero, as the penalty has it: u is divided by a diagonal Hessian
    under this constraint."""
    v = scaling * u
    return v if u.shape[2] == 1 else v - scaling * (v.sum(2) / scaling.sum(2))[..., None]


@dataclass
class _Memory:
    """The last steps and the changes of gradient they made: an inverse Hessian on top of a diagonal one."""

    length: int = 10
    pairs: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def add(self, move, change) -> None:
        """A pair counts for a problem only where curvature along it is positive."""
        along = _dot(move, change)
        self.pairs = [*self.pairs, (move, change, (1 / along).where(along > 0, along * 0))][-self.length :]

    def keep(self, stay) -> None:
        self.pairs = [(move[:, stay], change[:, stay], inverse[stay]) for move, change, inverse in self.pairs]

    def apply(self, gradient, scaling):
        """Inverse Hessian times gradient (Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
        q, parts = gradient, []
        for move, change, inverse in reversed(self.pairs):
            parts.append(inverse * _dot(move, q))
            q = q - _each(parts[-1], q) * change
        q = _scaled(q, scaling)
        if self.pairs:
            _, change, inverse = self.pairs[-1]
            ratio = 1 / (inverse * _dot(change, _scaled(change, scaling)))
            q = q * _each(ratio.where(inverse > 0, ratio * 0 + 1), q)
        for (move, change, inverse), part in zip(self.pairs, reversed(parts), strict=True):
            q = q + _each(part - inverse * _dot(change, q), q) * move
        return q
