"""Linear CKA: how alike two models see the same tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import eosin
from eosin import metrics
from eosin.errors import DataError, UsageError


class Cka(eosin.Protocol):
    """Linear centred kernel alignment of two models on the same rows, as published and debiased."""

    card = eosin.ProtocolCard(
        "cka@1",
        options={
            "rows": eosin.Option(
                "tiles",
                ("tiles", "items"),
                "tiles: the patches, as the paper says. items: regions or slides, tiles' means.",
            ),
            "normalize": eosin.Option(False, doc="Rows at length one first, as THUNDER does; the paper does not say."),
            "batches": eosin.Option(
                0, doc="CKA of so many rows at a time, drawn at random, each once; 0: all rows at once."
            ),
            "folds": eosin.Option(0, doc="CKA of each of so many random parts of equal size; 0: all rows at once."),
            "seed": eosin.Option(0, doc="Of the drawing of batches and folds."),
        },
        metrics=("cka", "cka_debiased"),
        ddof=1,
        rows="tiles",
        readout="cls|default",
        against=True,
        notes="G2L paper, Table 1, after Kornblith et al. 2019. The value depends on the number of rows, which the paper does "
        "not give, nor whether rows were normalised, nor what its ± is over. Debiased: Song et al. 2012, equation 5.",
    )

    def score(self, emb: Any, **options: Any) -> eosin.Scores:
        """`cka` and `cka_debiased`, of all rows or one a part. Details: `n` (rows of each part) and `dimensions`.

        Raises:
            DataError: no other model, fewer than four rows, NaN or Inf. UsageError: batches and folds at once.
        """
        o = self.card.complete(options)
        X, Y = _rows(emb, o["rows"])
        values: dict[str, list[float]] = {"cka": [], "cka_debiased": []}
        n = []
        for rows in _parts(len(X), o):
            sums = metrics.CKA(o["normalize"])
            sums.add(X[rows], Y[rows])
            values["cka"].append(sums.value())
            values["cka_debiased"].append(sums.value(debiased=True))
            n.append(sums.seen)
        size = f"{n[0]:,} rows" if len(n) == 1 else f"{len(n)} parts of {min(n):,} rows or more"
        notes = [f"{size}; {X.shape[1]} and {Y.shape[1]} dimensions."]
        if np.isnan(values["cka"]).any():
            notes.append("A model gives all tiles of a part one embedding: it is not a number.")
        if len(X) > sum(n):
            notes.append(f"{len(X) - sum(n):,} rows that fill no batch were left out.")
        if min(n) < 10 * max(X.shape[1], Y.shape[1]):
            notes.append("Few rows for so many dimensions: the published form is too large, the debiased one is not.")
        return eosin.Scores(values, None, {"n": n, "dimensions": [X.shape[1], Y.shape[1]]}, notes)


def _rows(emb: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The two models' rows: tiles, or the means of each item's tiles."""
    if emb.X2 is None:
        raise DataError(
            "CKA compares two models. Name the other: bench run --against MODEL, or X2 in the file of bench score."
        )
    X, Y = emb.X, emb.X2
    if len(X) != len(Y):
        raise DataError(f"X has {len(X)} rows and X2 {len(Y)}. Row i of both must be the same tile.")
    if len(X) < 4:
        raise DataError(f"{len(X)} rows: the debiased CKA needs four or more. Give more tiles.")
    for name, rows in (("X", X), ("X2", Y)):
        if not np.isfinite(rows).all():
            raise DataError(f"{name} has NaN or Inf. Embed these tiles again.")
    item = emb.table.get("item")
    if kind == "tiles" or item is None:
        return X, Y
    _, owner, count = np.unique(item, return_inverse=True, return_counts=True)
    order, first = np.argsort(owner, kind="stable"), np.cumsum(count) - count
    return tuple(np.add.reduceat(V[order].astype(np.float64), first, axis=0) / count[:, None] for V in (X, Y))  # type: ignore[return-value]


def _parts(n: int, o: dict[str, Any]) -> Iterator[Any]:
    """Row numbers of each part; one slice of everything where nothing is asked."""
    size, folds = o["batches"], o["folds"]
    if size and folds:
        raise UsageError(f"batches={size} and folds={folds}: give one of them.")
    if size < 0 or folds < 0 or folds == 1 or 0 < size < 4:
        raise UsageError(f"batches={size}, folds={folds}: a batch has 4 rows or more, folds are 2 or more; 0 is none.")
    if not size and not folds:
        yield slice(None)
        return
    if n < (size or 4 * folds):
        raise UsageError(
            f"There are {n} rows: too few for {'a batch' if size else 'folds'} of {size or folds}. Give less."
        )
    order = np.random.default_rng(o["seed"]).permutation(n)
    cuts = np.arange(size, n + 1, size) if size else None
    yield from np.array_split(order, folds) if cuts is None else np.split(order, cuts)[: len(cuts)]
