"""Intervals: weights equal resampled rows, coverage is what it says, the edges are not numbers."""

import numpy as np
import pytest

from eosin import metrics, stats
from eosin.benchmark import Embeddings, Scores
from eosin.errors import DataError
from eosin.intervals import intervals


def predictions(rng, patients=30, rows=8, classes=3):
    group = np.repeat(np.arange(patients), rows)
    y = rng.integers(0, classes, len(group))
    score = np.round(rng.standard_normal((len(group), classes)) + np.eye(classes)[y], 1)  # with ties
    return y, score, group


def mean_pearson(Y, P):
    return float(np.nanmean(metrics.pearson(Y, P)))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_weights_give_what_resampled_rows_give(grouped, pooled):
    rng = np.random.default_rng(0)
    y, score, group = predictions(rng)
    fold = group % 3 if pooled else None
    options = {"group": group if grouped else None, "fold": fold, "n": 60, "seed": 4}
    label, two = score.argmax(1), (y > 0).astype(int)
    target = rng.standard_normal((len(y), 4)) + 50
    target[:, 3] = 0.1
    guess = target + rng.standard_normal(target.shape)
    for fast, slow, truth, given in (
        ("accuracy", lambda a, b: np.mean(a == b), y, label),
        ("balanced_accuracy", lambda a, b: metrics.balanced_accuracy(a, b), y, label),
        ("auroc", lambda a, b: metrics.auroc(a, b), two, score[:, 1]),
        ("auroc", lambda a, b: metrics.auroc(a, b), y, score),
        ("pearson", mean_pearson, target, guess),
    ):
        low, high = stats.bootstrap(fast, truth, given, **options)
        assert low < high
        assert (low, high) == pytest.approx(stats.bootstrap(slow, truth, given, **options), abs=1e-9), fast
    by_score = stats.bootstrap("balanced_accuracy", y, score, **options)
    assert by_score == stats.bootstrap(metrics.balanced_accuracy, y, label, **options)


def test_the_score_lies_inside_and_the_seed_decides():
    y, score, group = predictions(np.random.default_rng(1))
    low, high = stats.bootstrap("auroc", y, score, group)
    assert low < metrics.auroc(y, score) < high
    assert (low, high) == stats.bootstrap("auroc", y, score, group)
    assert (low, high) != stats.bootstrap("auroc", y, score, group, seed=1)
    wide = stats.bootstrap("auroc", y, score, group, level=0.99)
    assert wide[0] < low and high < wide[1]
    names = np.array([f"patient {g}" for g in group])
    order = np.random.default_rng(2).permutation(len(y))
    assert stats.bootstrap("auroc", y[order], score[order], names[order]) == pytest.approx(
        stats.bootstrap("auroc", y, score, names), abs=1e-12
    )


def test_repeats_are_drawn_together_and_averaged():
    y, score, group = predictions(np.random.default_rng(3))
    once = stats.bootstrap("balanced_accuracy", y, score, group)
    thrice = stats.bootstrap(
        "balanced_accuracy",
        np.tile(y, 3),
        np.tile(score, (3, 1)),
        np.tile(group, 3),
        seeds=np.repeat([0, 1, 2], len(y)),
    )
    assert thrice == pytest.approx(once, abs=1e-12)  # three equal repeats are not three times the patients
    with pytest.raises(DataError, match="the patient, else the id"):
        stats.bootstrap("accuracy", np.tile(y, 2), np.tile(score, (2, 1)), seeds=np.repeat([0, 1], len(y)))


def test_a_fold_that_a_resample_leaves_undefined_is_left_out():
    y, score = np.array([0, 0, 0, 1, 0, 1] * 4), np.array([0.1, 0.2, 0.3, 0.9, 0.4, 0.8] * 4)
    fold = np.repeat([0, 1], 12)
    y[fold == 1] = 0  # one class: no area in this fold
    low, high = stats.bootstrap("auroc", y, score, fold=fold)
    assert low == high == 1
    assert np.isnan(stats.bootstrap("auroc", np.zeros(24), score)).all()


def clustered(rng, patients, rows):
    """Right or wrong answers: each patient has its own accuracy, Beta(2, 1), of mean 2/3. `rows`: of every one, or of each."""
    patient = np.repeat(np.arange(patients), rows)
    return rng.random(len(patient)) < rng.beta(2, 1, patients)[patient], patient


