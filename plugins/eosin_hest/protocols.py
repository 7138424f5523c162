"""HEST-Benchmark's protocol: gene expression from embeddings by PCA and ridge, Pearson per gene, folds of patients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import eosin
from eosin import metrics
from eosin.arrays import matrix
from eosin.errors import DataError


class HestRidge(eosin.Protocol):
    """Ridge on standardised principal components; the mean over genes of Pearson over all test spots of a fold.

    Needs `target` (n, g), already log1p of raw counts, and one of `fold`, `split`, `group`, `slide`.
    Source: mahmoodlab/HEST, src/hest/bench (benchmark.predict_single_split, trainer.train_test_reg), which stops an
    iterative solver early and may use a randomised PCA. Here the solution is exact: the mean of a fold of a few hundred
    spots differs by up to 0.003, less as the training rows outnumber the components.
    """

    card = eosin.ProtocolCard(
        "hest-ridge@1",
        options={
            "n_components": eosin.Option(
                256, doc="Principal components; fewer where dimensions or training rows are. 0: no PCA and no scaling."
            ),
            "alpha": eosin.Option(None, float, doc="Ridge penalty; none: 100 / (components x genes)."),
            "nan": eosin.Option(
                "null", ("null", "skip"), doc="A gene without a correlation: the fold is null, or the gene is left out."
            ),
            "folds": eosin.Option(
                0,
                doc="K packs the groups (patients) into K folds, whatever `split` says; 0: the given split, else one group left out.",
            ),
        },
        metrics=("pearson",),
        ddof=0,
        notes="mahmoodlab/HEST v1.1.1: StandardScaler, PCA(256), ridge without intercept, fitted on the training rows.",
    )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """Per-fold `pearson`; details `pearson_per_gene` (folds, g) and `genes`; predictions of every test row.

        Raises:
            DataError: no target, no folds or groups to make them of, NaN, a fold without training rows.
        """
        o = self.card.complete(options)
        if emb.target is None:
            raise DataError(f"{self.card.name} regresses genes. Give `target` (n, g): log1p of the counts of g genes.")
        X, Y = matrix(emb.X, "X"), matrix(np.asarray(emb.target).reshape(len(emb.X), -1), "target")
        genes = np.array(emb.target_names or [f"target {j}" for j in range(Y.shape[1])])
        folds, how = _folds(emb, o["folds"])
        correlations, parts, notes = [], [], [how]
        for k, train, test in folds:
            predicted, used = ridge(X[train], Y[train], X[test], o["n_components"], o["alpha"])
            r = metrics.pearson(Y[test], predicted)
            correlations.append(r)
            parts.append((emb.id[test], np.full(len(test), k), Y[test], predicted.astype(np.float32)))
            if used < o["n_components"]:
                notes.append(f"Fold {k}: {used} components, not {o['n_components']}: no more rows or dimensions.")
            if np.isnan(r).any():
                end = "left out" if o["nan"] == "skip" else "so the fold is null; option nan=skip leaves them out"
                constant = ", ".join(genes[np.isnan(r)])
                notes.append(f"Fold {k}: constant in the test or in the training rows, {end}: {constant}.")
        table = np.array(correlations)
        values = [_mean(r, skip=o["nan"] == "skip") for r in table]
        ids, fold, y, score = (np.concatenate(p) for p in zip(*parts, strict=True))
        predictions = {"id": ids, "fold": fold, "seed": np.zeros(len(ids), int), "y": y, "score": score}
        return eosin.Scores({"pearson": values}, predictions, {"pearson_per_gene": table, "genes": genes}, tuple(notes))


def _mean(r: np.ndarray, skip: bool) -> float:
    r = r[~np.isnan(r)] if skip else r
    return float(r.mean()) if len(r) else float("nan")


def ridge(
    X: np.ndarray, Y: np.ndarray, X_test: np.ndarray, n_components: int = 256, alpha: float | None = None
) -> tuple[np.ndarray, int]:
    """Predictions (m, g) for X_test, and the number of components k they rest on; all targets from one decomposition.

    The components are orthogonal, so ridge on them is a division: coefficients V (V'Z'Y / (power + alpha)).

    Args:
        X: (n, d) training rows; Y: (n, g) their targets; X_test: (m, d).
        n_components: of the PCA of the standardised X; 0: ridge on X as it is.
        alpha: the penalty; None: 100 / (k g). No intercept: correlations do not see it, errors would.
    """
    X, Y, X_test = X.astype(np.float64), Y.astype(np.float64), X_test.astype(np.float64)
    k = min(n_components or X.shape[1], *X.shape)
    if n_components:
        mean, scale = X.mean(0), np.where(np.ptp(X, 0) > 0, X.std(0), 1)
        X, X_test = (X - mean) / scale, (X_test - mean) / scale
        Y = np.where(np.ptp(Y, 0) > 0, Y - Y.mean(0), 0)  # centred X does not see the shift; a constant gene predicts 0
    power, V = _principal(X, k)
    penalty = 100 / ((k if n_components else X.shape[1]) * Y.shape[1]) if alpha is None else alpha
    return X_test @ (V @ ((V.T @ (X.T @ Y)) / (power + penalty)[:, None])), k


def _principal(Z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares along the k largest principal directions, and the directions (d, k), less those of no power."""
    from scipy.linalg import eigh

    wide = Z.shape[1] > len(Z)
    G = Z @ Z.T if wide else Z.T @ Z
    power, V = eigh(G, subset_by_index=(len(G) - k, len(G) - 1), overwrite_a=True, check_finite=False)
    there = power > np.finfo(float).eps * max(Z.shape) * power.max()
    power, V = power[there], V[:, there]
    return power, Z.T @ (V / np.sqrt(power)) if wide else V


