"""Probes against scikit-learn and golden cases, on easy and on ill-natured data."""

import json
import warnings

import numpy as np
import pytest

from eosin import descent, logistic, metrics, probes
from eosin.errors import DataError, UsageError


def blobs(n, d, classes, seed=0, noise=3.0):
    """X (n, d) float64 and labels from a noisy linear rule."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    logits = X @ rng.standard_normal((d, classes)) + noise * rng.standard_normal((n, classes))
    return X, logits.argmax(1)


# ---- neighbours


@pytest.mark.parametrize("number", [1, 2])
def test_golden_thunder_knn(shared, number):
    folder = shared("golden", f"thunder-knn-{number:02d}")
    given, expected = np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())
    for k, scores in expected["val"].items():
        probe = probes.knn(int(k), "cosine").fit(given["x_train"], given["y_train"])
        got = probe.predict(given["x_val"])
        assert metrics.accuracy(given["y_val"], got) == pytest.approx(scores["accuracy"], abs=1e-9)
        assert metrics.balanced_accuracy(given["y_val"], got) == pytest.approx(scores["balanced_accuracy"], abs=1e-9)
    probe = probes.knn(expected["best_k"], "cosine").fit(given["x_train"], given["y_train"])
    assert probe.predict(given["x_test"]).tolist() == expected["test_pred"]


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 15])
def test_knn_is_scikit_learns(k, distance, monkeypatch):
    from sklearn.neighbors import KNeighborsClassifier

    X, y = blobs(300, 8, 4)
    labels = np.array(["d", "a", "c", "b"])[y]
    theirs = KNeighborsClassifier(k, metric=distance).fit(X[:200], labels[:200])
    ours = probes.knn(k, distance).fit(X[:200], labels[:200])
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    assert ours.scores(X[200:]) == pytest.approx(theirs.predict_proba(X[200:]))
    assert (ours.predict(X[200:]) == theirs.predict(X[200:])).all()
    monkeypatch.setattr(probes, "CELLS", 700)  # three rows at a time
    assert ours.scores(X[200:]) == pytest.approx(theirs.predict_proba(X[200:]))


def test_knn_ties_go_to_the_smallest_class():
    probe = probes.knn(4).fit(np.array([[0.0], [1], [2], [3]]), [7, 3, 7, 3])
    assert probe.scores(np.array([[9.0]])).tolist() == [[0.5, 0.5]]
    assert probe.predict(np.array([[9.0]])).tolist() == [3]


def test_knn_keeps_its_digits_far_from_the_origin():
    X, y = blobs(300, 5, 3)
    near = probes.knn(9).fit(X[:200], y[:200]).scores(X[200:])
    assert (probes.knn(9).fit(X[:200] + 1e7, y[:200]).scores(X[200:] + 1e7) == near).mean() > 0.99


def test_probes_refuse_what_cannot_be():
    X, y = blobs(30, 4, 2)
    with pytest.raises(DataError, match="k=15 neighbours of 10 training rows. Ask for k <= 10"):
        probes.knn(15).fit(X[:10], y[:10])
    with pytest.raises(UsageError, match="euclidean or cosine"):
        probes.knn(3, "manhattan").fit(X, y)
    for probe in (probes.knn(3), probes.logistic()):
        with pytest.raises(DataError, match="one class only, 1"):
            probe.fit(X, np.ones(30))
        with pytest.raises(DataError, match="one label a row"):
            probe.fit(X, y[:-1])
        with pytest.raises(DataError, match="NaN or Inf in rows 4"):
            probe.fit(np.where(np.arange(30)[:, None] == 4, np.inf, X), y)
    with pytest.raises(UsageError, match="C must be positive"):
        probes.logistic(C=0).fit(X, y)
    with pytest.raises(UsageError, match="alpha=-1"):
        probes.ridge(-1).fit(X, y)


# ---- logistic regression

NATURES = {
    "plain": lambda X: X,
    "offset": lambda X: X + 1e4,
    "scaled": lambda X: X * 10.0 ** np.linspace(-4, 4, X.shape[1]),
    "collinear": lambda X: np.hstack([X, 2 * X[:, :2], X[:, :1] - X[:, 1:2]]),
    "constant": lambda X: np.where(np.arange(X.shape[1]) % 3 == 1, 5.0, X),
}


def converged(X, y, C):
    """scikit-learn's solution by its exact solver, on centred columns."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the last digit its line search finds nothing lower
        return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=10000).fit(X - X.mean(0), y)


