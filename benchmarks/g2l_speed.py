"""How much faster are g2l-knn@1 and g2l-linear@1 than plain scikit-learn, and do the numbers agree?

    python benchmarks/g2l_speed.py [--rows 20000] [--dim 1024] [--classes 2 4] [--seeds 1] [--folds 10]

Made-up embeddings with singular values falling as 1 / i, as networks give. The plain way is per fold PCA(50, full SVD)
and KNeighborsClassifier(15), per seed and C LogisticRegression(max_iter=1000). Of the plain way's ten seeds `--seeds`
are run and the time is scaled up; its folds all run. Agreement of the linear probe is with a converged solver
(newton-cholesky) at the chosen C, one seed. One process, one run: both sides see the same machine.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.decomposition
import sklearn.linear_model
import sklearn.neighbors
import torch

import eosin
from eosin import folds, metrics
from eosin_g2l.protocols import G2LKnn, G2LLinear

CS = np.geomspace(1e-6, 1e5, 12)


def embeddings(n: int, d: int, classes: int, seed: int = 0) -> eosin.Embeddings:
    """Classes overlap in every direction, 3 % of labels are noise, tiles come in 60 clumps."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    fall = np.arange(1, d + 1) ** -0.5
    latent = rng.standard_normal((n, d)) + (0.7 * rng.standard_normal((classes, d)) * fall)[y]
    latent += (rng.standard_normal((60, d)) * fall**0.5)[rng.integers(0, 60, n)]
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    X = (latent / np.arange(1, d + 1) * np.sqrt(d)) @ turn + rng.standard_normal(d)
    y = np.where(rng.random(n) < 0.03, rng.integers(0, classes, n), y)
    return eosin.Embeddings(X.astype(np.float32), np.arange(n).astype(str), y, classes=tuple("abcdefgh"[:classes]))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def plain_knn(emb: eosin.Embeddings, n_folds: int) -> list[float]:
    fold, accuracies = folds.kfold(emb.y, n_folds), []
    for k in range(n_folds):
        train, test = fold != k, fold == k
        pca = sklearn.decomposition.PCA(50, svd_solver="full").fit(emb.X[train])
        probe = sklearn.neighbors.KNeighborsClassifier(15).fit(pca.transform(emb.X[train]), emb.y[train])
        accuracies.append(metrics.accuracy(emb.y[test], probe.predict(pca.transform(emb.X[test]))))
    return accuracies


def fitted(emb: eosin.Embeddings, part: np.ndarray, C: float, **options: Any) -> np.ndarray:
    """(n, classes) probabilities of scikit-learn's logistic regression."""
    train, X = part == "train", emb.X.astype(np.float64) if options["solver"] != "lbfgs" else emb.X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the plain way does not always converge in max_iter
        return sklearn.linear_model.LogisticRegression(C=C, **options).fit(X[train], emb.y[train]).predict_proba(X)


def plain_linear(emb: eosin.Embeddings, seeds: int) -> None:
    for seed in range(seeds):
        part = folds.holdout(emb.y, seed=seed)
        for C in CS:
            p = fitted(emb, part, C, solver="lbfgs", max_iter=1000)
            metrics.auroc(emb.y[part == "val"], p[part == "val"])


def compare(n: int, d: int, classes: int, seeds: int, n_folds: int) -> None:
    emb = embeddings(n, d, classes)
    our_knn, knn = timed(lambda: G2LKnn().score(emb, n_folds=n_folds))
    our_linear, linear = timed(lambda: G2LLinear().score(emb, n_C=len(CS)))
    their_knn, accuracies = timed(lambda: plain_knn(emb, n_folds))
    their_linear = timed(lambda: plain_linear(emb, seeds))[0] * 10 / seeds
    test = (part := folds.holdout(emb.y, seed=0)) == "test"
    p = fitted(emb, part, float(linear.details["C"][0]), solver="newton-cholesky", tol=1e-8, max_iter=100)[test]
    off = {
        "kNN accuracy": np.mean(knn.metrics["accuracy"]) - np.mean(accuracies),
        "linear AUC": linear.metrics["auroc"][0] - metrics.auroc(emb.y[test], p),
        "linear accuracy": linear.metrics["accuracy"][0] - metrics.accuracy(emb.y[test], p.argmax(1)),
    }
    print(f"\n{n} x {d}, {classes} classes      eosin s   plain s    ratio")
    for name, ours, theirs in (
        (f"kNN, {n_folds} folds", our_knn, their_knn),
        ("linear, 10 seeds x 12 C", our_linear, their_linear),
        ("both", our_knn + our_linear, their_knn + their_linear),
    ):
        print(f"{name:28s} {ours:9.2f} {theirs:9.1f} {theirs / ours:8.1f}")
    print("; ".join(f"{name} {value:+.5f}" for name, value in off.items()), "(eosin - reference)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, default=1, help="of the plain way's ten")
    parser.add_argument("--folds", type=int, default=10)
    args = parser.parse_args()
    print(f"torch {torch.__version__} with {torch.get_num_threads()} threads, scikit-learn {sklearn.__version__}")
    for classes in args.classes:
        compare(args.rows, args.dim, classes, args.seeds, args.folds)
