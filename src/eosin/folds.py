"""Who is tested when: folds and parts of rows, stratified by class, and with no patient on both sides where asked.

Random numbers come from numpy's frozen RandomState, so that a seed means the same folds under every numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import array, codes
from .errors import DataError, UsageError

PARTS = ("train", "val", "test")


def kfold(y: Any, n: int = 10, seed: int = 0) -> np.ndarray:
    """The test fold (0 … n - 1) of each row: shuffled, every class spread evenly.

    Equal to scikit-learn's StratifiedKFold(n, shuffle=True, random_state=seed), fold for fold.

    Args:
        y: (n,) labels of any type.

    Raises:
        DataError: a class has fewer rows than there are folds. UsageError: fewer than two folds.
    """
    y = array(y)
    _at_least_two(n)
    labels, first, code = np.unique(y, return_index=True, return_inverse=True)
    counts = np.bincount(code)
    if counts.min() < n:
        raise _too_few(labels, counts, "row", n)
    code = first.argsort().argsort()[code]  # classes are dealt in order of appearance
    row, fold, rng = np.sort(code), np.empty(len(y), np.int64), np.random.RandomState(seed)
    share = np.stack([np.bincount(row[f::n], minlength=len(labels)) for f in range(n)])
    for c in range(len(labels)):
        deal = np.repeat(np.arange(n), share[:, c])
        rng.shuffle(deal)
        fold[code == c] = deal
    return fold


def most(y: Any, group: Any) -> int:
    """The most folds in which every class can be tested: the number of groups of the class that has fewest."""
    return int((_table(array(y), array(group))[0] > 0).sum(0).min())


def grouped(y: Any, group: Any, n: int = 10, seed: int = 0) -> np.ndarray:
    """The test fold of each row, all rows of a group in one fold, classes spread as evenly as groups allow.

    Args:
        y: (n,) labels. group: (n,) patient, site or slide of each row.

    Raises:
        DataError: a class has fewer groups than there are folds; it says how many folds are possible.
    """
    y = array(y)
    _at_least_two(n)
    table, place = _table(y, array(group))
    counts = (table > 0).sum(0)
    if counts.min() < n:
        raise _too_few(np.unique(y), counts, "group", n)
    return _spread(table, np.full(n, 1 / n), np.random.RandomState(seed))[place]


def holdout(y: Any, shares: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0, group: Any = None) -> np.ndarray:
    """The part of each row, "train", "val" or "test", every class (nearly) in the given shares.

    Args:
        y: (n,) labels.
        shares: of train, val, test; with two, of train and val.
        group: (n,), or None. All rows of a group go into one part; a class with fewer groups than parts is then
            missing from some, from training last.

    Raises:
        DataError: a class has fewer rows, or all classes fewer groups, than there are parts.
    """
    y = array(y)
    share = np.asarray(shares, float) / np.sum(shares)
    rng, names = np.random.RandomState(seed), np.array(PARTS[: len(share)])
    if group is not None:
        table, place = _table(y, array(group))
        if len(table) < len(share):
            raise DataError(f"{len(table)} groups cannot fill {len(share)} parts. Give more groups, or none.")
        return names[_spread(table, share, rng)[place]]
    labels, code = np.unique(y, return_inverse=True)
    part = np.empty(len(y), np.int64)
    for c, count in enumerate(np.bincount(code).tolist()):
        if count < len(share):
            raise DataError(
                f"Class {labels[c]} has {count} row{'s' * (count != 1)} for the {len(share)} parts "
                f"{', '.join(names)}. Give it more rows, or leave the class out."
            )
        part[code == c] = rng.permutation(np.repeat(np.arange(len(share)), _sizes(share, count)))
    return names[part]


def given(fold: Any) -> np.ndarray:
    """A fold column that came with the data, checked: whole numbers; negative rows are trained on and never tested.

    Raises:
        DataError: fractions, or fewer than two folds.
    """
    fold = array(fold)
    if fold.ndim != 1 or fold.dtype.kind not in "iuf" or not np.equal(fold, np.round(fold)).all():
        raise DataError("fold must be one whole number a row: the fold in which the row is tested.")
    fold = fold.astype(np.int64)
    if len(np.unique(fold)) < 2 or fold.max() < 0:
        raise DataError(f"fold is {fold[0]} for every row, so nothing is left to train on. Give at least two folds.")
    return fold


def remarks(group: Any, split: Any) -> list[str]:
    """What is odd about a split that came with the data, in sentences.

    Args:
        group: (n,) names, "" where unknown, or None. split: (n,) parts, or None.
    """
    return [text for text in (straddling(group, split), unheard_of(split)) if text]


def unheard_of(split: Any) -> str:
    """A sentence on rows whose split is no part that we know; "" where there are none."""
    words, counts = np.unique(np.asarray([] if split is None else split).astype(str), return_counts=True)
    strange = {str(w): int(n) for w, n in zip(words, counts, strict=True) if w not in (*PARTS, "")}
    if not strange:
        return ""
    named = ", ".join(f"{w!r} ({n} rows)" for w, n in strange.items())
    return f"split says {named}, which is none of {', '.join(PARTS)}: where this split is used, these rows neither train nor are tested."


def straddling(group: Any, split: Any) -> str:
    """A sentence on groups with rows both in train or val and in test; "" where there is none.

    Args:
        group: (n,) names, "" where unknown, or None. split: (n,) parts, or None.
    """
    if group is None or split is None:
        return ""
    group, split = np.asarray(group).astype(str), np.asarray(split).astype(str)
    both = np.intersect1d(group[split == "test"], group[np.isin(split, ("train", "val"))])
    both = both[both != ""]
    if not len(both):
        return ""
    return (
        f"{len(both)} groups (patients) have rows both in train or val and in test, such as {both[0]}: "
        "scores on this split are too good."
    )


def _table(y: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each group by class (groups, classes), and the group number of each row."""
    place, code = codes(group, "group", len(y)), codes(y, "y", len(y))
    table = np.zeros((place.max() + 1, code.max() + 1), np.int64)
    np.add.at(table, (place, code), 1)
    return table, place


