"""Paired tests: are two models different, or were these the patients, folds or slides that favour one of them?

Where the predictions of both are kept, patients decide: `of_predictions`. Where only fold values are, the corrected
resampled t-test: `of_values`. Where observations are pairs that share slides, the jackknife over slides: `of_pairs`.
`holm` corrects a table of p values; `ranks` and `critical_difference` compare models over a suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import stats
from .arrays import array, codes, rows_of
from .errors import DataError

RESAMPLES = 2000
NAN = float("nan")

Predictions = Mapping[str, np.ndarray]  # y, score, and id, group, fold, seed where known; see docs/record.md


@dataclass(frozen=True)
class Difference:
    """A minus B, its interval, the p value of no difference, how they were made, and from how many units."""

    value: float
    low: float
    high: float
    p: float
    how: str
    units: int


def of_predictions(
    metric: Any, a: Predictions, b: Predictions, n: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Difference:
    """Paired bootstrap for the interval, permutation for p: both by group, on the same rows of both models.

    With few groups, or some far larger than others, both are too sure; so the interval is never narrower and p never
    smaller than those of the jackknife over groups, where there are no more groups than resamples.

    Args:
        metric: as `stats.bootstrap` takes it. a, b: predictions of both models; `id` is the group where none is given.

    Raises:
        DataError: the two predict other rows, or the same rows with other labels.
    """
    b = aligned(a, b)
    low, high = bootstrap(metric, a, b, n, seed, level)
    value, p = permutation(metric, a, b, n, seed)
    units = int(owners(a)[0].max()) + 1
    if 2 < units <= n:
        careful = _leaving_out(metric, a, b, value, level)
        if np.isfinite([low, careful.low]).all():
            low, high = min(low, careful.low), max(high, careful.high)
        p = float(np.fmax(p, careful.p))
    return Difference(value, low, high, p, f"bootstrap and permutation of {units} groups, {n} resamples", units)


def bootstrap(
    metric: Any, a: Predictions, b: Predictions, n: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Interval of metric(a) - metric(b): each resample draws the same groups for both. As `stats.bootstrap`.

    The rows need not be the same (other folds of the same patients); the groups should be.
    """
    mine, theirs = owners(a, b)
    groups = int(max(mine.max(), theirs.max())) + 1
    if groups < 2:
        return stats.NOTHING
    found = [
        stats.resampled(metric, *_checked(p), owner, groups, n, seed, p.get("fold"), p.get("seed"))
        for p, owner in ((a, mine), (b, theirs))
    ]
    return stats.percentiles(found[0] - found[1], level, groups, stats.freedom(mine))