@pytest.mark.parametrize(
    "patients, grouped, least, most", [(60, True, 0.93, 0.97), (15, True, 0.93, 0.97), (60, False, 0, 0.7)]
)
def test_coverage_on_clustered_rows(patients, grouped, least, most):
    rng, hits, runs = np.random.default_rng(7), 0, 800 if grouped else 100
    for run in range(runs):
        right, patient = clustered(rng, patients, rows=20)
        low, high = stats.bootstrap(
            "accuracy", np.ones_like(right), right, patient if grouped else None, n=300, seed=run
        )
        hits += low <= 2 / 3 <= high
    assert least <= hits / runs <= most  # rows resampled one by one: an interval that is far too narrow


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["a few large", "spread"])
def test_coverage_where_patients_have_very_unequal_numbers_of_rows(sizes):
    """Without `freedom` 90 to 93 of 100."""
    rng, hits, runs = np.random.default_rng(8), 0, 600
    for run in range(runs):
        rows = np.where(np.arange(50) < 5, 100, 10)
        if sizes == "spread":
            rows = np.maximum(1, 10 * np.exp(rng.standard_normal(50))).astype(int)
        right, patient = clustered(rng, 50, rows)
        low, high = stats.bootstrap("accuracy", np.ones_like(right), right, patient, n=300, seed=run)
        hits += low <= 2 / 3 <= high
    assert 0.935 <= hits / runs <= 0.985, hits / runs


def test_predictions_of_another_score_make_no_interval_of_it():
    y, score, group = predictions(np.random.default_rng(9))
    beside = {"id": np.arange(len(y)).astype(str), "y": y, "score": score, "group": group.astype(str)}
    emb = Embeddings(X=np.zeros((len(y), 1), np.float32), id=beside["id"], y=y, group=beside["group"])
    true = float(metrics.accuracy(y, score.argmax(1)))
    for value, made in ((true, "bootstrap of patients"), (true - 0.1, "the predictions give another score")):
        summary = {"accuracy": {"values": [value, value], "mean": value}}
        how = intervals(summary, Scores({"accuracy": [value, value]}, beside), emb)
        assert made in how["accuracy"] and (summary["accuracy"]["low"] < summary["accuracy"]["high"]) == (value == true)


def test_freedom_counts_the_patients_that_decide():
    assert stats.freedom(np.repeat(np.arange(9), 4)) == 8
    assert stats.freedom(np.repeat(np.arange(50), [100] * 5 + [10] * 45)) == pytest.approx(5.935, abs=1e-3)
    assert stats.freedom(np.repeat([0, 1], [1000, 1])) == pytest.approx(1, abs=1e-5)


def test_t_interval():
    low, high = stats.t_interval([1, 2, 3, 4])
    assert (low, high) == pytest.approx(
        (2.5 - 3.182446305 * np.sqrt(5 / 3 / 4), 2.5 + 3.182446305 * np.sqrt(5 / 3 / 4))
    )
    assert np.isnan(stats.t_interval([0.7])).all() and np.isnan(stats.t_interval([0.7, np.nan])).all()
    rng = np.random.default_rng(5)
    hits = [low <= 0 <= high for low, high in (stats.t_interval(rng.standard_normal(3)) for _ in range(2000))]
    assert 0.93 < np.mean(hits) < 0.97


def test_interval_says_how_it_was_made():
    y, score, group = predictions(np.random.default_rng(6))
    low, high, how = stats.interval("accuracy", [0.5, 0.6], y, score, group, n=50)
    assert (low, high) == stats.bootstrap("accuracy", y, score, group, n=50)
    assert how == "bootstrap of groups, 50 resamples, expanded percentiles, level 0.95"
    low, high, how = stats.interval("top1", [0.5, 0.6], y, score)
    assert (low, high) == stats.t_interval([0.5, 0.6]) and how.startswith("t over 2 values")
    assert stats.interval("dice", [0.5])[2].startswith("none: fewer than two values")
    assert stats.interval("accuracy", [0.5], y, score, np.zeros(len(y)))[2].startswith("none: fewer than two groups")


def test_what_cannot_be_resampled():
    y, score, group = predictions(np.random.default_rng(8))
    assert np.isnan(stats.bootstrap("accuracy", y, score, np.zeros(len(y)))).all()
    with pytest.raises(DataError, match="No bootstrap for the metric 'f1'"):
        stats.bootstrap("f1", y, score)
    with pytest.raises(DataError, match="group has shape"):
        stats.bootstrap("accuracy", y, score, group[:5])
    with pytest.raises(DataError, match="Give both for the same items"):
        stats.bootstrap("accuracy", y, score[:5])
    score[4] = np.nan
    with pytest.raises(DataError, match="score has NaN in rows 4"):
        stats.bootstrap("accuracy", y, score)