def _spread(table: np.ndarray, share: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """The part of each group. Large groups first, in random order among those of like size; each goes where it makes
    the classes least uneven, unless so few groups of a class are left that it must fill a part without that class."""
    weight = table / table.sum(0)  # every class counts as one, however rare
    order = rng.permutation(len(table))
    order = order[np.argsort(-np.floor(np.log2(weight[order].sum(1))), kind="stable")]
    held, waiting = np.zeros((len(share), table.shape[1])), (table > 0).sum(0)
    part = np.empty(len(table), np.int64)
    for g in order:
        there = table[g] > 0
        lacking = (held == 0) & there
        gaps = (lacking & (waiting <= lacking.sum(0))).sum(1)
        cost = ((2 * held + weight[g]) * weight[g]).sum(1) / share
        fit = np.flatnonzero(gaps == gaps.max())
        part[g] = fit[cost[fit].argmin()]
        held[part[g]] += weight[g]
        waiting -= there
    return part


def _sizes(share: np.ndarray, count: int) -> np.ndarray:
    """`count` rows in the given shares, whole, at least one each."""
    size = np.maximum(1, np.floor(share * count)).astype(np.int64)
    while size.sum() != count:
        short = share * count - size
        if size.sum() < count:
            size[short.argmax()] += 1
        else:
            size[np.where(size > 1, short, np.inf).argmin()] -= 1
    return size


def _at_least_two(n: int) -> None:
    if n < 2:
        raise UsageError(f"{n} fold{'s' * (n != 1)}: nothing would be left to train on. Ask for at least two.")


def _too_few(labels: np.ndarray, counts: np.ndarray, unit: str, n: int) -> DataError:
    have = int(counts.min())
    step = f"Ask for at most {have} folds" if have > 1 else f"Give the class more {unit}s"
    return DataError(
        f"{n} folds were asked for, and class {labels[counts.argmin()]} has {have} {unit}{'s' * (have != 1)}: "
        f"a fold would lack it. {step}, or leave the class out."
    )
