"""G2L's two protocols: 15 nearest neighbours among 50 principal components, and a linear probe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import eosin
from eosin import metrics, probes
from eosin.arrays import matrix
from eosin.errors import UsageError
from eosin.logistic import Fit, log_loss, probabilities

from .pca import FoldPCA
from .splits import UNUSED, at_least_one, knn_folds, labels_of, linear_parts, name, sides

Mask = np.ndarray  # (n,) bool

FOLDS = eosin.Option(
    "paper",
    ("paper", "grouped", "site"),
    "paper: rows at random, as published. grouped: no patient on both sides. site: no centre on both sides.",
)
SPLIT = eosin.Option("protocol", ("protocol", "given"), "given: the folds or the split that came with the data.")
SEED = eosin.Option(0, doc="Of the first shuffle; each further one adds 1.")


class G2LKnn(eosin.Protocol):
    """Accuracy of the majority vote of the nearest training rows, cross-validated."""

    card = eosin.ProtocolCard(
        "g2l-knn@1",
        options={
            "k": eosin.Option(15, doc="Neighbours; ties of the vote go to the smallest class."),
            "distance": eosin.Option("euclidean", ("euclidean", "cosine"), "Between principal components."),
            "pca": eosin.Option(
                "train", ("train", "all", "none"), "Fitted on each fold's training rows, on all rows, or left out."
            ),
            "n_components": eosin.Option(50, doc="Fewer where dimensions or training rows are."),
            "folds": FOLDS,
            "n_folds": eosin.Option(10, doc="Fewer where a class has fewer patients or sites, and a note says so."),
            "repeats": eosin.Option(1, doc="Times that the folds are drawn anew."),
            "seed": SEED,
            "split": SPLIT,
        },
        metrics=("accuracy", "balanced_accuracy"),
        ddof=1,
        notes="G2L paper, Downstream Task Benchmark: PCA to 50, k = 15, majority vote, 10 folds, accuracy. The paper "
        "does not say which rows the PCA sees, how folds are drawn or ties are broken. PCA here is exact.",
    )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """`accuracy` and `balanced_accuracy` of each fold; a prediction for every tested row; `n_test` of each fold.

        Raises:
            DataError: no labels, one class, a class with fewer rows than folds, k above the training rows, no groups.
        """
        o = self.card.complete(options)
        at_least_one(o, "k", "n_components", "repeats")
        X, y = matrix(emb.X, "X"), labels_of(emb)
        runs, notes = knn_folds(emb, y, o)
        values: dict[str, list[float]] = {"accuracy": [], "balanced_accuracy": []}
        parts = []
        for repeat, fold in runs:
            for k, train, test, Z in _spaces(X, fold, o["pca"], o["n_components"]):
                probe = probes.knn(o["k"], o["distance"]).fit(Z[train], y[train])
                score = _spread(probe.scores(Z[test]), probe.classes_, emb, y)
                parts.append(_predictions(emb, y, test, k, repeat, score))
                _judge(values, y[test], score)
        sizes = np.array([len(p["id"]) for p in parts])
        return eosin.Scores(values, _joined(parts), {"n_test": sizes}, notes)


class G2LLinear(eosin.Protocol):
    """AUC of logistic regression on frozen embeddings: the penalty chosen on val, the model fitted on train alone."""

    card = eosin.ProtocolCard(
        "g2l-linear@1",
        options={
            "n_C": eosin.Option(45, doc="Inverse penalties, log-spaced from C_min to C_max."),
            "C_min": eosin.Option(1e-6, doc="The smallest C = 1 / penalty."),
            "C_max": eosin.Option(1e5, doc="The largest C = 1 / penalty."),
            "select": eosin.Option(
                "log_loss",
                ("log_loss", "auroc"),
                "Smallest loss or largest AUC on val chooses C; of equal ones the smallest C.",
            ),
            "scale": eosin.Option(
                "none", ("none", "standard"), "standard: mean 0 and deviation 1 of the training rows."
            ),
            "seeds": eosin.Option(10, doc="Splits 6:2:2, each drawn anew."),
            "folds": FOLDS,
            "seed": SEED,
            "split": SPLIT,
            "max_iter": eosin.Option(1000, doc="Steps of the solver, which stops before when converged."),
            "tol": eosin.Option(1e-7, doc="Relative precision of the solver's objective."),
        },
        metrics=("auroc", "accuracy", "balanced_accuracy"),
        ddof=1,
        notes="G2L paper, Downstream Task Benchmark: linear probe, 6:2:2, AUC or one-vs-rest macro AUC, after TITAN "
        "(Ding et al. 2025): raw features, lbfgs, 45 penalties 1e-5 ... 1e6, least validation log-loss, no refit. "
        "TITAN stops after 500 steps; here every problem converges.",
    )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """`auroc`, `accuracy`, `balanced_accuracy` of the test rows of each seed, and predictions of these rows.

        Details: `C` (seeds,), the chosen ones, and `val` (seeds, n_C), the numbers that chose them.

        A class that a test part lacks is left out of the means over classes; a note says so.

        Raises:
            DataError: no labels, one class, a class with fewer rows than parts, no groups.
        """
        o = self.card.complete(options)
        at_least_one(o, "n_C", "seeds", "max_iter")
        if not 0 < o["C_min"] <= o["C_max"]:
            raise UsageError(
                f"C_min={o['C_min']:g}, C_max={o['C_max']:g}: the C's lie between them, above 0. Swap them?"
            )
        X, y = matrix(emb.X, "X"), labels_of(emb)
        runs, notes = linear_parts(emb, y, o)
        C = np.geomspace(o["C_min"], o["C_max"], o["n_C"])
        part = np.stack([p for _, _, p in runs])
        val = np.full((len(runs), len(C)), np.nan)
        best: dict[int, tuple[float, int, np.ndarray]] = {}  # run -> goodness, minus the number of its C, logits
        rows = [(p == "val") & np.isin(y, np.unique(y[p == "train"])) for p in part]  # of classes that were trained on
        short = 0
        search = {"scale": o["scale"], "max_iter": o["max_iter"], "tol": o["tol"]}
        for fit in probes.logistic_path(X, y, part == "train", C, **search):
            val[fit.split, fit.index], good = _quality(fit, y, rows[fit.split], o["select"])
            short += not fit.converged
            if fit.split not in best or (good, -fit.index) > best[fit.split][:2]:
                best[fit.split] = (good, -fit.index, fit.decision)
        values: dict[str, list[float]] = {"auroc": [], "accuracy": [], "balanced_accuracy": []}
        parts = []
        for run, (fold, seed, p) in enumerate(runs):
            test = p == "test"
            score = _spread(probabilities(best[run][2][test]), np.arange(y.max() + 1), emb, y)
            parts.append(_predictions(emb, y, test, fold, seed, score))
            values["auroc"].append(metrics.auroc(y[test], score))
            _judge(values, y[test], score)
        if short:
            notes.append(f"{short} of {val.size} fits had not converged after {o['max_iter']} steps.")
        chosen = C[[-best[run][1] for run in range(len(runs))]]
        return eosin.Scores(values, _joined(parts), {"C": chosen, "val": val}, notes + _missing(emb, y, part))


def _spaces(
    X: np.ndarray, fold: np.ndarray, kind: str, n_components: int
) -> Iterator[tuple[int, Mask, Mask, np.ndarray]]:
    """(fold, training rows, test rows, all rows as the neighbours' distances see them)."""
    known = np.unique(fold[fold != UNUSED])
    pca = None if kind == "none" else FoldPCA(X, fold, known)
    Z = X if pca is None else pca.project(known, n_components)
    for k, train, test in sides(fold):
        if pca is not None and kind == "train":
            Z = pca.project(known[known != k], n_components)
        yield k, train, test, Z


def _quality(fit: Fit, y: np.ndarray, rows: Mask, select: str) -> tuple[float, float]:
    """The number that chooses C, from these validation rows, and how good it is."""
    if not rows.any():
        return np.nan, -np.inf
    if select == "log_loss":
        loss = log_loss(fit.decision[rows], y[rows])
        return loss, -loss
    area = metrics.auroc(y[rows], probabilities(fit.decision[rows]))
    return area, area if np.isfinite(area) else -np.inf


def _spread(score: np.ndarray, columns: np.ndarray, emb: Any, y: np.ndarray) -> np.ndarray:
    """Scores of some classes as (m, classes), 0 for the others: equally wide for every part of a dataset."""
    wide = np.zeros((len(score), max(len(emb.classes), y.max() + 1)))
    wide[:, columns] = score
    return wide


def _judge(values: dict[str, list[float]], y: np.ndarray, score: np.ndarray) -> None:
    predicted = score.argmax(1)
    values["accuracy"].append(metrics.accuracy(y, predicted))
    values["balanced_accuracy"].append(metrics.balanced_accuracy(y, predicted))


def _predictions(emb: Any, y: np.ndarray, test: Mask, fold: int, seed: int, score: np.ndarray) -> dict[str, np.ndarray]:
    n = len(score)
    return {"id": emb.id[test], "fold": np.full(n, fold), "seed": np.full(n, seed), "y": y[test], "score": score}


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def _missing(emb: Any, y: np.ndarray, part: np.ndarray) -> list[str]:
    """A sentence for each class that some split does not train on, or does not test."""
    notes = []
    meaning = {"train": "there it is never predicted", "test": "there it is left out of the means over classes"}
    for c in np.unique(y):
        for kind, so in meaning.items():
            without = int((~(part[:, y == c] == kind).any(1)).sum())
            if without:
                notes.append(f"Class {name(emb, c)} has no {kind} rows in {without} of {len(part)} splits: {so}.")
    return notes
