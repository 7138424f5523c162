"""Which patches the robustness index is computed on, and what it would be if neighbours meant nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def draw(label: np.ndarray, centre: np.ndarray, sampling: str, per: int, balance: str, seed: int) -> np.ndarray:
    """Row numbers, sorted.

    Args:
        label, centre: (n,) whole numbers.
        sampling: "200", `per` of each class; "4200", `per` of each class in each centre; "all". Where there are fewer,
            all of them.
        balance: under "200": "centre" takes as evenly from a class's centres as there are patches, "none" at random.
    """
    n = len(label)
    if sampling == "all":
        return np.arange(n)
    rng = np.random.RandomState(seed)
    order = rng.permutation(n)
    cell = (label * (centre.max() + 1) + centre)[order]
    turn = np.empty(n, np.int64)  # first, second … of its class and centre
    turn[order] = _rank_within(cell)
    if sampling == "4200":
        return np.flatnonzero(turn < per)
    first = turn[order] if balance == "centre" else np.zeros(n, np.int64)
    order = order[np.argsort(first, kind="stable")]
    taken = np.empty(n, np.int64)
    taken[order] = _rank_within(label[order])
    return np.flatnonzero(taken < per)


def _rank_within(group: np.ndarray) -> np.ndarray:
    """How many equal values stand before each."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def by_chance(label: np.ndarray, centre: np.ndarray, barred: np.ndarray, k: int) -> np.ndarray:
    """(n, 4) SS, SO, OS, OO that each query would have on average if its k neighbours were drawn at random.

    Args:
        barred: (n,) rows of equal value are no neighbours; all different: only the query itself is not.
    """
    n = len(label)
    bar = _unique(barred)
    c, d = _unique(label), _unique(centre)
    both = c * (d.max() + 1) + d
    same, own_class, own_centre = (_others(key, bar) for key in (both, c, d))
    candidates = n - np.bincount(bar)[bar]
    kinds = np.stack([same, own_class - same, own_centre - same, candidates - own_class - own_centre + same], axis=1)
    return kinds * (np.minimum(k, candidates) / np.maximum(candidates, 1))[:, None]


def _others(key: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """How many rows have the key of each row and are not barred to it."""
    here = _unique(key * (bar.max() + 1) + bar)
    return np.bincount(key)[key] - np.bincount(here)[here]


def _unique(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]


def pairs_of(label: np.ndarray, centre: np.ndarray, subset: np.ndarray | None) -> tuple[list[np.ndarray], int]:
    """PathoROB's 2 x 2 evaluation: the rows of each subset within which neighbours are sought.

    Args:
        subset: (n,) names of the subsets where the data come with them (PathoROB's manifest); else None: every two
            classes in every two centres.

    Returns:
        Row numbers of each subset, and how many subsets lack one of the four cells and were passed over.
    """
    if subset is not None:
        return [np.flatnonzero(subset == s) for s in np.unique(subset)], 0
    found, short = [], 0
    for classes in combinations(np.unique(label), 2):
        for centres in combinations(np.unique(centre), 2):
            rows = np.flatnonzero(np.isin(label, classes) & np.isin(centre, centres))
            if len(set(zip(label[rows].tolist(), centre[rows].tolist(), strict=True))) == 4:
                found.append(rows)
            else:
                short += 1
    return found, short
