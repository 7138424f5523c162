"""The variants of HEST's ridge against scikit-learn, and what they share with it."""

from __future__ import annotations

import numpy as np
import pytest

import eosin
from eosin import metrics
from eosin.errors import DataError, UsageError
from eosin_hest.folds import inner, pack
from eosin_hest.protocols import HestRidge
from eosin_hest.ridge import Training, penalty
from eosin_hest.variants import HestRidgeCv, HestRidgeIntercept, HestRidgeRaw


def made(seed=0, n=240, d=30, genes=4, noise=0.5, **columns):
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((n, 6))
    X = content @ rng.standard_normal((6, d)) + 0.5 * rng.standard_normal((n, d)) + 10
    Y = content @ rng.standard_normal((6, genes)) + noise * rng.standard_normal((n, genes)) + 3
    columns = columns or {"fold": np.arange(n) // (n // 3)}
    return eosin.Embeddings(X.astype(np.float32), np.arange(n).astype(str), target=Y, **columns)


def by_hand(emb, model):
    """Pearson of each fold by a scikit-learn estimator."""
    X, Y = emb.X.astype(float), emb.target
    found = []
    for k in np.unique(emb.fold):
        train, test = emb.fold != k, emb.fold == k
        found.append(metrics.pearson(Y[test], model.fit(X[train], Y[train]).predict(X[test])).mean())
    return found


def test_raw_is_plain_ridge():
    from sklearn.linear_model import Ridge

    for emb in (made(), made(n=60, d=90)):  # more rows than dimensions, and fewer
        d = emb.X.shape[1]
        want = by_hand(emb, Ridge(100 / (d * 4), fit_intercept=False, solver="svd"))
        got = HestRidgeRaw().score(emb)
        assert got.metrics["pearson"] == pytest.approx(want, abs=1e-6)
        assert got.details["alpha"] == pytest.approx([penalty(d, 4)] * 3)
        assert got.metrics["pearson"] == pytest.approx(HestRidge().score(emb, n_components=0).metrics["pearson"])


@pytest.mark.parametrize("shape", [(240, 30), (60, 90)])
def test_an_intercept_changes_errors_and_not_correlations(shape):
    from sklearn.linear_model import Ridge

    emb = made(n=shape[0], d=shape[1])
    plain, level = HestRidge().score(emb, n_components=8), HestRidgeIntercept().score(emb, n_components=8)
    assert level.metrics["pearson"] == pytest.approx(plain.metrics["pearson"], abs=1e-9)
    y, predicted = level.predictions["y"], level.predictions["score"]
    for k in range(3):
        rows = level.predictions["fold"] == k
        error = np.square(y[rows] - predicted[rows]).mean(0)
        assert level.metrics["mse"][k] == pytest.approx(error.mean(), rel=1e-4)
        assert level.metrics["r2"][k] == pytest.approx((1 - error / y[rows].var(0)).mean(), abs=1e-4)
    assert min(level.metrics["r2"]) > 0.3 > np.mean(1 - np.square(y - plain.predictions["score"]) / y.var(0))
    raw = HestRidgeIntercept().score(emb, n_components=0, alpha=2.0)
    assert raw.metrics["pearson"] == pytest.approx(by_hand(emb, Ridge(2.0, solver="svd")), abs=1e-6)
    assert raw.metrics["pearson"] != pytest.approx(
        HestRidge().score(emb, n_components=0, alpha=2.0).metrics["pearson"], abs=1e-6
    )


def test_cv_finds_the_penalty_that_a_plain_search_finds():
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    group = np.repeat(np.arange(8), 30)
    emb = made(3, d=100, noise=3.0, group=group, fold=np.arange(240) // 120)
    grid = {"low": 0.1, "high": 1e5, "n_alphas": 7, "inner": 3, "n_components": 60}
    got = HestRidgeCv().score(emb, **grid)
    X, Y, alphas = emb.X.astype(float), emb.target, np.geomspace(0.1, 1e5, 7)
    for k in range(2):
        train = np.flatnonzero(emb.fold != k)
        names, code = np.unique(group[train], return_inverse=True)
        fold, table = pack(np.bincount(code), 3)[code], []
        for alpha in alphas:
            model = make_pipeline(StandardScaler(), PCA(60, svd_solver="full"), Ridge(alpha, fit_intercept=False))
            rows = []
            for f in range(3):
                model.fit(X[train][fold != f], Y[train][fold != f])
                rows.append(metrics.pearson(Y[train][fold == f], model.predict(X[train][fold == f])).mean())
            table.append(np.mean(rows))
        assert got.details["alpha"][k] == pytest.approx(alphas[int(np.argmax(table))])
    assert any("Fold 0: penalty" in n and "4 patients or slides in 3 folds" in n for n in got.notes)
    assert np.mean(got.metrics["pearson"]) > np.mean(HestRidge().score(emb, n_components=60).metrics["pearson"])


def test_inner_folds_keep_patients_whole():
    owner, rows = np.repeat(np.arange(6), 10), np.arange(60)[10:]
    folds, how = inner(owner, rows, 4)
    assert "5 patients or slides in 4" in how and len(folds) == 4
    for _, train, test in folds:
        assert not set(owner[train]) & set(owner[test]) and sorted([*train, *test]) == rows.tolist()
    for lone in (None, np.zeros(60)):
        folds, how = inner(lone, rows, 5)
        assert "5 blocks of rows" in how
        assert [test.tolist() for *_, test in folds] == [rows[i : i + 10].tolist() for i in range(0, 50, 10)]


def test_cv_says_what_it_could_not_do():
    emb = made(fold=np.arange(240) // 120, slide=np.arange(240) // 120)
    got = HestRidgeCv().score(emb, low=1e-3, high=1e-2, n_alphas=2)
    assert any("one patient or slide, so 5 blocks" in n for n in got.notes)
    assert any("at the end of those tried" in n for n in got.notes)
    emb.target[:] = 1.0
    flat = HestRidgeCv().score(emb)
    assert np.isnan(flat.metrics["pearson"]).all() and any("no gene varies" in n for n in flat.notes)
    for wrong in ({"low": 0.0}, {"low": 5.0, "high": 1.0}, {"inner": 1}, {"n_alphas": 0}):
        with pytest.raises(UsageError, match="low and high are above 0"):
            HestRidgeCv().score(emb, **wrong)


@pytest.mark.parametrize("n_components, intercept", [(10, False), (0, False), (0, True)])
@pytest.mark.parametrize("blocks", ["one", "folds", "rows"])
def test_shared_sums_change_nothing(n_components, intercept, blocks, monkeypatch):
    """However rows are split up, the same training set gives the same predictions: those of its own rows alone."""
    emb = made(5, n=150)
    block = {"one": None, "folds": np.arange(150) // 50, "rows": np.arange(150)}[blocks]
    if blocks == "rows":
        monkeypatch.setattr("eosin_hest.ridge.HELD", 10_000)
    monkeypatch.setattr("eosin_hest.ridge.CHUNK", 17)
    emb.X[:100, 3] = 2.5  # a dimension that dies in this training set
    emb.target[:100, 1] = 4.0  # and a gene
    training, rows = Training(emb.X, emb.target, block), np.arange(100)
    alone = Training(emb.X[:100], emb.target[:100]).basis(rows, n_components, intercept)
    shared = training.basis(rows, n_components, intercept)
    assert shared.predict(emb.X, 0.3) == pytest.approx(alone.predict(emb.X, 0.3), abs=1e-7)
    assert len(training.held) == {"one": 0, "folds": 2, "rows": 0}[blocks]
    if n_components:
        assert np.ptp(shared.predict(emb.X, 0.3)[:, 1]) == 0, "a constant gene is predicted constant, not as noise"


def test_variants_are_other_protocols():
    from eosin.plugins import Catalogue

    shelf = Catalogue().protocols.things
    assert {f"hest-ridge{v}@1" for v in ("", "-raw", "-intercept", "-cv")} <= set(shelf)
    assert all(shelf[f"hest-ridge{v}@1"].card.ddof == 0 for v in ("", "-raw", "-intercept", "-cv"))
    with pytest.raises(UsageError, match="has no option n_components"):
        HestRidgeRaw().score(made(), n_components=5)


def test_shipped_splits_come_before_all_else():
    split = np.array(["train"] * 100 + ["test"] * 60 + [""] * 80)
    table = {"split_0": split, "split_12": split[::-1], "split_x": split}
    emb = made(fold=np.arange(240) % 3, table=table)
    got = HestRidge().score(emb, folds=5)
    assert sorted(set(got.predictions["fold"].tolist())) == [0, 12] and len(got.predictions["id"]) == 120
    emb = made(table={"split_0": np.where(split == "train", "", split)})
    with pytest.raises(DataError, match="Fold 0 has 0 rows to train on and 60 to test"):
        HestRidge().score(emb)
