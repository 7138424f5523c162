"""Pairs of registered slides from whole blocks of similarities: exact on a GPU, and in plism-benchmark's float16 anywhere.

`Exact` is the formula of the H0-mini paper in float32 on a processor: `eosin.metrics.plism_pair`. `Dense` computes in
float64, with numpy or with torch on a device; memory is blocks of rows, never n squared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eosin import metrics
from eosin.arrays import unit
from eosin.similarity import SAME

CELLS = {"cpu": 2**21, "cuda": 2**26}  # similarities held at once
DEAR = 1e12  # multiplications from which it pays to look for a GPU
Side = tuple[Any, Any]  # a slide as `slide` gives it, and what its `within` found


class Exact:
    """The paper's formula on a processor, a pair at a time."""

    def __init__(self, ks: Sequence[int]) -> None:
        self.ks = tuple(ks)

    def room(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(how many slides of this shape to hold, how many pairs to compute at once)."""
        return 2, 1

    def slide(self, X: np.ndarray) -> Any:
        """The embeddings (n, d) of a slide as they are multiplied."""
        return X

    def within(self, slide: Any) -> Any:
        """What all pairs of a slide need of its own block."""
        return metrics.nearest_within(slide, max(self.ks))

    def pairs(self, a: Side, others: Sequence[Side]) -> list[dict[str, float]]:
        """{"cosine": …, "top1": …} of a slide and each of the others; rows match."""
        return [metrics.plism_pair(a[0], b[0], self.ks, (a[1], b[1])) for b in others]


class Dense:
    """The paper's formula in float64 (`float32`), or plism-benchmark's published arithmetic (`float16`).

    float16 (owkin/plism-benchmark, metrics.py, as its results were published): embeddings, norms, dot products and
    quotients are rounded to float16; of all 2n tiles sorted by similarity the first is taken for the tile itself, unseen,
    and a hit is the match among the next k. Which of equal tiles comes first it leaves to argpartition; here it is the one
    that comes first in [A; B]. The sums are exact before they are rounded, where numpy's are float32: one entry in some
    2,000 is a step of float16 away.
    """

    def __init__(self, ks: Sequence[int], precision: str = "float32", device: str = "cpu") -> None:
        self.ks, self.half, self.device = tuple(ks), precision == "float16", device

    def room(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """On a GPU as many slides as fill a quarter of its free memory, and as many pairs as CELLS holds; else two and one."""
        if self.device == "cpu":
            return 2, 1
        import torch

        slides = max(2, torch.cuda.mem_get_info()[0] // 4 // (8 * shape[0] * shape[1]))
        return slides, max(1, min(slides // 2, CELLS[self.device] // shape[0] ** 2))

    def slide(self, X: np.ndarray) -> tuple[Any, Any]:
        """(rows as they are multiplied, their norms where the quotient is rounded)."""
        if not self.half:
            return self._put(unit(X, "X")), None
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = X.astype(np.float16)
            norm = np.linalg.norm(rounded, axis=1)
        return self._put(rounded.astype(np.float64)), self._put(norm.astype(np.float64))

    def within(self, slide: tuple[Any, Any]) -> Any:
        n = len(slide[0])
        keep = min(max(self.ks) + self.half, n)  # float16 does not leave the tile itself out
        return self._joined([self._largest(sim, keep) for _, sim in self._own(slide, n)])

    def pairs(self, a: Side, others: Sequence[Side]) -> list[dict[str, float]]:
        """All at once: whatever is of a pair has the pair as its first axis."""
        (slide, near), n = a, len(a[0][0])
        b = self._stacked([o[0][0] for o in others]), self._stacked([o[0][1] for o in others]) if self.half else None
        match, place = self._match(slide, b, n, len(others)), self._put(np.arange(n))
        held = match[:, :, None]
        ahead = [self._ahead(near, held, True), self._ahead(self._stacked([o[1] for o in others]), held, False)]
        ahead = [found.sum(-1) for found in ahead]  # of A's tiles, of B's
        for rows in self._blocks(n, len(others)):
            sim = self._similarity(slide, rows, b)
            # the very number that others are held against
            sim[:, place[rows] - rows.start, place[rows]] = match[:, rows]
            before = place[None, :] < place[rows][:, None]
            ahead[0][:, rows] += self._ahead(sim, match[:, rows, None], before).sum(-1)
            ahead[1] += self._ahead(sim, match[:, None, :], place[rows][:, None] < place[None, :]).sum(-2)
        known = match == match
        hits = np.array([[self._get(known & (r >= 1) & (r <= k)).mean(-1) for r in ahead] for k in self.ks]).mean(1)
        cosine = self._get(match)
        mean = cosine.astype(np.float16).mean(-1) if self.half else cosine.mean(-1)
        tops = ({f"top{k}": float(h) for k, h in zip(self.ks, of, strict=True)} for of in hits.T)
        return [{"cosine": float(m), **top} for m, top in zip(mean, tops, strict=True)]

    def _ahead(self, sim: Any, match: Any, tied: Any) -> Any:
        """Which candidates come no later than the match. float16: before it; of those that tie with it, the `tied`."""
        return ((sim > match) | ((sim == match) & tied)) if self.half else sim >= match - SAME

    def _similarity(self, a: tuple[Any, Any], rows: slice, b: tuple[Any, Any]) -> Any:
        return self._quotient(a[0][rows] @ b[0].swapaxes(-1, -2), lambda: a[1][rows][:, None] * b[1][..., None, :])

    def _match(self, a: tuple[Any, Any], b: tuple[Any, Any], n: int, pairs: int) -> Any:
        dots = [(a[0][rows] * b[0][:, rows]).sum(-1) for rows in self._blocks(n, pairs)]
        return self._quotient(self._joined(dots, 1), lambda: a[1] * b[1])

    def _quotient(self, dots: Any, norms: Any) -> Any:
        if not self.half:
            return dots
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._rounded(self._rounded(dots) / self._rounded(norms()))

    def _own(self, slide: tuple[Any, Any], n: int) -> Iterator[tuple[slice, Any]]:
        """Blocks of a slide's similarities to itself; by the paper a tile is no candidate of its own."""
        place = self._put(np.arange(n))
        for rows in self._blocks(n):
            sim = self._similarity(slide, rows, slide)
            if not self.half:
                sim[place[rows] - rows.start, place[rows]] = -np.inf
            yield rows, sim

    def _blocks(self, n: int, pairs: int = 1) -> Iterator[slice]:
        step = max(1, CELLS[self.device] // (n * pairs))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))

    # what numpy and torch say in different words

    def _put(self, values: np.ndarray) -> Any:
        if self.device == "cpu":
            return values
        import torch

        return torch.from_numpy(values).to(self.device)

    def _get(self, values: Any) -> np.ndarray:
        return values if isinstance(values, np.ndarray) else values.cpu().numpy()

    def _rounded(self, values: Any) -> Any:
        """To the nearest float16, overflow to infinity."""
        if isinstance(values, np.ndarray):
            return values.astype(np.float16).astype(np.float64)
        return values.half().double()

    def _largest(self, sim: Any, k: int) -> Any:
        """(r, k) the largest of each row, nan as the smallest, in no order."""
        if isinstance(sim, np.ndarray):
            return np.partition(np.where(np.isnan(sim), -np.inf, sim), -k, axis=1)[:, -k:].copy()
        return sim.nan_to_num(nan=-np.inf, posinf=np.inf, neginf=-np.inf).topk(k, dim=1, sorted=False).values

    def _joined(self, parts: list[Any], axis: int = 0) -> Any:
        if isinstance(parts[0], np.ndarray):
            return np.concatenate(parts, axis)
        import torch

        return torch.cat(parts, axis)

    def _stacked(self, parts: list[Any]) -> Any:
        return self._joined([p[None] for p in parts])


def engine(ks: Sequence[int], precision: str, work: float) -> Exact | Dense:
    """What computes pairs here: a GPU where `work` (multiplications in all) is worth one and one is there."""
    device = "cpu"
    if work >= DEAR:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Exact(ks) if device == "cpu" and precision == "float32" else Dense(ks, precision, device)
