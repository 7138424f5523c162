"""Linear CKA: golden cases, the two forms and the stream are one number, and the edges."""

import json

import numpy as np
import pytest

from eosin import metrics
from eosin.errors import DataError


def cases(shared, pattern):
    folders = sorted(shared("golden").glob(pattern))
    assert folders, f"no golden case {pattern}"
    for folder in folders:
        yield folder.name, np.load(folder / "input.npz"), json.loads((folder / "expected.json").read_text())


def test_golden_cka(shared):
    for name, given, expected in cases(shared, "cka-*"):
        for normalize in (False, True):
            for debiased in (False, True):
                key = f"{'normalised_rows' if normalize else 'raw'}_{'un' if debiased else ''}biased"
                want = pytest.approx(expected["float64_feature_form"][key], rel=1e-9)
                assert metrics.cka(given["a"], given["b"], debiased, normalize) == want, (name, key)
                sums = metrics.CKA(normalize)
                for rows in np.array_split(np.arange(len(given["a"])), 7):
                    sums.add(given["a"][rows], given["b"][rows])
                assert sums.value(debiased) == want, (name, key)


def test_cka_of_wide_and_of_long_features_is_one_number():
    rng = np.random.default_rng(1)
    X = (rng.standard_normal((60, 40)) + 100).astype(np.float32)  # 60 rows: n x n sums; a stream: d x d sums
    Y = X[:, :30] + rng.standard_normal((60, 30))
    for debiased in (False, True):
        sums = metrics.CKA()
        sums.add(X, Y)
        assert metrics.cka(X, Y, debiased) == pytest.approx(sums.value(debiased), rel=1e-9)


def test_cka_at_the_edges():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((200, 300))
    rotation = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    assert metrics.cka(X, 3 * X @ rotation + 5) == pytest.approx(1)
    Y = rng.standard_normal((200, 300))
    assert metrics.cka(X, Y) > 0.5 and abs(metrics.cka(X, Y, debiased=True)) < 0.05  # unrelated, n < d
    for n in (10, 2000):
        assert np.isnan(metrics.cka(np.full((n, 20), 0.1), rng.standard_normal((n, 20))))
    with pytest.raises(DataError, match="needs 4 rows and there are 3"):
        metrics.cka(X[:3], Y[:3], debiased=True)
    with pytest.raises(DataError, match="200 rows and Y 100"):
        metrics.cka(X, Y[:100])
    X[7] = 0
    with pytest.raises(DataError, match="X is all zeros.* in rows 7"):
        metrics.cka(X, Y, normalize=True)
    sums = metrics.CKA()
    with pytest.raises(DataError, match="no rows"):
        sums.value()
    sums.add(X, Y)
    with pytest.raises(DataError, match="wide"):
        sums.add(X, Y[:, :5])
