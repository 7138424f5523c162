"""Whose neighbour is who: PLISM pairs, and neighbours by class and centre.

Similarities are made in blocks of rows: memory grows with n, never with n squared, and no result depends on the block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .arrays import BLOCK, blocks, codes, matched, matrix, unit
from .errors import DataError

SAME = 1e-12  # two float64 cosines this close are equal: the rounding of a dot product is far below, a real gap above
FLOAT32 = 1e-5  # bound on the error of a float32 cosine; comparisons closer than this are settled in float64


def nearest_within(X: Any, k: int = 10) -> np.ndarray:
    """The k largest cosines of each tile with the other tiles of its slide: all that a slide's pairs need of it.

    Args:
        X: (n, d) embeddings of one slide.
        k: the largest k that `plism_pair` will be asked for.

    Returns:
        (n, k) float32, in no order; -inf where a slide has fewer than k other tiles.

    Raises:
        DataError: rows that are zero, NaN or Inf.
    """
    x = _unit_rows(matrix(X, "X"), "X")
    top = np.full((len(x), k), -np.inf, np.float32)
    for rows, sim in _upper(x):
        top[rows] = _largest(np.hstack([top[rows], sim]), k)
        for later in blocks(len(x) - rows.stop):
            there = slice(rows.stop + later.start, rows.stop + later.stop)
            mirrored = sim[:, rows.stop - rows.start :][:, later].T
            top[there] = _largest(np.hstack([top[there], mirrored]), k)
    return top


def plism_pair(
    A: Any, B: Any, ks: Sequence[int] = (1, 3, 5, 10), within: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, float]:
    """Cosine and top-k accuracy of two registered slides, by the formula of the H0-mini paper (appendix, robustness).

    rank of tile i's match = #{t of both slides, t not tile i : cos(i, t) >= cos(i, match)}, the match included; a hit
    is rank <= k; both directions are averaged. A tie counts against the model: a candidate as near as the match (within
    1e-12 in float64) comes before it. So two equal slides of distinct tiles score 1, a collapsed model 0.
    Float32 decides what is further apart than its rounding, float64 the rest: exact, at the price of float32.

    Args:
        A, B: (n, d) embeddings; row i of both is the same place.
        ks: the k of top-k.
        within: `nearest_within` of A and of B, of max(ks) columns or more: over many slides, each is made once.

    Returns:
        {"cosine": mean cosine of matched tiles, "top1": …, one for each k}.

    Raises:
        DataError: rows that are zero, NaN or Inf; A and B of different shape; `within` of other slides or a smaller k.
    """
    A, B = matched(A, B, ("A", "B"))
    if A.shape != B.shape:
        raise DataError(f"A has {A.shape[1]} dimensions and B {B.shape[1]}: two models made them. Embed both with one.")
    n, most = len(A), max(ks)
    if within and any(len(top) != n or top.shape[1] < most for top in within):
        raise DataError(
            f"within is not of these slides, or short of top-{most}. Give nearest_within(slide, {most}) of both."
        )
    a, b, match = np.empty(A.shape, np.float32), np.empty(A.shape, np.float32), np.empty(n)
    for rows in blocks(n):
        exact = unit(A[rows], "A", rows.start), unit(B[rows], "B", rows.start)
        a[rows], b[rows], match[rows] = *exact, np.einsum("ij,ij->i", *exact)
    ranks = [_Ranks(match), _Ranks(match)]  # of A's tiles, of B's
    for rows in blocks(n):
        sim = a[rows] @ b.T
        ranks[0].count(sim, rows, axis=1)
        ranks[1].count(sim, slice(n), axis=0)
    for side, x in enumerate((a, b)):
        if within:
            ranks[side].count(within[side], slice(n), axis=1)
            continue
        for rows, sim in _upper(x):
            ranks[side].count(sim, rows, axis=1)
            ranks[side].count(sim[:, rows.stop - rows.start :], slice(rows.stop, n), axis=0)
    for side, (own, other) in enumerate(((A, B), (B, A))):
        open_ = ranks[side].undecided(ks)
        for part in (open_[p] for p in blocks(len(open_), 256)):
            ranks[side].most[part] = _settle(own, other, part, match[part], most)
    return {"cosine": float(match.mean()), **{f"top{k}": float(np.mean([r.most <= k for r in ranks])) for k in ks}}


class _Ranks:
    """Between which bounds the rank of each tile's match lies, as far as float32 similarities can tell."""

    def __init__(self, match: np.ndarray) -> None:
        self.high, self.low = ((match + e).astype(np.float32) for e in (FLOAT32, -FLOAT32))
        self.least, self.most = np.ones(len(match), np.int64), np.zeros(len(match), np.int64)

    def count(self, sim: np.ndarray, part: slice, axis: int) -> None:
        """Take in the similarities of the tiles `part` to candidates along `axis`, of which one is the match."""
        self.least[part] += np.count_nonzero(sim > np.expand_dims(self.high[part], axis), axis=axis)
        self.most[part] += np.count_nonzero(sim >= np.expand_dims(self.low[part], axis), axis=axis)

    def undecided(self, ks: Sequence[int]) -> np.ndarray:
        return np.flatnonzero(np.any([(self.least <= k) & (k < self.most) for k in ks], axis=0))


