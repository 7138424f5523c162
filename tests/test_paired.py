"""Paired tests against known truth: coverage, false positives, power; the corrections against their textbooks."""

import numpy as np
import pytest

from eosin import metrics, paired, stats
from eosin.errors import DataError


def predictions(y, score, group, **more):
    ids = np.array([f"t{i}" for i in range(len(y))])
    return {"id": ids, "y": np.asarray(y), "score": np.asarray(score), "group": np.asarray(group).astype(str), **more}


def two_models(rng, patients=50, rows=10, better=0.0, metric="accuracy"):
    """Two models on clustered tiles: A's patients differ in how hard they are, B's do not; equal expected scores.

    `rows`: tiles of every patient, or of each.
    """
    g = np.repeat(np.arange(patients), rows)
    n = len(g)
    if metric in ("accuracy", "balanced_accuracy"):
        y = (rng.random(n) < 0.4).astype(int)
        right_a = rng.random(n) < np.clip(rng.beta(4, 2, patients)[g] + better, 0, 1)
        right_b = rng.random(n) < 2 / 3
        return predictions(y, np.where(right_a, y, 1 - y), g), predictions(y, np.where(right_b, y, 1 - y), g)
    if metric == "auroc":
        y = (rng.random(n) < 0.4).astype(int)
        a = y * (1 + better) + 0.8 * rng.standard_normal(n) + 0.6 * rng.standard_normal(patients)[g]
        return predictions(y, a, g), predictions(y, np.exp(3 * (y + rng.standard_normal(n))), g)
    y = rng.standard_normal((n, 2))
    a = (1 + better) * y + 0.9 * rng.standard_normal((n, 2)) + np.sqrt(0.19) * rng.standard_normal((patients, 2))[g]
    return predictions(y, a, g), predictions(y, 7 * (y + rng.standard_normal((n, 2))), g)


def test_the_interval_is_that_of_rows_drawn_by_hand():
    a, b = two_models(np.random.default_rng(0), patients=12, rows=6)
    found = paired.bootstrap("accuracy", a, b, n=50, seed=3)
    rng, group = np.random.default_rng(3), np.repeat(np.arange(12), 6)
    name = np.unique(a["group"], return_inverse=True)[1]
    gaps = []
    for _ in range(50):
        times = np.bincount(rng.integers(12, size=12), minlength=12)
        rows = np.repeat(np.arange(len(group)), times[name])
        gaps.append(np.mean(a["y"][rows] == a["score"][rows]) - np.mean(b["y"][rows] == b["score"][rows]))
    assert found == pytest.approx(np.quantile(gaps, stats._expanded(0.95, 12, 11)), abs=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "auroc", "pearson"])
def test_permutation_is_swapping_rows_by_hand(metric):
    a, b = two_models(np.random.default_rng(1), patients=8, rows=9, metric=metric)
    fold = np.arange(72) % 2
    a, b = {**a, "fold": fold}, {**b, "fold": fold}
    seen, p = paired.permutation(metric, a, b, n=60, seed=5)
    plain = {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "auroc": metrics.auroc,
        "pearson": lambda y, s: float(np.mean(metrics.pearson(y, s))),
    }[metric]

    def gap(x, z):
        return np.mean(
            [plain(a["y"][fold == f], x[fold == f]) - plain(a["y"][fold == f], z[fold == f]) for f in (0, 1)]
        )

    assert seen == pytest.approx(gap(a["score"], b["score"]), abs=1e-12)
    cells = [np.flatnonzero(fold == f) for f in (0, 1)]
    x, z = (paired._alike(metric, s["score"], cells) for s in (a, b))
    owner = paired.owners(a)[0]
    large = 0
    for swap in np.random.default_rng(5).integers(2, size=(60, 8)):
        row = swap[owner].astype(bool).reshape(-1, *[1] * (x.ndim - 1))
        large += abs(gap(np.where(row, z, x), np.where(row, x, z))) >= abs(seen) - 1e-9
    assert p == (1 + large) / 61


def test_equal_models_and_clear_differences():
    rng = np.random.default_rng(2)
    a, b = two_models(rng)
    same = paired.of_predictions("accuracy", a, a, n=200)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    a, b = two_models(rng, better=0.25)
    d = paired.of_predictions("accuracy", a, b, n=300)
    back = paired.of_predictions("accuracy", b, a, n=300)
    assert d.low > 0 and d.p < 0.01 and d.units == 50
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-d.value, -d.high, -d.low, d.p))


