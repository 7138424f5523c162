"""Intervals: how far a score could be from what it would be on other patients, or on other folds.

`bootstrap` resamples patients and answers the first question for the embeddings and probes at hand; it knows nothing of
the luck of training. `t_interval` takes a few fold values for independent draws, which folds that share training rows
are not: a rule of thumb, usually too narrow. `interval` takes the first where there are predictions, else the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import metrics
from .arrays import array, codes, rows_of
from .errors import DataError

NOTHING = (float("nan"), float("nan"))
CELLS = 2**22  # numbers held at once: resamples x rows
FEW = 16  # groups are few where their square is at most so many times the rows

Weighted = Callable[[np.ndarray], np.ndarray]  # how often each group is drawn (b, groups) -> the metric's values (b,)


def interval(
    metric: str, values: Sequence[float], y: Any = None, score: Any = None, group: Any = None, **options: Any
) -> tuple[float, float, str]:
    """(low, high, how it was made): by `bootstrap` of the predictions where there are some, else by `t_interval`.

    Args:
        metric: its name. values: what the folds or seeds gave.
        y, score, group: the predictions, as `bootstrap` takes them. options: its fold, seeds, n, seed, level.
    """
    level = options.get("level", 0.95)
    if metric in BY_WEIGHT and y is not None and score is not None:
        low, high = bootstrap(metric, y, score, group, **options)
        what = "rows" if group is None else "groups"
        how = f"bootstrap of {what}, {options.get('n', 1000)} resamples, expanded percentiles, level {level:g}"
        return low, high, how if np.isfinite(low) else "none: fewer than two groups, or undefined in every resample"
    low, high = t_interval(values, level)
    how = f"t over {len(values)} values as if independent, level {level:g}"
    return low, high, how if np.isfinite(low) else "none: fewer than two values, or one that is not a number"


def bootstrap(
    metric: str | Callable[[np.ndarray, np.ndarray], float],
    y: Any,
    score: Any,
    group: Any = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    fold: Any = None,
    seeds: Any = None,
) -> tuple[float, float]:
    """Interval of a score under other draws of the patients, by resampling them with replacement.

    A drawn group brings all its rows, as often as it is drawn. The metric is computed as it was scored: within each
    (seed, fold), then averaged over these; one in which a resample leaves it undefined (a single class) is left out.
    The percentiles are expanded (Hesterberg 2015, "What teachers should know about the bootstrap": t for normal, and
    sqrt(G / (G - 1)) for the plug-in spread; see `freedom`), without which fewer than 50 groups, or groups of which a few
    have most rows, give too narrow an interval. Below about 10 groups no bootstrap is to be trusted.

    Args:
        metric: "accuracy", "balanced_accuracy", "auroc" or "pearson" (mean over columns), computed from weights, exact
            and fast; or any function (y, score) -> float, called once a resample and fold.
        y: (rows,) labels, or (rows, g) targets. score: (rows,) predicted labels or scores, (rows, c) scores of which
            the accuracies take the largest, or (rows, g) predicted targets.
        group: (rows,) what is drawn together: the patient; default each row for itself.
        n: resamples. seed: of the resampling. level: of the interval.
        fold, seeds: (rows,) where predictions are pooled over folds and repeats. Repeats need `group` (the patient,
            else the item's id), because the same items come again.

    Returns:
        (low, high); nan where there is one group only, or the metric is defined in no resample.

    Raises:
        DataError: lengths that differ, repeats without groups, an unknown metric, NaN (the rows are named).
    """
    y, score = rows_of(y, "y"), rows_of(score, "score")
    if len(y) != len(score):
        raise DataError(f"y has {len(y)} rows and score {len(score)}. Give both for the same items.")
    if group is None and seeds is not None and len(np.unique(array(seeds))) > 1:
        raise DataError("Several seeds predict the same items. Give `group`: the patient, else the id of the item.")
    owner = np.arange(len(y)) if group is None else codes(group, "group", len(y))
    groups = int(owner.max()) + 1
    if groups < 2:
        return NOTHING
    found = resampled(metric, y, score, owner, groups, n, seed, fold, seeds)
    return percentiles(found, level, groups, freedom(owner))


def resampled(
    metric: str | Callable[[np.ndarray, np.ndarray], float],
    y: np.ndarray,
    score: np.ndarray,
    owner: np.ndarray,
    groups: int,
    n: int = 1000,
    seed: int = 0,
    fold: Any = None,
    seeds: Any = None,
) -> np.ndarray:
    """(n,) the metric under each resample of the groups, as `bootstrap` takes them; nan where it is undefined.

    Two calls with the same `groups`, `n` and `seed` draw the same groups: their difference is a paired bootstrap.

    Args:
        owner: (rows,) whose each row is, 0 … groups - 1.
    """
    value, rows = by_groups(metric, y, score, owner, fold, seeds)
    return np.concatenate([value(draws) for draws in _resamples(n, groups, seed, rows)])


def by_groups(
    metric: str | Callable[[np.ndarray, np.ndarray], float],
    y: np.ndarray,
    score: np.ndarray,
    owner: np.ndarray,
    fold: Any = None,
    seeds: Any = None,
) -> tuple[Weighted, int]:
    """The metric, averaged over (seed, fold), as a function of how often each group counts; the rows of the largest."""
    parts = []
    for rows in cells(len(y), fold, seeds):
        present, local = np.unique(owner[rows], return_inverse=True)
        parts.append((present, _weighted(metric, y[rows], score[rows], local), len(rows)))

    def value(draws: np.ndarray) -> np.ndarray:
        return _nanmean(np.column_stack([of(draws[:, present]) for present, of, _ in parts]))

    return value, max(size for *_, size in parts)


def freedom(owner: np.ndarray) -> float:
    """Degrees of freedom of groups that weigh as their rows, by Satterthwaite's formula: (sum n^2)^2 / sum n^4, at most G - 1.

    Equal groups have G - 1; five patients of 100 tiles and 45 of 10 have six, for they decide (Bell and McCaffrey 2002).
    """
    weight = np.bincount(owner).astype(np.float64) ** 2
    return float(min(len(weight) - 1, weight.sum() ** 2 / (weight**2).sum()))


def percentiles(found: np.ndarray, level: float, groups: int, left: float) -> tuple[float, float]:
    """The percentiles, expanded for so many degrees of freedom, of what a bootstrap of groups found; nan if it found nothing."""
    found = found[np.isfinite(found)]
    if not len(found):
        return NOTHING
    low, high = np.quantile(found, _expanded(level, groups, left))
    return float(low), float(high)


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """mean ± t(n - 1) s / sqrt(n) of a few values, as if they were independent and normal; s with ddof 1.

    Folds share training rows and seeds share everything but luck, so this is no interval for new patients: it says how
    far the mean of so many such values may wander. nan for fewer than two values, or one that is nan.
    """
    v = np.asarray(array(values), float)
    if v.size < 2 or not np.isfinite(v).all():
        return NOTHING
    from scipy.special import stdtrit

    half = stdtrit(v.size - 1, (1 + level) / 2) * v.std(ddof=1) / np.sqrt(v.size)
    return float(v.mean() - half), float(v.mean() + half)


def jackknife(statistic: Callable[[np.ndarray], float], units: Any, level: float = 0.95) -> tuple[float, float]:
    """Interval of a statistic of observations that share units, such as pairs of slides: whole ± t(m - 1) s.

    Args:
        statistic: a function of which observations count, (n,) bool. units: (n, c) what each is made of; m in all.

    Returns:
        (low, high); nan for fewer than three units, or where the statistic is undefined without one of them.
    """
    from scipy.special import stdtrit

    whole, error, units_left = jackknife_error(statistic, units)
    half = stdtrit(units_left, (1 + level) / 2) * error
    return float(whole - half), float(whole + half)


def jackknife_error(statistic: Callable[[np.ndarray], float], units: Any) -> tuple[float, float, int]:
    """(the statistic, its standard error s, m - 1) by leaving out one unit at a time, with all of its observations.

    s^2 = (m - 1) / m sum (without unit u - mean of these)^2 (Tukey 1958). Three nan's for fewer than three units.
    """
    units = array(units)
    names = np.unique(units)
    if len(names) < 3:
        return float("nan"), float("nan"), 1
    without = np.array([statistic(~(units == u).any(1)) for u in names])
    whole = statistic(np.ones(len(units), bool))
    return float(whole), float(np.sqrt((len(names) - 1) * without.var())), len(names) - 1


def _expanded(level: float, groups: int, left: float) -> list[float]:
    """The two percentiles, moved outwards as far as t exceeds the normal and the plug-in spread falls short."""
    from scipy.special import ndtr, stdtrit

    tail = ndtr(stdtrit(left, (1 - level) / 2) * np.sqrt(groups / (groups - 1)))
    return [float(tail), float(1 - tail)]


def cells(rows: int, fold: Any, seeds: Any) -> list[np.ndarray]:
    """The row numbers of each (seed, fold)."""
    cell = np.zeros(rows, np.int64)
    for name, part in (("fold", fold), ("seeds", seeds)):
        if part is not None:
            part = codes(part, name, rows)
            cell = cell * (part.max() + 1) + part
    return [np.flatnonzero(cell == c) for c in np.unique(cell)]


def _resamples(n: int, groups: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, (b, groups) at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, CELLS // max(groups, rows))
    for b in (min(step, n - start) for start in range(0, n, step)):
        draws = [np.bincount(rng.integers(groups, size=groups), minlength=groups) for _ in range(b)]
        yield np.array(draws, np.float64)


def _weighted(metric: Any, y: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    """The metric of these rows as a function of how often each of their groups is drawn."""
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "")
    if name in BY_WEIGHT and metric in (name, getattr(metrics, name)):
        return BY_WEIGHT[name](y, score, owner)
    if not callable(metric):
        raise DataError(f"No bootstrap for the metric {metric!r}. Known: {', '.join(BY_WEIGHT)}; or give a function.")

    def value(draws: np.ndarray) -> np.ndarray:
        drawn = [np.repeat(np.arange(len(y)), times) for times in draws[:, owner].astype(int)]
        return np.array([metric(y[rows], score[rows]) if len(rows) else np.nan for rows in drawn])

    return value


def _accuracy(y: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    right = _sums(owner, np.column_stack([_predicted(y, score), np.ones(len(y))]))
    return lambda draws: _over(*(draws @ right).T)


def _balanced_accuracy(y: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    of_class = y[:, None] == np.unique(y)
    right, number = _sums(owner, of_class & _predicted(y, score)[:, None]), _sums(owner, of_class)
    return lambda draws: _nanmean(_over(draws @ right, draws @ number))


def _auroc(y: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    """The area of each class against the rest: its rows, each times the negatives below it and half of those level."""
    if score.ndim == 2 and score.shape[1] > 2:
        code = metrics.class_codes(y, score.shape[1])
        parts = [(code == c, score[:, c]) for c in np.unique(code)]
    else:
        parts = [(y == y.max(), score.reshape(len(y), -1)[:, -1])]
    areas = [_area(positive, s, owner) for positive, s in parts]
    return lambda draws: _nanmean(np.column_stack([area(draws) for area in areas]))


def _area(positive: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    """The area as a function of how often groups count: from sums over rows, or, where groups are few, from how often the
    positives of each win over the negatives of each."""
    if (owner.max() + 1) ** 2 <= FEW * len(owner):
        return _area_of_groups(positive, score, owner)
    order = np.argsort(score[~positive], kind="stable")
    negatives, level = owner[~positive][order], score[~positive][order]
    below, upto = (np.searchsorted(level, score[positive], side) for side in ("left", "right"))

    def area(draws: np.ndarray) -> np.ndarray:
        passed = np.zeros((len(draws), len(negatives) + 1))
        np.cumsum(draws[:, negatives], axis=1, out=passed[:, 1:])
        weight = draws[:, owner[positive]]
        wins = np.einsum("ij,ij->i", weight, passed[:, below] + passed[:, upto]) / 2
        return _over(wins, weight.sum(1) * passed[:, -1])

    return area


def _area_of_groups(positive: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    groups = int(owner.max()) + 1
    order = np.argsort(score, kind="stable")
    positive, score, owner = positive[order], score[order], owner[order]
    high, whose = score[positive], owner[positive]
    wins = np.zeros((groups, groups))
    for g in np.unique(owner[~positive]):
        level = score[~positive & (owner == g)]
        below = np.searchsorted(level, high, "left") + np.searchsorted(level, high, "right")
        wins[:, g] = np.bincount(whose, below, groups) / 2
    count = np.column_stack([np.bincount(o, minlength=groups) for o in (whose, owner[~positive])])

    def area(draws: np.ndarray) -> np.ndarray:
        pairs = (draws @ count).prod(1)
        return _over(np.einsum("ij,ij->i", draws @ wins, draws), pairs)

    return area


def _pearson(y: np.ndarray, score: np.ndarray, owner: np.ndarray) -> Weighted:
    """Mean over columns, those left out that are constant."""
    y, p = (v.reshape(len(v), -1).astype(np.float64) for v in (y, score))
    varied = (y != y[0]).any(0) & (p != p[0]).any(0)
    y, p = (v[:, varied] - v[:, varied].mean(0) for v in (y, p))
    parts = [_sums(owner, v) for v in (np.ones((len(y), 1)), y, p, y * y, p * p, y * p)]

    def value(draws: np.ndarray) -> np.ndarray:
        n, sy, sp, syy, spp, syp = (draws @ part for part in parts)
        n = np.maximum(n, 1)
        spread = np.sqrt(np.maximum(syy - sy * sy / n, 0) * np.maximum(spp - sp * sp / n, 0))
        return _nanmean(_over(syp - sy * sp / n, spread))

    return value


BY_WEIGHT: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Weighted]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "auroc": _auroc,
    "pearson": _pearson,
}


def _predicted(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(rows,) whether the predicted label, or the class of the largest score, is the true one."""
    return metrics.class_codes(y, score.shape[1]) == score.argmax(1) if score.ndim == 2 else y == score


def _sums(owner: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(groups, c) sums of the (rows, c) columns within each group; every group has a row."""
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], np.arange(owner.max() + 1))
    return np.add.reduceat(columns[order].astype(np.float64), first, axis=0)


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; nan where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Row means without nan; nan where a row has nothing else."""
    there = np.isfinite(values)
    return _over(np.where(there, values, 0).sum(1), there.sum(1))