def _settle(own: np.ndarray, other: np.ndarray, tiles: np.ndarray, match: np.ndarray, most: int) -> np.ndarray:
    """The ranks of a few tiles' matches in float64; counting stops where a rank is past every k."""
    rank = np.ones(len(tiles), np.int64)
    x, least = unit(own[tiles], "A"), match[:, None] - SAME
    for slide in (own, other):
        for rows in blocks(len(slide)):
            alive = np.flatnonzero(rank <= most)
            if not len(alive):
                return rank
            near = x[alive] @ unit(slide[rows], "A").T >= least[alive]
            near &= tiles[alive, None] != np.arange(rows.start, rows.stop)  # the tile itself; in `other`, its match
            rank[alive] += np.count_nonzero(near, axis=1)
    return rank


def _upper(x: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows, and their similarities to all rows from the block's first on: the rest is these, mirrored."""
    for rows in blocks(len(x), BLOCK // 2):
        sim = x[rows] @ x[rows.start :].T
        own = np.arange(rows.stop - rows.start)
        sim[own, own] = -np.inf  # a tile is not its own neighbour
        yield rows, sim


def _unit_rows(X: np.ndarray, name: str, dtype: type = np.float32) -> np.ndarray:
    x: np.ndarray = np.empty(X.shape, dtype)
    for rows in blocks(len(X)):
        x[rows] = unit(X[rows], name, rows.start)
    return x


def _largest(sim: np.ndarray, k: int) -> np.ndarray:
    return np.partition(sim, sim.shape[1] - k, axis=1)[:, sim.shape[1] - k :]


def neighbour_types(
    X: Any,
    label: Any,
    centre: Any,
    slide: Any = None,
    ks: Sequence[int] = (3, 5, 10, 20),
    exclude_same_slide: bool = False,
    distance: str = "cosine",
) -> dict[int, np.ndarray]:
    """For each tile, how many of its k nearest are of the same or another class and centre: (n, 4) SS, SO, OS, OO.

    The nearest in float64, never the tile itself. Neighbours that tie for the last places (within 1e-12) share them,
    so a count may be a fraction and does not depend on the order of rows; a tile with fewer than k candidates counts
    those it has. `distance` is cosine or euclidean. See `robustness_counts` for the other arguments and errors.
    """
    if exclude_same_slide and slide is None:
        raise DataError("exclude_same_slide needs to know the slides. Give `slide`, one value a row, or leave it out.")
    X = matrix(X, "X")
    barred = slide if exclude_same_slide else np.arange(len(X))
    return neighbour_types_of(X, label, centre, [barred], ks, distance)[0]


def neighbour_types_of(
    X: Any, label: Any, centre: Any, barred: Sequence[Any], ks: Sequence[int], distance: str = "cosine"
) -> list[dict[int, np.ndarray]]:
    """`neighbour_types` under several rules of exclusion, from one pass over the similarities.

    Args:
        barred: for each rule (n,) values; rows of equal value are no neighbours. All different: only the tile itself.
    """
    X = matrix(X, "X")
    n = len(X)
    label, centre = codes(label, "label", n), codes(centre, "centre", n)
    rules = [codes(b, "slide", n) for b in barred]
    counts = [{k: np.zeros((n, 4)) for k in ks} for _ in rules]
    for rows, rule, query, near, closeness in _near(X, rules, ks, distance):
        kind = 2 * (label[rows][query] != label[near]) + (centre[rows][query] != centre[near])
        for k in ks:
            share = _places(closeness, query, k)
            size = rows.stop - rows.start
            counts[rule][k][rows] = np.bincount(4 * query + kind, share, 4 * size).reshape(-1, 4)
    return counts


Near = tuple[slice, int, np.ndarray, np.ndarray, np.ndarray]


def _near(X: np.ndarray, rules: list[np.ndarray], ks: Sequence[int], distance: str) -> Iterator[Near]:
    """Blocks of queries, number of the rule, and pairs: query within the block, near row, how close they are.

    Among the pairs are each query's max(ks) nearest and all that tie with the last. Float32 finds and orders them; where
    two or more lie within its rounding of a kth place, float64 says how close these are.
    """
    n, space = len(X), _Space(X, distance)
    last = n - min(max(ks), n)
    for rows in blocks(n, max(1, min(BLOCK, 2**22 // n))):
        sim = space.roughly(rows)
        for rule, bar in enumerate(rules):
            allowed = np.where(bar[rows, None] == bar, np.float32(-np.inf), sim)
            cut = np.partition(allowed, last, axis=1)[:, last]
            query, near = np.nonzero((allowed >= cut[:, None] - space.margin) & (allowed > -np.inf))
            closeness = allowed[query, near].astype(np.float64)
            unsure = np.flatnonzero(_unsure(closeness, query, ks, space.margin))
            closeness[unsure] = space.exactly(rows, query[unsure], near[unsure])
            yield rows, rule, query, near, closeness


def _unsure(closeness: np.ndarray, query: np.ndarray, ks: Sequence[int], margin: float) -> np.ndarray:
    """(pairs,) whether another pair of the same query is as near to one of its kth places, to within the margin."""
    found = np.zeros(len(query), bool)
    if not len(query):
        return found
    number = np.bincount(query)
    first, order = np.cumsum(number) - number, np.lexsort((-closeness, query))
    for k in ks:
        kth = closeness[order[(first + np.minimum(k, number) - 1).clip(0)]]
        close = np.abs(closeness - kth[query]) <= margin
        found |= close & (np.bincount(query, close)[query] > 1)
    return found


class _Space:
    """How close rows are: by cosine, or by minus half the squared distance in units of the farthest row from the mean."""

    def __init__(self, X: np.ndarray, distance: str) -> None:
        if distance not in ("cosine", "euclidean"):
            raise DataError(f"distance is cosine or euclidean, not {distance!r}. Give one of them.")
        self.X, self.euclidean = X, distance == "euclidean"
        self.margin = (5 if self.euclidean else 2.5) * FLOAT32
        if self.euclidean:
            self.middle = X.mean(0, dtype=np.float64)
            self.far = max((float(_norms(X[r] - self.middle).max()) for r in blocks(len(X))), default=0.0) or 1.0
        self.rows = np.empty(X.shape, np.float32)
        for r in blocks(len(X)):
            self.rows[r] = self._placed(r, r.start)
        self.half = np.einsum("ij,ij->i", self.rows, self.rows) / 2

    def _placed(self, at: slice | np.ndarray, start: int = 0) -> np.ndarray:
        return (self.X[at] - self.middle) / self.far if self.euclidean else unit(self.X[at], "X", start)

    def roughly(self, rows: slice) -> np.ndarray:
        sim: np.ndarray = self.rows[rows] @ self.rows.T
        if self.euclidean:
            sim -= self.half
            sim -= self.half[rows, None]
        return sim

    def exactly(self, rows: slice, query: np.ndarray, near: np.ndarray) -> np.ndarray:
        """(pairs,) float64; `query` counts from the block's first row, `near` from the first of all."""
        own, out = self._placed(rows), np.empty(len(query))
        if len(query) > 32 * len(self.X):  # ties everywhere: all of the block is cheaper than its pairs
            for there in blocks(len(self.X)):
                held = np.flatnonzero((near >= there.start) & (near < there.stop))
                out[held] = self._closeness(own, self._placed(there))[query[held], near[held] - there.start]
            return out
        for part in blocks(len(query), max(1, 2**22 // self.X.shape[1])):
            present, at = np.unique(near[part], return_inverse=True)
            pair, placed = own[query[part]], self._placed(present)[at]
            if self.euclidean:
                placed -= pair
                out[part] = -np.einsum("ij,ij->i", placed, placed) / 2
            else:
                out[part] = np.einsum("ij,ij->i", pair, placed)
        return out

    def _closeness(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        sim: np.ndarray = a @ b.T
        if self.euclidean:
            sim -= (a * a).sum(1)[:, None] / 2 + (b * b).sum(1) / 2
        return sim


def _norms(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->i", x, x))


def _places(cosine: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    """Each candidate's share of its query's k places: 1 before the kth, 0 after it, ties share what is left."""
    if not len(query):
        return np.zeros(0)
    number = np.bincount(query)
    places = np.minimum(k, number)
    first = np.cumsum(number) - number
    kth = cosine[np.lexsort((-cosine, query))][(first + places - 1).clip(0)][query]
    before, tied = cosine > kth + SAME, np.abs(cosine - kth) <= SAME
    left = places - np.bincount(query, before)
    return before + tied * (left / np.bincount(query, tied).clip(1))[query]


def robustness_counts(
    X: Any,
    label: Any,
    centre: Any,
    slide: Any = None,
    ks: Sequence[int] = (3, 5, 10, 20),
    exclude_same_slide: bool = False,
) -> dict[int, tuple[float, float, float, float]]:
    """Neighbours by class and centre, summed over all queries: what every robustness index is made of.

    G2L's and de Jong's index is (SS + SO) / (SS + OS), PathoROB's is SO / (SO + OS). With one centre SO = OO = 0; with
    one slide a centre and that slide excluded SS = OS = 0: then a ratio may be 0 / 0.

    Args:
        X: (n, d) embeddings. label, centre, slide: (n,) of any type that sorts.
        ks: numbers of neighbours.
        exclude_same_slide: no tile of the query's slide is its neighbour (PathoROB); else only the query itself is not.

    Returns:
        {k: (SS, SO, OS, OO)}: first letter class, second centre, Same or Other. Whole numbers unless neighbours tie for
        the kth place, when they share it.

    Raises:
        DataError: rows that are zero, NaN or Inf; lengths that differ; same-slide exclusion without slides.
    """
    types = neighbour_types(X, label, centre, slide, ks, exclude_same_slide)
    return {k: tuple(float(c) for c in counts.sum(0)) for k, counts in types.items()}  # type: ignore[misc]