@pytest.mark.parametrize("nature", NATURES)
@pytest.mark.parametrize(
    "n, d, classes, noise", [(200, 10, 2, 3.0), (200, 10, 4, 3.0), (60, 90, 3, 1.0), (80, 6, 2, 0)]
)
def test_logistic_is_scikit_learns(nature, n, d, classes, noise):
    X, y = blobs(n, d, classes, noise=noise)
    X = NATURES[nature](X)
    for C in (1e-3, 1.0, 100.0):
        ours, theirs = probes.logistic(C).fit(X, y), converged(X, y, C)
        assert ours.scores(X) == pytest.approx(theirs.predict_proba(X - X.mean(0)), abs=2e-5)
        if nature in ("plain", "collinear"):
            assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-4 * np.abs(theirs.coef_).max())


def test_logistic_keeps_labels():
    X, y = blobs(120, 5, 3)
    by_number = probes.logistic().fit(X, y)
    names = np.array(["z", "a", "m"])
    by_name = probes.logistic().fit(X, names[y])
    assert by_name.classes_.tolist() == ["a", "m", "z"]
    assert by_name.scores(X)[:, [2, 0, 1]] == pytest.approx(by_number.scores(X), abs=1e-6)
    assert (by_name.predict(X) == names[by_number.predict(X)]).all()
    assert set(probes.logistic().fit(X, y * 10 - 5).predict(X)) <= {-5, 5, 15}


def test_logistic_on_very_few_rows():
    X = np.array([[0.0, 1], [1, 0], [0, 1.5]])
    probe = probes.logistic(C=10).fit(X, [0, 1, 0])
    assert probe.predict(X).tolist() == [0, 1, 0]
    assert probe.scores(X).sum(1) == pytest.approx(1)
    assert probes.logistic().fit(np.ones((6, 3)), [0, 0, 0, 1, 1, 0]).scores(np.ones((1, 3)))[0, 1] == pytest.approx(
        1 / 3
    )


def test_logistic_standardised():
    from sklearn.preprocessing import StandardScaler

    X, y = blobs(150, 6, 3)
    X = X * [1, 100, 0.01, 5, 0, 2] + 3
    scaler = StandardScaler().fit(X)
    theirs = converged(scaler.transform(X), y, 0.1)
    ours = probes.logistic(0.1, scale="standard").fit(X, y)
    assert ours.scores(X) == pytest.approx(theirs.predict_proba(scaler.transform(X)), abs=1e-5)


def test_logistic_says_when_it_stops_early():
    X, y = blobs(100, 5, 2)
    with pytest.warns(UserWarning, match="not converged after 2 steps"):
        probes.logistic(max_iter=2).fit(X, y)


def splits_of(y, n=3):
    rng = np.random.default_rng(0)
    return rng.random((n, len(y))) < 0.6


@pytest.mark.parametrize("scale", ["none", "standard"])
@pytest.mark.parametrize("classes", [2, 4])
def test_path_is_each_problem_alone(classes, scale):
    from sklearn.preprocessing import StandardScaler

    X, y = blobs(400, 12, classes)
    X = (X * np.arange(1, 13) ** -1.0 + 4).astype(np.float32)
    train, C = splits_of(y), [1e-4, 1e-2, 1.0, 100.0]
    seen = set()
    for fit in probes.logistic_path(X, y, train, C, scale=scale):
        rows = train[fit.split]
        Z = StandardScaler().fit(X[rows]).transform(X) if scale == "standard" else X - X.mean(0)
        theirs = converged(Z[rows], y[rows], C[fit.index])
        assert fit.converged
        p = logistic.probabilities(fit.decision)
        assert p == pytest.approx(theirs.predict_proba(Z - Z[rows].mean(0)), abs=2e-3)
        assert X @ fit.coef.T + fit.intercept == pytest.approx(fit.decision, abs=1e-3 * np.abs(fit.decision).max())
        expected = -np.log(theirs.predict_proba(Z - Z[rows].mean(0))[np.arange(400), y]).mean()
        assert logistic.log_loss(fit.decision, y) == pytest.approx(expected, abs=2e-3)
        seen.add((fit.split, fit.index))
    assert len(seen) == 12


def by_problem(*args, **options):
    return {(f.split, f.index): f for f in probes.logistic_path(*args, **options)}


def test_path_has_the_same_bytes_twice_and_in_parts(monkeypatch):
    X, y = blobs(300, 20, 3)
    train, C = splits_of(y), np.geomspace(1e-4, 1e4, 5)
    first, second = by_problem(X, y, train, C), by_problem(X, y, train, C)
    for problem, fit in first.items():
        assert fit.coef.tobytes() == second[problem].coef.tobytes()
        assert fit.decision.tobytes() == second[problem].decision.tobytes()
    monkeypatch.setattr(logistic, "CELLS", 2 * 300 * 3)  # two problems at a time
    for problem, fit in by_problem(X, y, train, C).items():
        p, q = (logistic.probabilities(f.decision) for f in (fit, first[problem]))
        assert p == pytest.approx(q, abs=5e-3)


