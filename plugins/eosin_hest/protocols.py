"""HEST-Benchmark's protocol: gene expression from embeddings by PCA and ridge, Pearson per gene, folds of patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import eosin
from eosin import metrics
from eosin.arrays import matrix
from eosin.errors import DataError, UsageError

from .folds import blocks_of, folds_of
from .ridge import Training, penalty, ridge

__all__ = ["HestRidge", "ridge"]

COMPONENTS = eosin.Option(
    256, doc="Principal components; fewer where dimensions or training rows are. 0: no PCA and no scaling."
)
ALPHA = eosin.Option(None, float, doc="Ridge penalty; none: 100 / (components x genes).")
COMMON = {
    "nan": eosin.Option(
        "null", ("null", "skip"), doc="A gene without a correlation: the fold is null, or the gene is left out."
    ),
    "folds": eosin.Option(
        0,
        doc="K packs the groups (patients) into K folds, whatever `split` says; 0: the given split, else one group left out.",
    ),
}


class HestRidge(eosin.Protocol):
    """Ridge on standardised principal components; the mean over genes of Pearson over all test spots of a fold.

    Needs `target` (n, g), already log1p of raw counts, and one of `split_<k>`, `fold`, `split`, `group`, `slide`.
    Source: mahmoodlab/HEST, src/hest/bench (benchmark.predict_single_split, trainer.train_test_reg), which stops an
    iterative solver early and may use a randomised PCA. Here the solution is exact: the mean of a fold of a few hundred
    spots differs by up to 0.003, less as the training rows outnumber the components.
    """

    card = eosin.ProtocolCard(
        "hest-ridge@1",
        options={"n_components": COMPONENTS, "alpha": ALPHA, **COMMON},
        metrics=("pearson",),
        ddof=0,
        notes="mahmoodlab/HEST v1.1.1: StandardScaler, PCA(256), ridge without intercept, fitted on the training rows.",
    )
    intercept = False

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """Per-fold `pearson`; details `pearson_per_gene` (folds, g) and `genes`; predictions of every test row.

        Raises:
            DataError: no target, no folds or groups to make them of, NaN, a fold without training rows.
        """
        o = {"n_components": 0, "alpha": None, **self.card.complete(options)}
        below = [n for n in ("n_components", "alpha", "folds") if (o[n] or 0) < 0]
        if below:
            raise UsageError(f"{self.card.name}: {below[0]}={o[below[0]]} is below 0. Give 0 or more.")
        if emb.target is None:
            raise DataError(f"{self.card.name} regresses genes. Give `target` (n, g): log1p of the counts of g genes.")
        X, Y = matrix(emb.X, "X"), matrix(np.asarray(emb.target).reshape(len(emb.X), -1), "target")
        genes = np.array(emb.target_names or [f"target {j}" for j in range(Y.shape[1])])
        folds, how = folds_of(emb, o["folds"])
        training = Training(X, Y, blocks_of(folds, len(X)))
        per_gene: dict[str, list[np.ndarray]] = {}
        parts, notes, alphas = [], [how], []
        for k, train, test in folds:
            alpha, said = self.alpha(emb, training, train, o)
            basis = training.basis(train, o["n_components"], self.intercept)
            if alpha is None:
                alpha = penalty(basis.k if o["n_components"] else X.shape[1], Y.shape[1])
            predicted = basis.predict(X[test], alpha)
            alphas.append(alpha)
            for metric, values in self.per_gene(Y[test], predicted).items():
                per_gene.setdefault(metric, []).append(values)
            parts.append((emb.id[test], np.full(len(test), k), Y[test], predicted.astype(np.float32)))
            notes += [f"Fold {k}: {text}" for text in said]
            if basis.k < o["n_components"]:
                notes.append(f"Fold {k}: {basis.k} components, not {o['n_components']}: no more rows or dimensions.")
            lost = np.isnan([values[-1] for values in per_gene.values()]).any(0)
            if lost.any():
                end = "left out" if o["nan"] == "skip" else "so the fold is null; option nan=skip leaves them out"
                constant = ", ".join(genes[lost])
                notes.append(f"Fold {k}: constant in the test or in the training rows, {end}: {constant}.")
        ids, fold, y, score = (np.concatenate(p) for p in zip(*parts, strict=True))
        predictions = {"id": ids, "fold": fold, "seed": np.zeros(len(ids), int), "y": y, "score": score}
        details = {f"{m}_per_gene": np.array(values) for m, values in per_gene.items()}
        means = {m: [_mean(r, o["nan"] == "skip") for r in values] for m, values in per_gene.items()}
        return eosin.Scores(means, predictions, {**details, "genes": genes, "alpha": np.array(alphas)}, tuple(notes))

    def alpha(
        self, emb: Any, training: Training, train: np.ndarray, options: Mapping[str, Any]
    ) -> tuple[float | None, list[str]]:
        """The penalty of one fold (None: HEST's), and sentences on how it was found."""
        return options["alpha"], []

    def per_gene(self, Y: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        """{metric: (g,)} of the test rows of one fold, nan where a gene has none."""
        return {"pearson": metrics.pearson(Y, predicted)}


def _mean(r: np.ndarray, skip: bool) -> float:
    r = r[~np.isnan(r)] if skip else r
    return float(r.mean()) if len(r) else float("nan")