def permutation(metric: Any, a: Predictions, b: Predictions, n: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """(metric(a) - metric(b), p): how often a difference as large comes of swapping the models within random groups.

    A group is swapped whole, in all folds and seeds. p = (1 + as large) / (1 + n), two-sided. Scores are ranked first for
    `auroc` and standardised for `pearson`, within each fold and seed, to which these metrics are blind: otherwise the test
    would mistake two scales for a difference (Venkatraman and Begg 1996). p is nan for fewer than two groups.

    Args:
        a, b: predictions of the same rows in the same order, as `aligned` leaves them.
    """
    owner = owners(a)[0]
    groups = int(owner.max()) + 1
    y, mine = _checked(a)
    theirs = _checked(b)[1]
    parts = {k: a.get(k) for k in ("fold", "seed")}
    cells = stats.cells(len(y), parts["fold"], parts["seed"])
    score = np.concatenate([_alike(metric, s, cells) for s in (mine, theirs)])
    twice = {k: None if v is None else np.tile(array(v), 2) for k, v in parts.items()}
    both = np.concatenate([owner, owner + groups])
    value, rows = stats.by_groups(metric, np.concatenate([y, y]), score, both, twice["fold"], twice["seed"])

    def gap(swapped: np.ndarray) -> np.ndarray:
        as_a, as_b = np.column_stack([1 - swapped, swapped]), np.column_stack([swapped, 1 - swapped])
        return value(as_a) - value(as_b)

    seen = float(gap(np.zeros((1, groups)))[0])
    if groups < 2 or not np.isfinite(seen):
        return seen, NAN
    rng, step = np.random.default_rng(seed), max(1, stats.CELLS // max(2 * groups, rows))
    large = 0
    for start in range(0, n, step):
        swaps = rng.integers(2, size=(min(step, n - start), groups)).astype(np.float64)
        found = gap(swaps)
        large += int((~(np.abs(found) < abs(seen) - 1e-12)).sum())  # an undefined one counts against a difference
    return seen, (1 + large) / (1 + n)


def _leaving_out(metric: Any, a: Predictions, b: Predictions, value: float, level: float) -> Difference:
    """The difference by the jackknife over groups: s^2 = (G - 1) / G sum (without group g - whole)^2, cautious as CR3.

    Degrees of freedom: `stats.freedom`.
    """
    owner = owners(a)[0]
    groups = int(owner.max()) + 1
    without = 1 - np.eye(groups)
    found = []
    for p in (a, b):
        of, rows = stats.by_groups(metric, *_checked(p), owner, p.get("fold"), p.get("seed"))
        step = max(1, stats.CELLS // max(groups, rows))
        found.append(np.concatenate([of(without[i : i + step]) for i in range(0, groups, step)]))
    spread = found[0] - found[1] - value
    error = float(np.sqrt((groups - 1) / groups * np.nansum(spread**2)))
    return _t(value, error, stats.freedom(owner), level, "", groups)


def of_values(a: Sequence[float], b: Sequence[float], ratio: float, level: float = 0.95) -> Difference:
    """The corrected resampled t-test of fold values (Nadeau and Bengio 2003): folds share training rows.

    t = mean d / sqrt((1 / J + ratio) s^2), J - 1 degrees of freedom, d = a - b fold by fold.

    Args:
        ratio: test rows over training rows: 1 / (k - 1) for k folds (also repeated), 1 / 3 for 6:2:2. 0: the naive test.

    Raises:
        DataError: not as many values of one model as of the other.
    """
    x, z = (np.asarray(array(v), float) for v in (a, b))
    if x.shape != z.shape or x.ndim != 1:
        raise DataError(f"{x.size} and {z.size} values. Both models need the same folds.")
    d = x - z
    how = f"corrected resampled t over {d.size} values, test:train {ratio:.3g}"
    if d.size < 2 or not np.isfinite(d).all():
        return Difference(float(d.mean()) if d.size else NAN, NAN, NAN, NAN, how + ": too few, or undefined", d.size)
    error = float(np.sqrt((1 / d.size + ratio) * d.var(ddof=1)))
    return _t(float(d.mean()), error, d.size - 1, level, how, d.size)


def of_pairs(
    statistic: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray, units: Any, level: float = 0.95
) -> Difference:
    """statistic(a) - statistic(b) of observations that share units, such as pairs of slides: jackknife over the units.

    Args:
        statistic: of (values, which of them count). a, b: (n, …) the observations of both models. units: (n, c) what each
            is made of; a unit is left out with all of its observations.
    """
    whole, error, left = stats.jackknife_error(lambda keep: statistic(a, keep) - statistic(b, keep), units)
    m = len(np.unique(array(units)))
    return _t(whole, error, left, level, f"jackknife over {m} slides", m)


def holm(p: Sequence[float]) -> np.ndarray:
    """p values adjusted for all of them together (Holm 1979); nan stays nan and is not counted."""
    found = np.asarray(p, float)
    out, known = np.full(found.shape, NAN), np.flatnonzero(np.isfinite(found))
    if len(known):
        order = known[np.argsort(found[known], kind="stable")]
        steps = found[order] * (len(order) - np.arange(len(order)))
        out[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return out


def ranks(scores: Any, lower: Any = False) -> np.ndarray:
    """(models,) mean rank over benchmarks, 1 the best, ties shared. scores: (models, benchmarks), lower: which are better low."""
    from scipy.stats import rankdata

    scores = rows_of(np.asarray(scores, float), "scores")
    return rankdata(np.where(lower, scores, -scores), axis=0).mean(1)


def critical_difference(models: int, benchmarks: int, level: float = 0.95) -> float:
    """Nemenyi's: mean ranks that differ by less are not told apart (Demsar 2006, JMLR 7, equation for CD).

    q sqrt(k (k + 1) / 6 N), q the studentised range's quantile over sqrt 2, for infinitely many degrees of freedom.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(level, models, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(models * (models + 1) / (6 * benchmarks)))


def friedman(scores: Any) -> float:
    """p of the null that all models are alike over the benchmarks; nan for fewer than three models or two benchmarks."""
    from scipy.stats import friedmanchisquare

    scores = np.asarray(scores, float)
    if scores.shape[0] < 3 or scores.shape[1] < 2 or (scores == scores[0]).all():
        return NAN
    return float(friedmanchisquare(*scores).pvalue)


def aligned(a: Predictions, b: Predictions) -> Predictions:
    """`b` in the order of `a`'s rows. DataError where they are not the same rows (id, fold, seed) with the same labels."""
    keys = [k for k in ("seed", "fold", "id") if k in a and k in b]
    if "id" not in keys:
        raise DataError("Predictions without `id` cannot be paired. Run both models again with this version.")
    orders = [np.lexsort([np.asarray(p[k]) for k in keys]) for p in (a, b)]
    for k in keys:
        x, z = (np.asarray(p[k])[order] for p, order in zip((a, b), orders, strict=True))
        if not np.array_equal(x, z):
            lost = np.setdiff1d(x, z) if len(np.setdiff1d(x, z)) else np.setdiff1d(z, x)
            such = f", such as {lost[0]}" if len(lost) else ""
            raise DataError(f"The two models were tested on other rows: {len(x)} and {len(z)} ({k} differs{such}).")
    back = np.empty_like(orders[0])
    back[orders[0]] = orders[1]
    out = {k: np.asarray(v)[back] for k, v in b.items()}
    if not np.array_equal(np.asarray(a["y"]), out["y"]):
        raise DataError("The two models were tested against other labels. Run both again on the same table.")
    return out


def owners(*predictions: Predictions) -> list[np.ndarray]:
    """(rows,) the number of each row's group, one numbering for all; the id where there is no group."""
    named = [np.asarray(p["group"] if "group" in p else p["id"]).astype(str) for p in predictions]
    code = codes(np.concatenate(named), "group", sum(map(len, named)))
    return np.split(code, np.cumsum([len(v) for v in named])[:-1])


def _checked(p: Predictions) -> tuple[np.ndarray, np.ndarray]:
    y, score = rows_of(p["y"], "y"), rows_of(p["score"], "score")
    if len(y) != len(score):
        raise DataError(f"y has {len(y)} rows and score {len(score)}. Give both for the same items.")
    return y, score


def _alike(metric: Any, score: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """Scores on a scale that two models share, where the metric does not see the scale."""
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "")
    if name not in ("auroc", "pearson"):
        return score
    out = score.astype(np.float64)
    for rows in cells:
        part = out[rows]
        if name == "auroc":
            from scipy.stats import rankdata

            out[rows] = rankdata(part, axis=0)
        else:
            varied = np.ptp(part, axis=0) > 0
            out[rows] = np.where(varied, part - part.mean(0), 0) / np.where(varied, part.std(0), 1)
    return out


def _t(value: float, error: float, left: float, level: float, how: str, units: int) -> Difference:
    """A difference with its standard error, by Student's t."""
    from scipy.special import stdtr, stdtrit

    if not np.isfinite(error) or error <= 1e-12:
        same = np.isfinite(error) and abs(value) <= 1e-12
        return Difference(value, *stats.NOTHING, 1.0 if same else NAN, how + ": no spread", units)
    half = float(stdtrit(left, (1 + level) / 2)) * error
    return Difference(value, value - half, value + half, float(2 * stdtr(left, -abs(value) / error)), how, units)