def test_path_ranks_under_a_crushing_penalty():
    """Probabilities are then the class shares to seven digits, and the ranking is in the eighth."""
    X, y = blobs(300, 5, 2)
    X = X.astype(np.float32) * 0.01
    (fit,) = probes.logistic_path(X, np.where(np.arange(300) < 200, 0, y), np.ones(300, bool), [1e-7])
    labels = np.where(np.arange(300) < 200, 0, y)
    towards = (X - X.mean(0)) @ (X[labels == 1].mean(0) - X[labels == 0].mean(0))
    assert np.ptp(fit.decision) < 1e-7
    assert np.corrcoef(fit.decision[:, 0], towards)[0, 1] > 0.9999


def test_path_float32_on_separable_data():
    """All rows fitted, losses of 1e-6: the float32 path still finds the float64 solution."""
    X, y = blobs(150, 200, 2, noise=0)
    C = [1e2, 1e4]
    low, high = (
        by_problem(X, y, np.ones(150, bool), C),
        by_problem(X, y, np.ones(150, bool), C, dtype="float64", tol=1e-12),
    )
    for problem in low:
        a, b = low[problem].coef[0], high[problem].coef[0]
        assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.9999
        assert np.linalg.norm(a) == pytest.approx(np.linalg.norm(b), rel=0.01)


def test_path_never_predicts_a_class_it_was_not_shown():
    X, y = blobs(300, 6, 3)
    train = np.stack([np.arange(300) < 200, (np.arange(300) < 200) & (y != 1)])
    fits = by_problem(X, y, train, [1.0])
    assert (logistic.probabilities(fits[0, 0].decision)[:, 1] > 0).all()
    p = logistic.probabilities(fits[1, 0].decision)
    assert (p[:, 1] == 0).all()
    alone = probes.logistic(2.0).fit(X[train[1]], y[train[1]])  # two weight vectors pay half of what one does
    assert p[:, [0, 2]] == pytest.approx(alone.scores(X), abs=1e-3)
    with pytest.raises(DataError, match="Split 0 trains on one class only"):
        next(probes.logistic_path(X, y, y == 1, [1.0]))
    with pytest.raises(DataError, match="Give \\(n, d\\), \\(n,\\), \\(splits, n\\)"):
        next(probes.logistic_path(X, y[1:], train, [1.0]))


def test_descent_gives_up_honestly():
    X, y = blobs(200, 10, 2)
    (fit,) = probes.logistic_path(X, y, np.ones(200, bool), [100.0], max_iter=1)
    assert not fit.converged
    assert fit.iterations == 1
    assert descent.NEVER < -80


# ---- ridge


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n, d", [(60, 8), (20, 50)])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 300.0])
def test_ridge_is_scikit_learns(n, d, alpha, intercept):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((n, d)) * 3 + 7, rng.standard_normal((n, 4))
    theirs = Ridge(alpha, fit_intercept=intercept, solver="svd").fit(X, Y)
    ours = probes.ridge(alpha, intercept).fit(X, Y)
    assert ours.predict(X) == pytest.approx(theirs.predict(X), abs=1e-8)
    assert ours.coef_ == pytest.approx(theirs.coef_.T, abs=1e-8)
    one = probes.ridge(alpha, intercept).fit(X, Y[:, 0])
    assert one.predict(X).shape == (n,)
    assert one.predict(X) == pytest.approx(ours.predict(X)[:, 0], abs=1e-10)


@pytest.mark.parametrize("n, d", [(60, 8), (20, 50)])
def test_ridge_without_penalty_is_least_squares(n, d):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, d))
    X, Y = np.hstack([X, X[:, :3]]), rng.standard_normal((n, 2))  # singular
    shortest = np.linalg.lstsq(X, Y, rcond=None)[0]
    assert probes.ridge(0, intercept=False).fit(X, Y).coef_ == pytest.approx(shortest, abs=1e-8)


def test_ridge_on_badly_scaled_columns():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((80, 6)) * 10.0 ** np.arange(-5, 7, 2), rng.standard_normal(80)
    expected = Ridge(1e-8, solver="svd").fit(X, Y).predict(X)
    assert probes.ridge(1e-8).fit(X, Y).predict(X) == pytest.approx(expected, abs=1e-7)