def test_scales_do_not_matter_to_metrics_that_do_not_see_them():
    for metric in ("auroc", "pearson"):
        a, b = two_models(np.random.default_rng(3), metric=metric, patients=20)
        stretched = {**b, "score": b["score"] * 1000 - 5}
        assert paired.permutation(metric, a, stretched, 100) == pytest.approx(paired.permutation(metric, a, b, 100))


def test_rows_are_aligned_or_refused():
    rng = np.random.default_rng(4)
    a, b = two_models(rng, patients=10)
    order = rng.permutation(len(b["y"]))
    mixed = {k: v[order] for k, v in b.items()}
    assert paired.of_predictions("accuracy", a, mixed, 100) == paired.of_predictions("accuracy", a, b, 100)
    with pytest.raises(DataError, match="other rows: 100 and 99"):
        paired.aligned(a, {k: v[1:] for k, v in b.items()})
    with pytest.raises(DataError, match="other rows.*id differs, such as t3"):
        paired.aligned(a, {**b, "id": np.where(b["id"] == "t3", "x", b["id"])})
    with pytest.raises(DataError, match="other labels"):
        paired.aligned(a, {**b, "y": 1 - b["y"]})
    with pytest.raises(DataError, match="without `id`"):
        paired.aligned({k: v for k, v in a.items() if k != "id"}, b)


def test_one_group_tests_nothing():
    a, b = two_models(np.random.default_rng(5), patients=1, rows=40)
    d = paired.of_predictions("accuracy", a, b, 100)
    assert np.isnan([d.low, d.high, d.p]).all() and np.isfinite(d.value)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "auroc", "pearson"])
def test_coverage_and_false_positives_on_patients(metric):
    """50 patients, models of equal expected score: the interval holds 0 in 95 ± 2 %, p is at most 0.05 in at most 5 %."""
    rng, runs = np.random.default_rng(6), 600
    held, wrong, naive = 0, 0, 0
    for run in range(runs):
        a, b = two_models(rng, metric=metric)
        d = paired.of_predictions(metric, a, b, n=200, seed=run)
        held += d.low <= 0 <= d.high
        wrong += d.p <= 0.05
        if run < 200:
            low, high = paired.bootstrap(metric, {**a, "group": a["id"]}, {**b, "group": b["id"]}, 100, run)
            naive += low <= 0 <= high
    assert 0.93 <= held / runs <= 0.98, held / runs
    assert wrong / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs), wrong / runs
    if metric == "accuracy":
        assert naive / 200 < 0.93  # tiles drawn one by one: too narrow


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["a few large", "spread"])
def test_patients_of_very_unequal_size(sizes):
    """Where the permutation alone would be too sure: intervals hold, p is at most 0.05 in at most 5 %."""
    rng, runs, held, wrong = np.random.default_rng(11), 500, 0, 0
    for run in range(runs):
        rows = np.where(np.arange(50) < 5, 100, 10)
        if sizes == "spread":
            rows = np.maximum(1, 10 * np.exp(rng.standard_normal(50))).astype(int)
        d = paired.of_predictions("accuracy", *two_models(rng, rows=rows), n=200, seed=run)
        held, wrong = held + (d.low <= 0 <= d.high), wrong + (d.p <= 0.05)
    assert held / runs >= 0.93 and wrong / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs), (held / runs, wrong / runs)


def test_coverage_and_false_positives_in_short():
    rng, runs, held, wrong, found = np.random.default_rng(7), 150, 0, 0, 0
    for run in range(runs):
        d = paired.of_predictions("accuracy", *two_models(rng), n=150, seed=run)
        held, wrong = held + (d.low <= 0 <= d.high), wrong + (d.p <= 0.05)
        found += paired.of_predictions("accuracy", *two_models(rng, better=0.15), n=150, seed=run).p <= 0.05
    assert held / runs >= 0.89 and wrong / runs <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / runs)
    assert found / runs > 0.8  # 15 points of accuracy, 50 patients


