"""What others have done instead of HEST's ridge, each under a name of its own, never in one column with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import eosin
from eosin import metrics
from eosin.errors import UsageError

from .folds import inner
from .protocols import ALPHA, COMMON, COMPONENTS, HestRidge
from .ridge import Training


class HestRidgeRaw(HestRidge):
    """Ridge on the embeddings as they are, without scaling, PCA or intercept: HEST's paper, Table A13, and the code
    without `dimreduce` (mahmoodlab/HEST issues 50 and 144). Wide embeddings are penalised more."""

    card = eosin.ProtocolCard(
        "hest-ridge-raw@1",
        options={"alpha": eosin.Option(None, float, doc="Ridge penalty; none: 100 / (dimensions x genes)."), **COMMON},
        metrics=("pearson",),
        ddof=0,
        notes="mahmoodlab/HEST without PCA: ridge without intercept on unscaled embeddings, as in Table A13 of its paper.",
    )


class HestRidgeIntercept(HestRidge):
    """HEST's ridge with an intercept, so that errors mean something. Components are centred on the training rows, which
    is why Pearson is that of hest-ridge@1; without PCA (n_components=0) it is not."""

    card = eosin.ProtocolCard(
        "hest-ridge-intercept@1",
        options={"n_components": COMPONENTS, "alpha": ALPHA, **COMMON},
        metrics=("pearson", "r2", "mse"),
        ddof=0,
        notes="hest-ridge@1 with an intercept; without one HEST's R2 and squared error measure the level of the counts.",
    )
    intercept = True

    def per_gene(self, Y: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        spread, mse = Y.var(0), np.square(Y - predicted).mean(0)
        constant = np.ptp(Y, 0) == 0
        r2 = np.where(constant, np.nan, 1 - mse / np.where(constant, 1, spread))
        return {**super().per_gene(Y, predicted), "r2": r2, "mse": mse}


class HestRidgeCv(HestRidge):
    """HEST's ridge with a penalty that inner folds of whole patients (slides) choose by their mean Pearson
    (mahmoodlab/HEST pull request 140: about 5000 instead of 0.0078 lifts a model by 0.02)."""

    card = eosin.ProtocolCard(
        "hest-ridge-cv@1",
        options={
            "n_components": COMPONENTS,
            "low": eosin.Option(1e-2, float, doc="The smallest penalty that is tried."),
            "high": eosin.Option(1e6, float, doc="The largest."),
            "n_alphas": eosin.Option(17, doc="How many are tried, evenly spaced in their logarithm."),
            "inner": eosin.Option(5, doc="Inner folds, at most as many as training patients."),
            **COMMON,
        },
        metrics=("pearson",),
        ddof=0,
        notes="hest-ridge@1 with its penalty tuned by inner cross-validation over patients, after mahmoodlab/HEST PR 140.",
    )

    def alpha(
        self, emb: Any, training: Training, train: np.ndarray, options: Mapping[str, Any]
    ) -> tuple[float | None, list[str]]:
        if not 0 < options["low"] <= options["high"] or options["n_alphas"] < 1 or options["inner"] < 2:
            raise UsageError(
                f"{self.card.name}: low and high are above 0, low the smaller; n_alphas is 1, inner 2 or more."
            )
        owner = emb.group if emb.group is not None else emb.slide
        folds, how = inner(owner, train, options["inner"])
        alphas = np.geomspace(options["low"], options["high"], options["n_alphas"])
        table = np.array([_path(training, part, rest, alphas, options["n_components"]) for _, part, rest in folds])
        known = ~np.isnan(table).all(1)
        if not known.any():
            return None, ["no gene varies in the inner folds, so the penalty is HEST's."]
        mean = table[known].mean(0)
        best = len(mean) - 1 - int(mean[::-1].argmax())  # the stiffest of equals
        said = [f"penalty {alphas[best]:.4g}, chosen by {how}."]
        if best in (0, len(alphas) - 1):
            said.append(f"penalty {alphas[best]:.4g} is at the end of those tried: widen low and high.")
        return float(alphas[best]), said


def _path(
    training: Training, train: np.ndarray, test: np.ndarray, alphas: np.ndarray, n_components: int
) -> list[float]:
    """The mean Pearson over genes for each penalty, from one decomposition; nan where no gene varies."""
    basis = training.basis(train, n_components)
    Z, Y = basis.along(training.X[test]), training.Y[test]
    found = []
    for alpha in alphas:
        r = metrics.pearson(Y, Z @ basis.coefficients(alpha))
        found.append(float(np.nanmean(r)) if not np.isnan(r).all() else float("nan"))
    return found