def _folds(emb: Any, k: int) -> tuple[Iterator[tuple[int, np.ndarray, np.ndarray]], str]:
    """(fold, training rows, test rows) of each fold, and a sentence on where they come from."""
    if emb.fold is not None and (np.asarray(emb.fold) >= 0).any():
        return _each(np.asarray(emb.fold)), "Folds: as given; a row without one trains in every fold."
    if not k and emb.split is not None and {"train", "test"} <= set(emb.split.tolist()):
        train, test = (np.flatnonzero(emb.split == name) for name in ("train", "test"))
        return iter([(0, train, test)]), "Folds: one, the given train and test splits."
    for word in ("group", "slide"):
        owner = getattr(emb, word)
        if owner is not None:
            names, code, sizes = np.unique(owner, return_inverse=True, return_counts=True)
            if len(names) < max(2, k) or k == 1:
                raise DataError(f"{len(names)} {word}s do not make {k or 2} folds. Give `fold`, or more {word}s.")
            if not k:
                return _each(code), f"Folds: made here, one {word} left out at a time."
            return _each(_pack(sizes, k)[code]), f"Folds: made here, {len(names)} {word}s packed into {k} of like size."
    raise DataError(
        "Neighbouring spots are alike, so rows are not split at random. "
        "Give `fold` (the test fold of each row), `split`, `group` (the patient) or `slide`."
    )


def _each(fold: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for k in np.unique(fold[fold >= 0]):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(train) < 2:
            raise DataError(f"Fold {k} leaves {len(train)} rows to train on. Give at least two folds.")
        yield int(k), train, test


def _pack(sizes: np.ndarray, k: int) -> np.ndarray:
    """The fold of each group: the largest first, each into the fold with fewest rows so far."""
    fold, filled = np.zeros(len(sizes), int), np.zeros(k, int)
    for group in np.argsort(-sizes, kind="stable"):
        fold[group] = filled.argmin()
        filled[fold[group]] += sizes[group]
    return fold