def test_corrected_t_is_the_formula():
    a, b = [0.9, 0.8, 0.85, 0.7, 0.75], [0.8, 0.8, 0.8, 0.72, 0.7]
    d = np.subtract(a, b)
    from scipy.stats import t, ttest_rel

    naive = paired.of_values(a, b, ratio=0)
    assert naive.p == pytest.approx(ttest_rel(a, b).pvalue)
    found = paired.of_values(a, b, ratio=1 / 4)
    error = np.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    assert found.p == pytest.approx(2 * t.sf(abs(d.mean() / error), 4))
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 4) * error)
    assert found.p > naive.p
    assert paired.of_values(a, a, 0.25).p == 1 and np.isnan(paired.of_values([0.5], [0.4], 1).p)
    assert np.isnan(paired.of_values([0.5, 0.6], [0.4, 0.5], 1).p)  # no spread at all
    assert np.isnan(paired.of_values([0.5, np.nan], [0.4, 0.5], 1).p)
    with pytest.raises(DataError, match="2 and 3 values"):
        paired.of_values([1, 2], [1, 2, 3], 1)


@pytest.mark.slow
def test_corrected_t_holds_on_repeated_splits_where_the_naive_one_fails():
    """Two nearest-mean classifiers on features of equal worth, 15 splits of 160:40 of the same 200 rows."""
    rng, runs = np.random.default_rng(8), 300
    wrong = {0.0: 0, 0.25: 0}
    for _ in range(runs):
        y = rng.integers(0, 2, 200)
        X = [0.35 * y[:, None] + rng.standard_normal((200, 4)) for _ in range(2)]
        values = [[], []]
        for _ in range(15):
            test = rng.permutation(200) < 40
            for own, features in zip(values, X, strict=True):
                means = [features[~test & (y == c)].mean(0) for c in (0, 1)]
                distance = [((features[test] - m) ** 2).sum(1) for m in means]
                own.append(np.mean((distance[1] < distance[0]) == y[test]))
        for ratio in wrong:
            wrong[ratio] += paired.of_values(*values, ratio).p <= 0.05
    assert wrong[0.25] / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs), wrong
    assert wrong[0.0] / runs > 0.15


def slide_pairs(rng, slides=20, better=0.0):
    """Values of two models on all pairs of slides: each slide has its own ease, for each model."""
    ends = np.array([(i, j) for i in range(slides) for j in range(i)])
    a, b = (rng.standard_normal(slides)[ends].sum(1) + 0.3 * rng.standard_normal(len(ends)) for _ in range(2))
    return a + better, b, ends


def test_pairs_that_share_slides():
    rng, wrong, naive, found = np.random.default_rng(9), 0, 0, 0

    def median(v, keep):
        return float(np.median(v[keep]))

    from scipy.stats import ttest_rel

    for _ in range(150):
        a, b, ends = slide_pairs(rng)
        wrong += paired.of_pairs(median, a, b, ends).p <= 0.05
        naive += ttest_rel(a, b).pvalue <= 0.05
        found += paired.of_pairs(median, *slide_pairs(rng, better=3)).p <= 0.05
    assert wrong / 150 <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 150) and naive / 150 > 0.3
    assert found / 150 > 0.8
    a, b, ends = slide_pairs(rng, slides=2)
    assert np.isnan(paired.of_pairs(median, a, b, ends).p)


def test_holm_by_hand():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = paired.holm([0.5, np.nan, 0.01])
    assert found[[0, 2]].tolist() == [0.5, 0.02] and np.isnan(found[1])
    assert paired.holm([]).size == 0 and paired.holm([0.9, 0.8]).tolist() == [1, 1]


def test_ranks_and_critical_difference_as_demsar_prints_them():
    for k, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):  # JMLR 7, table 5a
        assert paired.critical_difference(k, 14) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=5e-4 * k)
    assert paired.ranks([[0.9, 0.8], [0.9, 0.7], [0.5, 0.9]]).tolist() == [1.75, 2.25, 2.0]
    assert paired.ranks([[0.9, 0.8], [0.5, 0.7]], lower=[False, True]).tolist() == [1.5, 1.5]
    rng = np.random.default_rng(10)
    assert paired.friedman(rng.random((4, 30)) + np.arange(4)[:, None]) < 1e-6
    assert np.isnan(paired.friedman(rng.random((2, 30)))) and np.isnan(paired.friedman(np.ones((3, 9))))
